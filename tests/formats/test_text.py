"""Text is what a person reads at a terminal: true, aligned, plain ASCII and never too wide."""

import re

import pytest
from hypothesis import given

from ntpaudit.core.observation import Claim, Daemon, HiddenDaemons, Unavailable
from ntpaudit.core.record import Record
from ntpaudit.formats.text import facts, render
from ntpaudit.render.terminal import WIDTH
from tests.formats.test_summary import SCALES
from tests.records import CASES, CHRONYD, record, records, servers

OK = """\
OK  clock is 1.92 ms behind, at most 4.76 ms wrong if at most 1 of 5 servers is wrong (4 of 5
    servers agree, 1 disagrees)

source            address       status         this host is       +/-  delay  st  reference
ntp1.example.net  192.0.1.1     agreeing      1.80 ms behind  2.96 ms   2 ms   2  203.0.113.1
ntp2.example.net  192.0.2.1     agreeing      1.90 ms behind  3.96 ms   4 ms   2  203.0.113.2
ntp3.example.net  192.0.3.1     agreeing      2.00 ms behind  4.96 ms   6 ms   2  203.0.113.3
ntp4.example.net  192.0.4.1     agreeing      2.10 ms behind  5.96 ms   8 ms   2  203.0.113.4
ntp9.example.net  198.51.100.9  falseticker  37.000 s ahead   2.96 ms   2 ms   2  198.51.100.1

low       source-quorum: 1 of 5 usable servers disagrees: ntp9.example.net
          fix: find out which server is wrong, and replace it; 4 independent servers outvote one
               wrong server

servers   1.92 ms behind +/- 3.07 ms (4 of 5 servers agreed)
daemons   chronyd (pid 812)
kernel    synchronised, maximum error 31 ms, frequency +12.345 ppm
profile   log-integrity: warning if the estimate exceeds 100 ms, critical if proven beyond 1 s
assumed   oscillator error of at most 50 ppm (host.max_drift_ppm)
"""

CRITICAL = """\
CRITICAL  clock is at least 2 h behind if at most 1 of 4 servers is wrong (estimate 2 h; 4 of 4
          servers agree)

source            address    status        this host is       +/-  delay  st  reference
ntp1.example.net  192.0.1.1  agreeing  7200.004 s behind  3.06 ms   2 ms   2  203.0.113.1
ntp2.example.net  192.0.2.1  agreeing  7200.004 s behind  3.96 ms   4 ms   2  203.0.113.2
ntp3.example.net  192.0.3.1  agreeing  7200.004 s behind  5.06 ms   6 ms   2  203.0.113.3
ntp4.example.net  192.0.4.1  agreeing  7200.004 s behind  6.16 ms   8 ms   2  203.0.113.4

critical  offset-out: the clock is at least 2 h behind (critical tolerance 1 s); beyond 300 s,
          Kerberos and token logins also fail
          fix: if an agent runs here, save the output of `sudo ntpaudit history --since 90d --format
               json`, because its records correct the affected logs; if the clock is ahead, first
               stop applications that cannot bear repeated timestamps (databases, schedulers),
               because the repair sets it back; then check the servers of the time daemon, and
               restart it
  medium  kernel-maxerror-violated: the kernel states a maximum error of 31 ms; the servers prove
          that it is at least 2 h behind
          fix: the claim becomes true when the clock is right: check the time daemon and its servers
  medium  false-time-quality: log messages with the time quality of RFC 5424 state that the clock is
          synchronised within 31 ms; the servers prove that it is at least 2 h behind
          fix: do not rely on the accuracy that log messages of this host state; correct their
               timestamps with the offsets in `sudo ntpaudit history --since 90d --format json`
high      tz-or-rtc-fault: the clock is almost exactly 2 h behind: probably a wrong time zone or a
          hardware clock in local time
          fix: if the clock is ahead, first stop applications that cannot bear repeated timestamps
               (databases, schedulers), because the repair sets it back; then correct the time zone
               (`timedatectl` shows it), and restart the time daemon, so that it steps the clock.
               When the clock is right: if `timedatectl` shows `RTC in local TZ: yes`, run
               `timedatectl set-local-rtc 0`, which also sets the hardware clock

servers   2 h behind +/- 3.97 ms (4 of 4 servers agreed)
daemons   chronyd (pid 812), ntpd (pid 901, does not discipline the clock)
kernel    synchronised, maximum error 31 ms, frequency +12.345 ppm; contradicts the servers by 119
          min
profile   log-integrity: warning if the estimate exceeds 100 ms, critical if proven beyond 1 s
assumed   oscillator error of at most 50 ppm (host.max_drift_ppm)
"""

