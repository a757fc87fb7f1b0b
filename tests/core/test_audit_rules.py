"""Which audit rules record changes of the time: the examples of Debian's auditd, and made-up rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.audit_rules import AuditRule, missing_rules, read_rules
from tests.world.packages import program

CIS = """\
-a always,exit -F arch=b64 -S adjtimex,settimeofday -k time-change
-a always,exit -F arch=b32 -S adjtimex,settimeofday -k time-change
-a always,exit -F arch=b64 -S clock_settime -F a0=0x0 -k time-change
-a always,exit -F arch=b32 -S clock_settime -F a0=0x0 -k time-change
-w /etc/localtime -p wa -k time-change"""
CALLS_64, CALLS_32, SET_64, SET_32, WATCH = CIS.split("\n")
EVERYTHING = (CALLS_64, SET_64, CALLS_32, SET_32, WATCH)
"""What is missing where there is no rule."""

_VOCABULARY = (
    "-a -A -d -w -W -S -F -C -k -p -D -e 2 always,exit exit,never task,never always,exclude msgtype=SYSCALL arch=b64 "
    "arch=b32 arch!=b64 adjtimex settimeofday,clock_settime all a0=0x0 auid>=1000 wa x /etc/localtime /etc time-change "
    "path=/etc/localtime perm=wa #"
)
_WORDS = st.sampled_from(_VOCABULARY.split())


def example(name: str) -> str:
    """Return an example of Debian's auditd."""
    rules = "usr/share/doc/auditd/examples/rules"
    root = next(parent for parent in program("auditctl").parents if (parent / rules).is_dir())
    return (root / rules / f"{name}.rules").read_text()


def missing(text: str, machine: str = "x86_64") -> tuple[str, ...]:
    """Return what is missing of the rules in a text."""
    return missing_rules(read_rules(text.split("\n")), machine)


def test_the_rules_of_the_benchmarks_are_complete() -> None:
    """Nothing is missing of them, and what is missing of none is these; it can be loaded as it is printed."""
    assert missing(CIS) == ()
    assert missing("") == missing("No rules\n") == EVERYTHING
    assert missing("\n".join(EVERYTHING)) == ()
    for number, line in enumerate(EVERYTHING):
        assert missing("\n".join(EVERYTHING[:number] + EVERYTHING[number + 1 :])) == (line,)


@pytest.mark.parametrize(
    "rules",
    [
        CIS.replace(" -F a0=0x0", ""),  # as older benchmarks have it
        CIS.replace("a0=0x0", "a0=0"),
        CIS.replace("adjtimex,settimeofday", "adjtimex -S settimeofday"),
        CIS.replace("adjtimex,settimeofday", "adjtimex,settimeofday,stime"),
        CIS.replace("always,exit", "exit,always"),
        CIS.replace("-k time-change", "-F key=10.4.2b-time-change"),
        CIS.replace("-k time-change", "-F success=1"),
        CIS.replace("b64", "x86_64").replace("b32", "i386"),
        CIS.replace("-w /etc/localtime -p wa", "-a always,exit -F path=/etc/localtime -F perm=wa"),
        CIS.replace("-w /etc/localtime -p wa", "-a always,exit -S all -F dir=/etc -F perm=rwxa"),
        CIS.replace("/etc/localtime -p wa", "/etc/ -p wa"),
        CIS.replace(" -p wa", ""),
        CIS.replace("adjtimex,settimeofday", "159,164", 1),
        f"{WATCH}\n-a always,exit -S all",
        f"-a never,exit -F arch=b64 -S adjtimex -F auid=unset -F uid=chrony\n{CIS}\n-e 2\n-D",
        f"-a always,exit -S adjtimex,settimeofday,clock_settime\n{CALLS_32}\n{SET_32}\n{WATCH}",
        f"-e 0\n{CIS}\n-e 1",
        f"-W /etc/localtime -p wa -k time-change\n{CIS}",
        f"{CIS}\n-D -k another",
        f"  # a comment\n{CIS}\n-a never,exit -F arch=b64 -S all",  # the first rule that matches decides
    ],
)
def test_each_form_of_the_rules_counts(rules: str) -> None:
    """The near misses: another order, other words, other ABIs' names, and what an exclusion may have."""
    assert missing(rules) == ()


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        (CIS.replace("a0=0x0", "a0=0x1"), (SET_64, SET_32)),  # CLOCK_MONOTONIC, which cannot be set
        (CIS.replace("adjtimex,", "", 1), (CALLS_64.replace(",settimeofday", ""),)),
        (
            CIS.replace("arch=b64 -S adjtimex,settimeofday", "arch=b64 -S adjtimex,settimeofday -F auid>=1000"),
            (CALLS_64,),
        ),
        (
            CIS.replace("arch=b64 -S adjtimex,settimeofday", "arch=b64 -S adjtimex,settimeofday -C uid!=euid"),
            (CALLS_64,),
        ),
        (CIS.replace("-p wa", "-p w"), (WATCH,)),
        (CIS.replace("/etc/localtime", "/etc/timezone"), (WATCH,)),
        (CIS.replace("-w /etc/localtime -p wa", "-a always,exit -F path=/etc -F perm=wa"), (WATCH,)),
        (CIS.replace("-w /etc/localtime", "-w /etc/local"), (WATCH,)),
        (f"-a never,exit -F arch=b64 -S adjtimex\n{CIS}", (CALLS_64.replace(",settimeofday", ""),)),
        (f"-a exit,never -F arch=b64 -S clock_settime -F a0=0x0\n{CIS}", (SET_64,)),
        (f"-a exit,never -F path=/etc/localtime\n{CIS}", (WATCH,)),
        (f"{CIS}\n-A never,exit -F arch=b32 -S all", (CALLS_32, SET_32)),
        (f"-a always,exit -S adjtimex,settimeofday,clock_settime\n{WATCH}", (CALLS_32, SET_32)),
        (f"{CIS}\n-D", EVERYTHING),
        (f"{CIS}\n-D -k time-change", EVERYTHING),
        (f"-e 2\n{CIS}", EVERYTHING),
        (f"{CIS}\n-W /etc/localtime -p wa -k time-change", (WATCH,)),
        (f"{CIS}\n-d always,exit -F arch=b64 -S clock_settime -F a0=0x0 -k time-change", (SET_64,)),
        (f"{CIS}\n-a task,never", EVERYTHING),
        (f"{CIS}\n-a always,exclude -F msgtype=SYSCALL", EVERYTHING),
        (CIS.replace("-a", "#-a"), EVERYTHING[:4]),
        (CIS.replace("-S", "-s"), EVERYTHING[:4]),
    ],
)
def test_each_gap_is_found(rules: str, lacking: tuple[str, ...]) -> None:
    """Other clocks, some users only, one permission, an exclusion before it, a deletion, a lock before it."""
    assert missing(rules) == lacking


