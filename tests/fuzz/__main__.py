"""Give each reader octets that Atheris makes from real replies: `python -m tests.fuzz [--seconds 20] [TARGET]...`.

The exit status is 1 after a fault: an error that no caller expects, a claim that cannot be one, more than 2 s for one
input, or more than 1 GiB of memory. The input is kept; `python -m tests.fuzz --input FILE TARGET` repeats it.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS
from tests.world.packages import REPOSITORY, cache_folder

LIMITS = ("-timeout=2", "-rss_limit_mb=1024", "-max_len=8192", "-print_final_stats=1", "-verbosity=0")

RUN = """
import sys
import atheris
with atheris.instrument_imports(include=["ntpaudit", "json"]):
    from tests.fuzz.targets import TARGETS
target = TARGETS[sys.argv.pop(1)]
atheris.Setup(sys.argv, target.check)
atheris.Fuzz()
"""


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target for some seconds; return whether it found no fault. Its inputs are kept for the next run."""
    folder = cache_folder() / "fuzz" / name
    seeds, faults = folder / "seeds", folder / "faults"
    for place in (seeds, faults, folder / "inputs"):
        place.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (seeds / str(number)).write_bytes(seed)
    command = [sys.executable, "-c", RUN, name, *LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={faults}/"]
    command += [str(folder / "inputs"), str(seeds)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as running:
        said = running.communicate()[0]
    count = re.search(r"^stat::number_of_executed_units: +(\d+)$", said, re.MULTILINE)
    print(f"{name}: {count[1] if count else 'no'} inputs in {seconds} s", flush=True)
    if running.returncode:
        lines = [line for line in said.splitlines() if not line.startswith(("INFO:", "WARNING:"))]
        print(
            "\n".join(lines[-40:]), f"{name}: a fault, see above; its input is in {faults}", sep="\n", file=sys.stderr
        )
    return running.returncode == 0


def main() -> int:
    """Fuzz all targets, or those that are named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=20, help="for each target")
    options.add_argument("--input", type=Path, help="a file that one target reads instead")
    options.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    chosen = options.parse_args()
    names = chosen.targets or [*TARGETS]
    if unknown := set(names) - set(TARGETS):
        options.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if chosen.input is not None:
        print(TARGETS[names[0]].check(chosen.input.read_bytes()))
        return 0
    sound = [fuzz(name, chosen.seconds) for name in names]
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