UNKNOWN = """\
UNKNOWN  clock was not measured: none of 3 servers replied (2 timeout, 1 name not found)

source            address     status       reason
ntp1.example.net  192.0.2.99  unreachable  timeout
ntp2.example.net              unreachable  name-unknown
ntp3.example.net  192.0.2.99  unreachable  timeout

medium    unreachable-sources: 2 of 3 servers did not reply: ntp1.example.net (timeout),
          ntp3.example.net (timeout); 1 of 3 servers has no known address: ntp2.example.net
          (name-unknown)
          fix: timeout: check that these servers run, and routes and firewalls (UDP 123 in both
               directions); remove servers that no longer exist; name-unknown: check the spelling of
               the name and the resolver of this host (`getent ahosts NAME`; DNS is port 53); remove
               the server only if its name is gone for good

daemons   chronyd (pid 812)
kernel    synchronised, maximum error 31 ms, frequency +12.345 ppm
profile   log-integrity: warning if the estimate exceeds 100 ms, critical if proven beyond 1 s
"""

COLOUR = re.compile(r"\x1b\[(?:0|3[1235])m")
ROW = re.compile(r"  (-?[0-9.]+) (s|ms|µs|ns) (behind|ahead ) +([0-9.]+) (years|days|h|min|s|ms|µs|ns)  ")


def table(text: str) -> list[str]:
    """Return the lines of the table of sources, the titles first."""
    block = text.split("\n\n")[1].splitlines()
    assert block[0].startswith("source")
    return block


@pytest.mark.parametrize(
    ("case", "expected"),
    [("ok, falseticker", OK), ("beyond, hours", CRITICAL), ("unmeasured, mixed", UNKNOWN)],
)
def test_whole_output(case: str, expected: str) -> None:
    """An audit that is well, one that is not, and one without a measurement look exactly like this."""
    assert render(CASES[case]) == expected


@given(records())
def test_text_fits_any_terminal(record: Record) -> None:
    """Whatever was seen, the text is printable ASCII of at most 100 columns, without a blank at the end of a line."""
    text = render(record)
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert len(line) <= WIDTH
        assert line.replace("µ", "u").isascii()
        assert line == "" or line.isprintable()


@given(records())
def test_colour_moves_nothing(record: Record) -> None:
    """Without its colours a coloured text is the plain one."""
    assert COLOUR.sub("", render(record, colour=True)) == render(record)


@pytest.mark.parametrize(
    ("case", "colour", "word"),
    [
        ("ok, behind", 32, "OK"),
        ("finding", 33, "WARNING"),
        ("no server", 35, "UNKNOWN"),
        ("1970", 31, "CRITICAL"),
    ],
)
def test_colours_of_severities(case: str, colour: int, word: str) -> None:
    """OK is green, a warning yellow, unknown magenta, critical red."""
    assert render(CASES[case], colour=True).startswith(f"\x1b[{colour}m{word}\x1b[0m  clock ")


def test_colours_of_statuses() -> None:
    """A falseticker is red, a source that did not count is yellow, and one that agrees has no colour."""
    text = render(CASES["every status"], colour=True)
    assert re.findall(r"\x1b\[(\d+)m(\S+) *\x1b\[0m ", "\n".join(table(text))) == [
        ("33", "distant"),
        ("31", "falseticker"),
        ("33", "rejected"),
        ("33", "unreachable"),
        ("33", "skipped"),
    ]


