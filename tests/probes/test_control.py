"""The daemons' own control programs, which only root may use."""

import os
from pathlib import Path

import pytest

from ntpaudit.core.observation import Unavailable
from ntpaudit.probes.daemons import control
from tests.waiting import WITHIN_S


def test_only_root_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sockets are root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert control.report_of("ntpctl") == Unavailable(
        "only root can read its control socket", "run `ntpaudit check` as root"
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "is missing"),
        ("echo 'connect: No such file or directory' >&2; exit 1", "fails: connect: No such file"),
        ("exit 3", "exit status 3"),
        ("exec sleep 60", "prints nothing within"),
        ("exec cat; exec /nonexistent", None),
    ],
)
def test_why_a_program_gives_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, reason: str | None
) -> None:
    """It may be missing, fail, or hang; it gets no input."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(control, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(control, "CLAIM_WITHIN_S", 0.5 if "sleep" in str(body) else WITHIN_S)
    if body is not None:
        (tmp_path / "ntpctl").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "ntpctl").chmod(0o755)
    found = control.report_of("ntpctl", "-s", "all")
    if reason is None:
        assert found == ""
    else:
        assert isinstance(found, Unavailable)
        assert reason in found.reason


def test_a_program_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the system's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(control, "_FOLDERS", (str(tmp_path),))
    (tmp_path / "pmc").write_text("no program")
    (tmp_path / "pmc").chmod(0o755)
    found = control.report_of("pmc")
    assert isinstance(found, Unavailable)
    assert "cannot be run" in found.reason
