"""What a machine lacks is found by trying, and a test that needs it is skipped with the reason, or fails in CI."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.abilities import REQUIRED, STEPPING, UNTESTED, WITHOUT, is_required, names
from tests.waiting import WITHIN_S, is_running, until
from tests.world import packages
from tests.world.packages import REPOSITORY

pytestmark = pytest.mark.untraced  # what runs here is the rules of the tests

SUITE = """
import pytest
from tests.abilities import need

@pytest.fixture
def stepped():
    need("step-clock")

@pytest.mark.needs("step-clock")
def test_marked(): pass

def test_by_its_fixture(stepped): pass

def test_by_its_helper(): need("step-clock")

@pytest.mark.needs("localhost")
def test_able(): pass
"""
"""Tests that need to step the clock, which is lacking where it is not permitted, and one that needs nothing rare."""


IN_WORKERS = ("-n", "2", "--dist", "loadfile")


def pytest_of(folder: Path, *options: str, **environment: str) -> dict[str, Any]:
    """Return the arguments of `subprocess` to run the tests in a folder with the rules of this suite."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NTPAUDIT_", "PYTEST_"))}
    words = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-q", "-rs", *options, str(folder)]
    return {
        "args": [sys.executable, "-m", "pytest", *words],
        "cwd": folder,
        "env": kept | {"PYTHONPATH": str(REPOSITORY)} | environment,
        "text": True,
    }


def run(folder: Path, suite: str, *options: str, **environment: str) -> tuple[int, str]:
    """Run a suite with the rules of this one; return the exit status and the output."""
    (folder / "test_it.py").write_text(suite)
    done = subprocess.run(**pytest_of(folder, *options, **environment), capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


TRACED = """
import os, pytest
from coverage import Coverage
from hypothesis import given, settings, strategies as st
from tests.conftest import TRACED_EXAMPLES
from tests.tracing import untraced

traced = []

@given(st.integers())
@settings(max_examples=3 * TRACED_EXAMPLES, database=None)
def test_a_property(number): traced.append(Coverage.current() is not None)

def test_the_first_examples_were_traced(): assert traced == [True] * TRACED_EXAMPLES + [False] * 2 * TRACED_EXAMPLES

@pytest.mark.untraced
def test_untraced(): assert Coverage.current() is None and "COVERAGE_PROCESS_CONFIG" not in os.environ

def test_traced(): assert Coverage.current() is not None and "COVERAGE_PROCESS_CONFIG" in os.environ

def test_a_part():
    with untraced():
        assert Coverage.current() is None
    assert Coverage.current() is not None
"""
"""Tests that check whether coverage is measured."""


def test_coverage_is_measured_where_it_may_find_something(tmp_path: Path) -> None:
    """All of a test is traced but the later examples of a property, and what asks not to be, with its processes."""
    (tmp_path / "test_it.py").write_text(TRACED)
    run_of = pytest_of(tmp_path, COVERAGE_FILE=str(tmp_path / "data"))
    run_of["args"][1:1] = ["-m", "coverage", "run", f"--rcfile={REPOSITORY / 'pyproject.toml'}"]
    run_of["env"].pop("COVERAGE_PROCESS_CONFIG", None)
    done = subprocess.run(**run_of, capture_output=True, check=False)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), IN_WORKERS])
def test_a_lacking_ability_skips_and_is_summed_up(options: tuple[str, ...], tmp_path: Path) -> None:
    """By marker, fixture or helper: the reason is shown, and the summary counts the tests that it cost."""
    status, out = run(tmp_path, SUITE, *options)
    assert status == 0
    assert "1 passed, 3 skipped" in out
    reason = f"the tests may step this machine's clock by 20 ms only with {STEPPING}=1"
    assert f"lacks step-clock: {reason}" in out
    assert f"step-clock    3 tests  {reason}" in out
    assert "3 tests skipped: this machine lacks what they need" in out