@pytest.mark.parametrize("case", [case for case, record in CASES.items() if record.sources])
def test_columns_are_aligned(case: str) -> None:
    """Every source's status stands under its title, and every name under its own."""
    titles, *rows = table(render(CASES[case]))
    at = titles.index("status")
    assert [row[at:].split(" ")[0] for row in rows] == [source.status for source in CASES[case].sources]
    assert all(row[at - 2 : at] == "  " for row in rows)


def test_empty_columns_are_not_shown() -> None:
    """If no source replied, there is neither an offset nor a delay to show."""
    assert table(render(CASES["unmeasured, no reply"]))[0].split() == ["source", "address", "status", "reason"]


def test_names_are_cut_and_numbers_are_not() -> None:
    """Long names lack their middle, so that every number is whole."""
    titles, *rows = table(render(CASES["long names"]))
    assert "reference" not in titles
    assert all("~" in row.split()[0] for row in rows)
    assert rows[0].endswith("  agreeing      1.80 ms behind  2.96 ms   2 ms   2")


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100])
def test_servers_stay_apart_however_narrow_the_table(width: int) -> None:
    """Name and port identify a source: other columns are dropped first, and a line may be longer than the page."""
    names = [f"ntp{number}.time.fra.example.net:{port}" for number in (1, 2) for port in (123, 1123)]
    case = CASES["ok, falseticker"]
    sources = tuple(source._replace(name=name) for source, name in zip(case.sources, names, strict=False))
    titles, *rows = table(render(case._replace(sources=sources), width=width))
    shown = [row.split()[0] for row in rows]
    assert len(set(shown)) == len(sources)
    for text, source in zip(shown, sources, strict=True):
        head, _, tail = text.partition("~")
        assert source.name.startswith(head)
        assert source.name.endswith(tail)
        assert head.startswith("ntp")
    assert ("delay" in titles) == (width > 60)
    assert all(len(text) >= 9 for text in shown)


@given(records())
def test_the_table_covers_what_was_measured(record: Record) -> None:
    """The offset and its error as they are shown hold the whole interval of the source."""
    shown = [match for line in render(record).splitlines() if (match := ROW.search(line))]
    measured = [source for source in record.sources if source.offset_s is not None]
    assert len(shown) == len(measured)
    for match, source in zip(shown, measured, strict=True):
        number, unit, word, error, error_unit = match.groups()
        offset_s = float(number) * SCALES[unit] * (1 if word == "behind" else -1)
        error_s = float(error) * SCALES[error_unit]
        assert source.earliest_s is not None
        assert source.latest_s is not None
        slack = 1e-9 * max(abs(offset_s), error_s) + 1e-12
        assert offset_s - error_s <= source.earliest_s + slack
        assert offset_s + error_s >= source.latest_s - slack


def test_leap_seconds_and_clocks_are_explained() -> None:
    """An announced leap second and the names of reference clocks are spelt out."""
    leap, clocks = render(CASES["ok, leap second"]), render(CASES["ok, reference clocks"])
    assert leap.endswith("\nleap      4 of 4 agreeing servers announced: last minute of the day has 61 seconds\n")
    assert clocks.endswith(
        "\nreference GPS is Global Position System; PPS is Generic pulse-per-second; DCF is LF Radio DCF77\n"
        "          Mainflingen, DE 77.5 kHz\n"
    )


def test_kernel_that_cannot_be_asked() -> None:
    """If the kernel state is not available, the reason is shown."""
    assert "\nkernel    state not available: Function not implemented\n" in render(CASES["ok, kernel not asked"])


def test_what_comes_from_outside_cannot_command_the_terminal() -> None:
    """Control characters in a name are blanks, and characters beyond ASCII are written as escapes."""
    rows = table(render(CASES["strange names"]))
    assert [row[:19].rstrip() for row in rows[1:]] == [
        'a "b" c',
        "back\\slash\\",
        "new line|bar, a=b",
        "\\xfc.example [2J",
    ]


