"""What a fix names, on a host with the agent's unit and on one without."""

from pathlib import Path

import pytest

from ntpaudit.probes import service


@pytest.mark.parametrize("folder", ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"])
def test_a_fix_names_systemd_where_it_runs_and_has_the_unit(folder: str, tmp_path: Path) -> None:
    """Only there: neither a unit without systemd, as in a container, nor systemd without the unit will do."""
    root = str(tmp_path)
    texts = (service.start, service.restart, service.examine)
    without = [text(root) for text in texts]
    assert without[0] == "ntpaudit agent"
    assert not any("systemctl" in text or "journalctl" in text for text in without)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "ntpaudit.service").touch()
    assert [text(root) for text in texts] == without
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert all("systemctl" in text(root) for text in texts)
    (tmp_path / folder / "ntpaudit.service").unlink()
    assert [text(root) for text in texts] == without
