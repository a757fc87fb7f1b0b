"""A table made to fit: names stay apart, whatever they are and however little room there is."""

from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.render.table_fit import fit, shorten
from ntpaudit.render.terminal import Column, painter, table

NAMES = st.lists(st.text("ab.", min_size=1, max_size=12), min_size=1, max_size=12, unique=True)


@given(NAMES, st.integers(-1, 14))
def test_no_two_names_are_cut_alike(names: list[str], room: int) -> None:
    """What fits is left as it is, what is cut fits, and what would look like another is not shown in that room."""
    cut = shorten(names, room)
    shown = [short for short in cut if short is not None]
    assert len(set(shown)) == len(shown)
    for name, short in zip(names, cut, strict=True):
        if short is not None:
            assert short == name if len(name) <= room else len(short) <= room


def test_names_are_cut_where_most_of_them_stay_apart() -> None:
    """In the middle, unless it is there that they differ."""
    assert shorten(["host-0001-of-ams", "host-0002-of-fra"], 9) == ["host~-ams", "host~-fra"]
    assert shorten(["web1", "master-03.a.example", "worker-03.b.example"], 12) == [
        "web1", "master-03.a~", "worker-03.b~",
    ]  # fmt: skip
    assert shorten(["eu-west-worker-03.a.example", "eu-west-master-03.a.example"], 13) == [
        "eu-we~ker-03~", "eu-we~ter-03~",
    ]  # fmt: skip
    first, second = shorten(["aaaaaaaa1zzzz", "aaaaaaaa2zzzz"], 8)
    assert {first, second} == {"aa~1zzzz", "aa~2zzzz"}
    assert shorten(["aaaaaa1zzzzzz", "aaaaaa2zzzzzz"], 6) == [None, None]
    assert shorten(["aaaa", "aaaaa"], 2) == [None, None]


@given(NAMES, st.integers(8, 40))
def test_a_name_that_cannot_be_cut_stands_above_its_row(names: list[str], width: int) -> None:
    """Every name can be identified; a column is dropped before a name is cut."""
    columns = (Column[str]("name", lambda name: name), Column[str]("size", lambda name: str(len(name))))
    fitting, above = fit(columns, names, width, ("size",))
    title, *rows = table(fitting, names, painter(False), width)
    shown = ["".join(lines) or row.split(maxsplit=1)[0] for lines, row in zip(above, rows, strict=True)]
    assert len(set(shown)) == len(names)
    assert max(map(len, (title, *rows))) <= width