@pytest.mark.parametrize("width", [40, 52, 60, 80, 100])
@pytest.mark.parametrize("case", ["ok, falseticker", "unmeasured, mixed", "beyond, hours"])
def test_lines_fit_the_room_that_there_is(case: str, width: int) -> None:
    """Sentences are wrapped and columns left out; a table of numbers takes 60 columns, where there are fewer too."""
    sentences, _, rest = render(CASES[case], width=width).partition("\n\n")
    table, _, others = rest.partition("\n\n")
    assert max(map(len, (sentences + "\n" + others).splitlines())) <= width
    assert max(map(len, table.splitlines())) <= max(width, 60)
    assert render(CASES[case], width=500) == render(CASES[case])


@pytest.mark.parametrize(
    ("daemons", "line"),
    [
        ((), "none found"),
        (HiddenDaemons("other users' processes are hidden"), "none found; other users' processes are hidden"),
        (
            HiddenDaemons("hidden", (Daemon("chronyd", 7, disciplines=False, reason="started with -x"),)),
            "chronyd (pid 7, started with -x); hidden",
        ),
        (
            (Daemon("hv_utils", 0, disciplines=False, reason="sets it now"), Daemon("vmtoolsd", 9, None, "unknown")),
            "hv_utils (sets it now), vmtoolsd (pid 9, unknown)",
        ),
        ((Daemon("chronyd", 7, disciplines=False),), "chronyd (pid 7, does not discipline the clock)"),
    ],
)
def test_daemons_are_named_with_what_they_do(daemons: tuple[Daemon, ...] | HiddenDaemons, line: str) -> None:
    """Whether each disciplines the clock, and whether there may be others that cannot be seen."""
    assert dict(facts(record(*servers(0.0), daemons=daemons)))["daemons"] == line


def test_a_related_finding_is_indented_under_its_primary() -> None:
    """The level of a finding that does not count by itself is not where those are that do."""
    lines = render(CASES["findings"], width=80).split("\n")
    levels = [line[:10] for line in lines if ("unsynced: " in line or "daemon-count: " in line) and line[10] != " "]
    assert levels == ["high      ", "  medium  "]


CLAIM = Claim(2 * 10**12 + 10**9, True, "ntp9.example.net", 0.0003, 0.00102, 40.2, 64.0, 3, 0, "nts")


@pytest.mark.parametrize(
    ("claim", "line"),
    [
        (CLAIM, "300 µs behind +/- 1.02 ms, follows ntp9.example.net, updated 40.2 s ago, authenticated by NTS"),
        (
            CLAIM._replace(bound_s=None, authentication="none", offset_s=0.0),
            "0 ns off, follows ntp9.example.net, updated 40.2 s ago",
        ),
        (Claim(0, False, updated_s=11_000.0), "not synchronised, updated 3.05 h ago"),
        (Claim(0), "it reports nothing about itself"),
        (Unavailable("it has ended"), "its claim cannot be read: it has ended"),
        (
            Unavailable("only root can read its socket", "run `ntpaudit check` as root"),
            "its claim cannot be read: only root can read its socket; to change that: run `ntpaudit check` as root",
        ),
    ],
)
def test_the_time_daemon_is_quoted(claim: Claim | Unavailable, line: str) -> None:
    """What it reports, or why that cannot be read and what would change it; beside it what the others state."""
    shown = list(facts(record(*servers(0.0019), daemons=(CHRONYD._replace(claim=claim),))))
    assert [label for label, _ in shown[:3]] == ["servers", "daemon", "kernel"]
    assert shown[1][1] == f"chronyd (pid 812): {line}"


def test_a_statement_that_is_refuted_says_by_how_much() -> None:
    """The least distance, at 40 columns too."""
    misled = record(*servers(0.2), daemons=(CHRONYD._replace(claim=CLAIM),))
    shown = dict(facts(misled))
    assert shown["daemon"].endswith("; contradicts the servers by 192 ms")
    assert shown["kernel"].endswith("; contradicts the servers by 165 ms")
    assert max(map(len, render(misled, width=40).split("\n\n")[-1].splitlines())) <= 40