@pytest.mark.parametrize(
    ("machine", "abis"), [("x86_64", 2), ("aarch64", 2), ("ppc64le", 1), ("armv7l", 1), ("i686", 1), ("riscv64", 1)]
)
def test_what_is_missing_follows_the_machine(machine: str, abis: int) -> None:
    """A machine that runs programs of one ABI needs no rule for another."""
    assert len(missing("", machine)) == 2 * abis + 1
    own = CIS if machine != "i686" else CIS.replace("b32", "i386")
    assert missing(own, machine) == ()


@pytest.mark.needs("auditctl")
@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("30-stig", ()),
        ("30-nispom", ()),
        ("30-pci-dss-v31", ()),
        ("10-no-audit", EVERYTHING),
        ("10-base-config", EVERYTHING),
        ("22-ignore-chrony", EVERYTHING),
        ("21-no32bit", (CALLS_64, SET_64, WATCH)),
        ("32-power-abuse", EVERYTHING),
        ("30-ospp-v42", EVERYTHING),
    ],
)
def test_the_examples_of_auditd(name: str, lacking: tuple[str, ...]) -> None:
    """The rules that Debian's auditd brings record the time where they say so, and only there."""
    assert missing(example(name)) == lacking


@pytest.mark.needs("auditctl")
def test_rules_that_are_merged() -> None:
    """An example that excludes chronyd by its user, before those of the STIG, hides nothing."""
    merged = "\n".join(map(example, ("10-base-config", "22-ignore-chrony", "30-stig")))
    assert missing(merged) == ()
    assert missing(merged + "\n-a task,never\n") == EVERYTHING


@given(st.lists(st.lists(_WORDS, max_size=9).map(" ".join) | st.text(max_size=40), max_size=12))
def test_any_text_gives_an_answer(lines: list[str]) -> None:
    """Whatever the lines are, the rules are values, and what is missing is among the five lines, alone or in part."""
    rules = read_rules(lines)
    assert all(isinstance(rule, AuditRule) for rule in rules)
    for line in missing_rules(rules, "x86_64"):
        assert any(set(line.replace(",", " ").split()) <= set(full.replace(",", " ").split()) for full in EVERYTHING)
    assert missing("\n".join([*lines, "-D", *EVERYTHING])) == () or any(
        line.split()[:2] == ["-e", "2"] for line in lines
    )
