"""The command line: one file per command group, imported when it is called."""

import codecs
import contextlib
import gc
import importlib
import io
import sys
import traceback

import click

from ntpaudit import __version__
from ntpaudit.errors import BusyError, ConfigError

EXIT_UNKNOWN = 3
EXIT_USAGE = 64
EXIT_BUSY = 75
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130

COMMANDS = {
    "check": "Audit this host's clock once.",
    "agent": "Audit on a schedule: store, deliver, report findings.",
    "status": "Show the agent's last result and its age.",
    "explain": "Explain a finding with the numbers of this host.",
    "history": "Show the clock over time: a table, a plot, CSV or JSON.",
    "fleet": "Show the clocks of all hosts, the worst first.",
    "evidence": "Report the time within tolerance; verify that a history was not changed.",
    "journal": "Find steps of the clock in systemd's journal.",
    "config": "Write, check or show the configuration.",
    "demo": "Simulate a fleet from end to end; no network needed.",
}
"""Every command and its short help, so that listing them imports none. `cli/NAME.py` has the command `NAME`."""

EPILOG = """\b
Examples:
  ntpaudit check                          query pool.ntp.org, as a first test
  ntpaudit check ntp1.example.net ntp2.example.net ntp3.example.net ntp4.example.net
  ntpaudit check --from-host --format json
  ntpaudit demo --once                    show an example audit, without a network

\b
Exit status: 0 ok, 1 warning, 2 critical, 3 unknown (not measured), 64 usage, 75 another agent
uses the same state, 78 configuration, 130 interrupted.
Shell completion: eval "$(_NTPAUDIT_COMPLETE=bash_source ntpaudit)"   (or zsh_source, fish_source)
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that `check` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ntpaudit.cli.{cmd_name}")
        if not gc.isenabled():  # `__main__` disabled it for the imports
            gc.freeze()  # modules stay until the process ends: no collection needs to examine them
            gc.enable()
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    commands=[click.Command(name) for name in COMMANDS],  # for the names only: click suggests the nearest
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, message="ntpaudit %(version)s")
def cli() -> None:
    """Measure how wrong this host's clock can be, how certain that is, and how it affects the logs.

    ntpaudit never sets a clock. It queries NTP servers itself, independently of the time daemon, and reports an
    interval. The interval contains the true offset if at most 1 of 4 queried servers is wrong, or 2 of 7.
    "behind" means that the clock is slow, "ahead" that it is fast.
    """


def _with_hint(error: click.UsageError) -> click.UsageError:
    """Add how to choose a format where an unknown option has the name of one."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        name = error.option_name.lstrip("-")
        for param in error.ctx.command.params:
            if isinstance(param.type, click.Choice) and name in param.type.choices:
                return click.UsageError(f"{error.format_message()} Write {param.opts[0]} {name}.", error.ctx)
    return error


def _replace_character(error: UnicodeError) -> tuple[str, int]:
    """Write `us` for `µs` where the stream has no such character, and an escape for any other."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] == "µ":
        return "u", error.start + 1
    return codecs.backslashreplace_errors(error)  # type: ignore[return-value]  # always text when encoding


def main() -> None:
    """Run the command line and exit; the only place that turns errors into exit statuses."""
    codecs.register_error("replace-character", _replace_character)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace-character")
    try:
        status = cli.main(prog_name="ntpaudit", standalone_mode=False)
    except click.UsageError as error:
        _with_hint(error).show()
        status = EXIT_USAGE
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        status = EXIT_INTERRUPTED
    except (ConfigError, BusyError) as error:
        click.echo(f"ntpaudit: {error}", err=True)
        status = EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_BUSY
    except OSError as error:  # standard output is closed or cannot be written
        from ntpaudit.cli.output import drop_output

        drop_output()
        with contextlib.suppress(OSError):
            click.echo(f"ntpaudit: {error.strerror or error}", err=True)
        status = EXIT_UNKNOWN
    except Exception:  # a bug: a full traceback, and not exit status 1, which monitors read as a warning
        traceback.print_exc()
        status = EXIT_UNKNOWN
    sys.exit(status if isinstance(status, int) else 0)
