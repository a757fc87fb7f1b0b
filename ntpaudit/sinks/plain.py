"""Text and numbers from outside, made safe to stand in one line."""


def one_line(text: str) -> str:
    """Put a space for every character that is not printable: line breaks, terminal controls, broken Unicode."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def tag_value(text: str) -> str:
    """Return a tag's value as a database keeps it, which is not always as it was given."""
    return one_line(text).replace("\\", "/")


def decimal(value: float) -> str:
    """Write a number to the nanosecond in fixed notation, without an exponent or trailing zeros."""
    return f"{value:.9f}".rstrip("0").rstrip(".")
