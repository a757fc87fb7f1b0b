"""The world the tests run in: real servers, and servers that misbehave, all on loopback."""
