"""The configuration: every key, from TOML and back."""