def test_the_runs_of_a_suite_are_summed_up_together(tmp_path: Path) -> None:
    """What several runs of pytest did not test is listed once, and the next suite starts with an empty list."""
    file = tmp_path / "untested"
    for number, suite in enumerate((SUITE, SUITE.replace("test_marked", "test_other"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert run(folder, suite, **{UNTESTED: str(file)})[0] == 0
    sum_up = [sys.executable, "-m", "tests.abilities"]
    for expected in ("not tested here:\nstep-clock    4 tests  the tests may", "everything was tested\n"):
        summary = subprocess.check_output(sum_up, cwd=REPOSITORY, env=os.environ | {UNTESTED: str(file)}, text=True)
        assert summary.startswith(expected)


COUNTED = """
import pytest
from tests import abilities

def trial():
    with open(TRIALS, "a") as file:
        print("tried", file=file)
    raise OSError("it is tried for all")

abilities._CHECKS["counted"] = trial

@pytest.mark.needs("counted")
def test_one(): pass

@pytest.mark.needs("counted")
def test_another(): pass
"""
"""Tests that need an ability of which each trial is written to the file TRIALS."""


def test_all_workers_of_a_run_try_an_ability_once(tmp_path: Path) -> None:
    """The worker that comes first tries it for the others, and the tests that it cost are added up."""
    suite, untested = f"TRIALS = {str(tmp_path / 'trials')!r}\n{COUNTED}", tmp_path / "untested"
    for number in range(3):
        (tmp_path / f"test_{number}.py").write_text(suite)
    status, out = run(tmp_path, suite, *IN_WORKERS, **{UNTESTED: str(untested)})
    assert status == 0
    assert "8 skipped" in out
    assert "counted    8 tests  it is tried for all" in out
    assert (tmp_path / "trials").read_text() == "tried\n"
    ((name, reason, tests),) = map(json.loads, untested.read_text().splitlines())
    assert (name, reason, len(tests)) == ("counted", "it is tried for all", 8)


STARTED = """
import subprocess
from pathlib import Path

def test_it(tmp_path):
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            Path(__file__).with_suffix(".pid").write_text(str(process.pid))
            process.wait()
        finally:
            process.kill()
"""
"""A test that waits for a program of its own, and ends it whatever happens."""


def test_an_interrupt_ends_the_tests_of_all_workers(tmp_path: Path) -> None:
    """Ctrl-C reaches each process of the group: tests are interrupted, and what they started is ended by them."""
    for name in ("test_one", "test_other"):
        (tmp_path / f"{name}.py").write_text(STARTED)
    pids = [tmp_path / f"{name}.pid" for name in ("test_one", "test_other")]
    with subprocess.Popen(
        **pytest_of(tmp_path, *IN_WORKERS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as suite:
        until(lambda: all(path.exists() and path.read_text() for path in pids), "both tests run")
        os.killpg(suite.pid, signal.SIGINT)
        out, _ = suite.communicate(timeout=WITHIN_S)
    assert suite.returncode == pytest.ExitCode.INTERRUPTED, out
    until(lambda: not any(is_running(int(path.read_text())) for path in pids), "their programs end")


def test_an_ability_can_be_excluded_from_a_run(tmp_path: Path) -> None:
    """As where programs that are here would not run there."""
    suite = SUITE + "\n@pytest.mark.needs('userns')\ndef test_namespace(): pass\n"
    _, out = run(tmp_path, suite, **{WITHOUT: "userns,node"})
    assert f"lacks userns: {WITHOUT} leaves it out of this run" in out


@pytest.mark.parametrize("required", ["all", "boot,step-clock"])
def test_a_required_ability_fails_where_it_is_lacking(required: str, tmp_path: Path) -> None:
    """As in CI, where nothing is skipped."""
    status, out = run(tmp_path, SUITE, **{REQUIRED: required})
    assert status == 1
    assert "1 passed" in out
    assert "skipped" not in out.splitlines()[-1]
    assert out.count(f"{REQUIRED} does not allow that") >= 3


def test_any_skip_fails_where_all_is_required(tmp_path: Path) -> None:
    """A test that skips itself for a reason of its own as well."""
    suite = "import pytest\ndef test_lazy(): pytest.skip('not today')\n"
    assert run(tmp_path, suite)[0] == 0
    assert run(tmp_path, suite, **{REQUIRED: "all"})[0] == 1


def test_an_unknown_ability_is_an_error(tmp_path: Path) -> None:
    """A name that is misspelt neither runs nor skips."""
    status, out = run(tmp_path, "import pytest\n@pytest.mark.needs('roots')\ndef test_it(): pass\n")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "needs roots, which is no ability" in out


def test_no_test_decides_by_itself_what_it_lacks() -> None:
    """Every test states its needs by the marker or through a helper, and none skips itself."""
    words = ("pytest.skip(", "mark.skipif", "mark.skip(", "importorskip")
    files = [path for path in REPOSITORY.glob("tests/**/test_*.py") if path != Path(__file__)]
    assert len(files) > 50
    assert not [path.name for path in files if any(word in path.read_text() for word in words)]


def test_no_test_asserts_a_number_of_seconds() -> None:
    """A busy machine is slow, not wrong: a cost is counted or compared (tests/work.py), a wait is proven by its order.

    What a test measures may be compared with a multiple of something that is named, such as the wait it excludes.
    """
    cost = r"process_time|perf_counter|thread_time"
    wait = r"assert .*(monotonic\(\) - \w+|took\w*|elapsed\w*)[^<]*<=? *[0-9.]+(?![0-9.]* \*)"
    found = [
        f"{path.name}: {line.strip()}"
        for path in REPOSITORY.glob("tests/**/test_*.py")
        if path != Path(__file__)
        for line in path.read_text().splitlines()
        if re.search(f"{cost}|{wait}", line)
    ]
    assert found == []


def lacking(asked: Sequence[str], *inside: str, before: str = "pass") -> dict[str, str]:
    """Return which of these abilities are lacking in a process that is confined somehow, and why."""
    ask = "import sys; from tests.abilities import lacking; from tests.world.another_user import become_another_user; "
    ask += f"{before}; [print(f'{{n}}={{lacking(n)}}') for n in sys.argv[1:]]"
    done = subprocess.run(
        [*inside, sys.executable, "-c", ask, *asked], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert len(found) == len(asked)
    return {name: reason for name, reason in found.items() if reason != "None"}


@pytest.mark.needs("disk", "mount", "netns", "another-user")
def test_root_of_a_container_lacks_what_its_capabilities_do_not_allow() -> None:
    """Root with the capabilities that Docker leaves is not taken for root of a whole machine."""
    docker = "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod"
    kept = ",".join(f"+{name}" for name in (*docker.split(","), "audit_write", "setfcap"))
    confined = ["setpriv", f"--bounding-set=-all,{kept}", "--"]
    asked = ("root", "another-user", "mount", "disk", "netns")
    assert lacking(asked) == {}
    assert set(lacking((*asked, "boot"), *confined)) == {"mount", "disk", "netns", "boot"}


@pytest.mark.needs("seccomp", "mount", "netns", "userns")
def test_a_filter_that_refuses_namespaces_is_noticed() -> None:
    """Where unshare is refused, as Docker's filter does, nothing that needs a namespace is there."""
    confined = [sys.executable, "-m", "tests.world.sandbox", "--unshare"]
    found = lacking(("mount", "netns", "userns", "adjtimex"), *confined)
    assert found.keys() == {"mount", "netns", "userns"}
    assert all("Operation not permitted" in reason for reason in found.values())


@pytest.mark.needs("another-user")
def test_an_ordinary_user_lacks_what_root_has() -> None:
    """Whatever else a user may do here, these take root."""
    asked = ("root", "another-user", "disk", "boot", "devices")
    assert set(lacking(asked, before="become_another_user()")) == set(asked)


def test_required_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """All, or those that are named."""
    monkeypatch.delenv(REQUIRED, raising=False)
    assert not is_required("boot")
    monkeypatch.setenv(REQUIRED, "boot, node")
    assert [name for name in names() if is_required(name)] == ["boot", "node"]
    monkeypatch.setenv(REQUIRED, "all")
    assert all(map(is_required, names()))


def test_the_download_goes_on_where_a_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each package that cannot be had is named with its reason, and the others are fetched."""
    monkeypatch.setenv("NTPAUDIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # without apt-get
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "ntpsec.unpacked").touch()
    (line,) = packages.fetch_all(["chrony", "ntpsec"])
    assert line.startswith("chrony is not available, tests that need it will be skipped: apt-get not found")
