"""Which rules of Linux' audit system record changes of the time, and which are missing (NTPA-13).

Rules are read as auditctl(8) reads them: from a file, or as `auditctl -l` lists them. A line that cannot be read is no
rule. The first rule that matches a call decides about it.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Abi = Literal["b64", "b32"]

LOCALTIME = "/etc/localtime"
_SETTIME = "clock_settime"
_CALLS = ("adjtimex", "settimeofday", _SETTIME)
_FAMILIES: dict[str, tuple[Abi, ...]] = {
    "x86_64": ("b64", "b32"),
    "aarch64": ("b64", "b32"),
    "ppc64": ("b64", "b32"),
    "s390x": ("b64", "b32"),
    **dict.fromkeys(("ppc64le", "riscv64", "loongarch64"), ("b64",)),
}
"""The ABIs whose programs a kernel runs, its own first; every other machine is one of 32 bits."""

_NUMBERS = {
    ("x86_64", "b64"): {159: "adjtimex", 164: "settimeofday", 227: "clock_settime"},
    ("x86_64", "b32"): {124: "adjtimex", 79: "settimeofday", 264: "clock_settime"},
    ("aarch64", "b64"): {171: "adjtimex", 170: "settimeofday", 112: "clock_settime"},
    ("aarch64", "b32"): {124: "adjtimex", 79: "settimeofday", 262: "clock_settime"},
}
_OPERATIONS = re.compile(r"([a-z0-9_]+)(!=|>=|<=|&=|=|>|<|&)(.*)")
_LISTS = frozenset({"task", "exit", "user", "exclude", "filesystem", "io_uring"})
_EVERY_CHANGE = frozenset({"success=1", "success=yes"})  # fields that hold for each call that changes the clock
_REALTIME = frozenset({"a0=0", "a0=0x0"})  # the argument CLOCK_REALTIME of clock_settime
_SYSCALL_RECORD = frozenset({"msgtype=SYSCALL", "msgtype=1300"})


class AuditRule(NamedTuple):
    """One rule. No `calls`, or `all`: every call. `conditions` are the fields but arch, path, dir, perm and key."""

    list: str
    action: str
    arch: str | None = None
    calls: frozenset[str] = frozenset()
    path: str | None = None
    is_tree: bool = False
    perms: str | None = None
    conditions: tuple[str, ...] = ()
    key: str | None = None

    @property
    def is_of_every_call(self) -> bool:
        """Whether its calls are all there are."""
        return not self.calls or "all" in self.calls


def read_rules(lines: Iterable[str]) -> tuple[AuditRule, ...]:
    """Return the rules that are in force after these lines; after `-e 2` no line has an effect."""
    rules: list[AuditRule] = []
    for line in lines:
        words = [word for word in line.strip().split(" ") if word]
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "-e":
            if words[1:] == ["2"]:
                break
        elif words[0] == "-D":
            key = words[2] if len(words) == 3 and words[1] == "-k" else None
            rules = [rule for rule in rules if key is not None and rule.key != key]
        elif (found := _read(words)) is not None:
            option, rule = found
            match option:
                case "-A":
                    rules.insert(0, rule)
                case "-a" | "-w":
                    rules.append(rule)
                case _:
                    rules = [one for one in rules if one != rule]
    return tuple(rules)


def _read(words: list[str]) -> tuple[str, AuditRule] | None:
    """Return the option that adds or deletes a rule, and the rule; None for any other line."""
    option, rule = "", AuditRule("exit", "always")
    rest = iter(words)
    for word in rest:
        value = next(rest, None)
        if value is None:
            return None
        match word:
            case "-a" | "-A" | "-d":
                names = set(value.split(","))
                lists, actions = names & _LISTS, names & {"always", "never"}
                if len(names) != 2 or not lists or not actions:
                    return None
                option, rule = word, rule._replace(list=lists.pop(), action=actions.pop())
            case "-w" | "-W":
                option, rule = word, rule._replace(path=value.rstrip("/") or "/", is_tree=True)
            case "-S":
                rule = rule._replace(calls=rule.calls | frozenset(value.split(",")))
            case "-p":
                rule = rule._replace(perms=value)
            case "-k":
                rule = rule._replace(key=value)
            case "-C":
                rule = rule._replace(conditions=(*rule.conditions, value))
            case "-F":
                if (with_field := _with_field(rule, value)) is None:
                    return None
                rule = with_field
            case _:
                return None
    return (option, rule) if option else None


def _with_field(rule: AuditRule, text: str) -> AuditRule | None:
    field = _OPERATIONS.fullmatch(text)
    if field is None:
        return None
    name, operation, value = field.groups()
    match name, operation:
        case "arch", "=" | "!=":
            return rule._replace(arch=value if operation == "=" else f"!{value}")
        case "path" | "dir", "=":
            return rule._replace(path=value.rstrip("/") or "/", is_tree=name == "dir")
        case "perm", "=":
            return rule._replace(perms=value)
        case "key", "=":
            return rule._replace(key=value)
    return rule._replace(conditions=(*rule.conditions, text))


def missing_rules(rules: Iterable[AuditRule], machine: str) -> tuple[str, ...]:
    """Return the rules that are missing, as lines for auditd; `machine` as in uname(2).

    They are those of the CIS benchmarks: three calls for each ABI of the machine, and /etc/localtime.
    """
    known, missing = tuple(rules), list[str]()
    for abi in _FAMILIES.get(machine, ("b32",)):
        calls = [call for call in _CALLS if not _records_call(known, call, abi, machine)]
        # clock_settime has a rule of its own: it also sets other clocks than CLOCK_REALTIME
        if others := [call for call in calls if call != _SETTIME]:
            missing.append(f"-a always,exit -F arch={abi} -S {','.join(others)} -k time-change")
        if _SETTIME in calls:
            missing.append(f"-a always,exit -F arch={abi} -S {_SETTIME} -F a0=0x0 -k time-change")
    if not _records_localtime(known):
        missing.append(f"-w {LOCALTIME} -p wa -k time-change")
    return tuple(missing)


def _records_call(rules: tuple[AuditRule, ...], call: str, abi: Abi, machine: str) -> bool:
    """Whether each such call that changes the clock is recorded; a `never` rule with fields may exclude some."""
    if _drops_everything(rules):
        return False
    harmless = _EVERY_CHANGE | _REALTIME if call == _SETTIME else _EVERY_CHANGE
    for rule in rules:
        is_of_calls = rule.list == "exit" and rule.path is None and rule.perms is None
        if is_of_calls and harmless.issuperset(rule.conditions) and _matches(rule, call, abi, machine):
            return rule.action == "always"
    return False


def _matches(rule: AuditRule, call: str, abi: Abi, machine: str) -> bool:
    own = _FAMILIES.get(machine, ("b32",))[0]
    if rule.arch is not None:
        arch = rule.arch.removeprefix("!")
        is_same = (arch if arch in ("b64", "b32") else own if arch == machine else "b32") == abi
        if is_same is rule.arch.startswith("!"):
            return False
    elif not rule.is_of_every_call and abi != own:
        return False  # without arch a name is the number of the machine's own ABI
    numbers = {number for number, name in _NUMBERS.get((machine, abi), {}).items() if name == call}
    return rule.is_of_every_call or call in rule.calls or any(str(number) in rule.calls for number in numbers)


def _drops_everything(rules: tuple[AuditRule, ...]) -> bool:
    """Whether no call at all is audited, or no record of a call is written."""
    return any(
        (rule.list == "task" and rule.action == "never" and not rule.conditions)
        or (rule.list == "exclude" and len(rule.conditions) == 1 and rule.conditions[0] in _SYSCALL_RECORD)
        for rule in rules
    )


def _records_localtime(rules: tuple[AuditRule, ...]) -> bool:
    if _drops_everything(rules):
        return False
    for rule in rules:
        is_of_every_call = rule.list == "exit" and rule.is_of_every_call and _EVERY_CHANGE.issuperset(rule.conditions)
        is_of_changes = rule.perms is None or {"w", "a"} <= set(rule.perms)
        if is_of_every_call and is_of_changes and _is_of_localtime(rule):
            return rule.action == "always"
    return False


def _is_of_localtime(rule: AuditRule) -> bool:
    if rule.path is None or not rule.is_tree:
        return rule.path == LOCALTIME
    return f"{LOCALTIME}/".startswith(f"{rule.path.rstrip('/')}/")
