"""Text and numbers from outside, made safe to stand in one line."""

import re

LONGEST = 120  # a name for people has no more characters than this; machines get all of it
LONGEST_TEXT = 1500  # and a sentence about such names no more than this
_WORD = re.compile(rf"\S{{{LONGEST + 1},}}")
# by what spreadsheets know a formula, the wide characters of East Asia too (OWASP, CSV injection)
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def one_line(text: str) -> str:
    """Put a space for every character that is not printable: line breaks, terminal controls, broken Unicode."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def short_name(text: str) -> str:
    """Write a name in one line, its middle left out where it is too long for a person to read."""
    return _shortened(one_line(text))


def short_words(text: str) -> str:
    """Write a text in one line that can be broken at its blanks, and that is not long; nor is any word."""
    said = one_line(text)
    if len(said) <= LONGEST:
        return said
    return _shortened(_WORD.sub(lambda word: _shortened(word[0]), said), LONGEST_TEXT)


def _shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 41]}[...]{text[-36:]}"


def csv_cell(text: str) -> str:
    """Write a text from outside so that a spreadsheet takes it for one; some find a formula behind blanks too."""
    is_formula = text[:1] in ("\t", "\r", "\n") or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if is_formula else text


def tag_value(text: str) -> str:
    """Return a tag's value as a database keeps it, which is not always as it was given."""
    return one_line(text).replace("\\", "/")


def decimal(value: float) -> str:
    """Write a number to the nanosecond in fixed notation, without an exponent or trailing zeros."""
    return f"{value:.9f}".rstrip("0").rstrip(".")
