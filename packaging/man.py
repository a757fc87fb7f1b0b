"""Write the manual pages from the help of each command: `python packaging/man.py FOLDER [DATE]`."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from ntpaudit import __version__
from ntpaudit.cli import cli


def pages(date: str) -> Iterator[tuple[str, str]]:
    """Yield the file name and the text of each page: one for `ntpaudit`, one for each command below it."""
    for context in _contexts(click.Context(cli, info_name="ntpaudit", **cli.context_settings)):
        yield f"{_name(context)}.1", _page(context, date)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    for child in _children(context):
        yield from _contexts(child)


def _children(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield click.Context(command, info_name=name, parent=context)


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _page(context: click.Context, date: str) -> str:
    command = context.command
    first, _, rest = (command.help or "").partition("\n")
    summary = first.rstrip(".")
    lines = [
        f'.TH "{_name(context).upper()}" "1" "{date}" "ntpaudit {__version__}" "ntpaudit"',
        ".SH NAME",
        f"{_text(_name(context))} \\- {_text(summary[:1].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        f"\\fB{_text(context.command_path)}\\fR {_text(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        *_paragraphs(f"{first}\n{rest}"),
    ]
    lines.append(".SH OPTIONS")
    for one in command.get_params(context):
        if isinstance(one, click.Option) and (record := one.get_help_record(context)):
            lines += [".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1])]
    children = list(_children(context))
    if children:
        lines.append(".SH COMMANDS")
        for child in children:
            lines += [".TP", f"\\fB{_text(_name(child))}\\fR(1)", _text(child.command.get_short_help_str(limit=120))]
    if command.epilog:
        lines += _epilog(command.epilog)
    related = [context.parent] if context.parent else children
    lines += [".SH SEE ALSO", ",\n".join(f"\\fB{_text(_name(one))}\\fR(1)" for one in related if one)]
    return "\n".join(lines) + "\n"


def _epilog(epilog: str) -> Iterator[str]:
    """Give the examples and the exit statuses sections of their own."""
    for block in epilog.strip().split("\n\n"):
        body = block.removeprefix("\b\n")
        title, _, rest = body.partition(":")
        if title in ("Examples", "Exit status"):
            yield f".SH {title.upper()}"
            body = rest.strip("\n")
        else:
            yield ".PP"
        yield from _as_written(body) if block.startswith("\b") else [_text(body)]


def _paragraphs(text: str) -> Iterator[str]:
    for number, block in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        yield from (
            _as_written(block.removeprefix("\b\n")) if block.startswith("\b") else [_text(" ".join(block.split()))]
        )


def _as_written(text: str) -> list[str]:
    """Lines that stay as they are, such as examples."""
    return [".nf", *(_text(line.removeprefix("  ")) for line in text.splitlines()), ".fi"]


def _text(text: str) -> str:
    """Escape what troff would take for an instruction."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def write(folder: Path, date: str) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(date):
        (folder / name).write_text(text)


if __name__ == "__main__":
    today = datetime.now(UTC).date().isoformat()
    write(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else today)
