"""What the templates of the fleet's page may rely on."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from ntpaudit.render.html import breakable, environment
from ntpaudit.render.text_safety import one_line
from tests.world.packages import REPOSITORY

REPORTS = REPOSITORY / "ntpaudit/reports"
TEMPLATES = sorted((REPORTS / "templates").glob("*.jinja"))
TEXTS = st.text() | st.text(alphabet="<>&\"'./ \n\u202e\x00abc{}%")


class Parsed(HTMLParser):
    """The elements and the text of a document."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


@given(TEXTS)
def test_every_value_stays_text(text: str) -> None:
    """Between tags and in an attribute a browser reads what was written, with spaces for control characters."""
    template = environment().from_string('<p title="{{ text }}">{{ text }}</p>')
    parsed = Parsed(template.render(text=text))
    assert parsed.elements == [("p", [("title", one_line(text))])]
    assert parsed.text == one_line(text)


@given(TEXTS)
def test_a_breakable_name_stays_text(name: str) -> None:
    """It is the same text, with nothing but a place to break the line after each dot."""
    parsed = Parsed(str(breakable(name)))
    assert parsed.text == one_line(name)
    assert parsed.elements == [("wbr", [])] * name.count(".")


def test_a_wrong_name_is_an_error() -> None:
    """A template that asks for what is not there writes no page with a hole in it."""
    for source, error in (("{{ nothing }}", UndefinedError), ("{{ 'a'.nothing }}", AttributeError)):
        with pytest.raises(error):
            environment().from_string(source).render()


def test_nothing_from_outside_is_marked_as_safe() -> None:
    """Escaping is switched off nowhere: a line break between two words of a label is all that is marked as safe."""
    sources = "".join(path.read_text() for path in TEMPLATES)
    assert re.findall(r'("[^"]*"|\w+) *\| *safe', sources) == ['"<br>"']
    assert "autoescape" not in sources
    modules = sorted((REPOSITORY / "ntpaudit").rglob("*.py"))
    assert [path.name for path in modules if "Markup(" in path.read_text()] == ["html.py"]


def test_every_template_is_used() -> None:
    """Each is a page, or is included or imported by another one."""
    sources = "".join(path.read_text() for path in TEMPLATES)
    used = {"evidence.html.jinja", "fleet.html.jinja", *re.findall(r'(?:include|import|from) "([^"]+)"', sources)}
    assert used == {path.name for path in TEMPLATES}
