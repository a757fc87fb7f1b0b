"""A file is replaced whole, or stays as it was."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ntpaudit import files as files_module
from ntpaudit.config.schema import OUTPUTS
from ntpaudit.errors import OutputError
from ntpaudit.files import find, open_regular, unwritable, write_atomically, write_output
from ntpaudit.outputs import open_output
from tests.records import record, servers


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the new text cannot be written, the old one stays, and nothing else lies beside it."""
    path = tmp_path / "file"
    write_atomically(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(str(path), "new \ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_reader_keeps_the_file_that_it_has_open(tmp_path: Path) -> None:
    """A reader of the old file reads it to its end."""
    path = tmp_path / "file"
    write_atomically(str(path), "old")
    with path.open() as reader:
        write_atomically(str(path), "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_the_error_has_path_reason_and_fix(number: int) -> None:
    """The error has the path, the system's reason, and the fix where it is known."""
    said = unwritable("/var/file", OSError(number, os.strerror(number)))
    assert said.startswith(f"cannot write /var/file: {os.strerror(number)}")
    assert ("; " in said) == (number != errno.EIO)


# --- whose links are followed -------------------------------------------------------------------------------------


ANOTHER = 12_345
"""The uid of another user."""


def _append(path: str) -> None:
    handle = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, b"new")
    os.close(handle)


WRITERS: dict[str, Callable[[str], None]] = {
    "atomic": lambda path: write_atomically(path, "new"),
    "output": lambda path: write_output(path, "new"),
    "append": _append,
    "read": lambda path: os.close(open_regular(path, os.O_RDONLY)),
    "demo": lambda path: _walk(path),
}


def _walk(path: str) -> None:
    with find(path):
        pass


@pytest.mark.needs("root")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("where", ["file", "folder", "absent"])
def test_a_link_of_another_user_is_never_followed(where: str, writer: str, tmp_path: Path) -> None:
    """Neither the file's own link nor one on the way to it: what it leads to stays as it is."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "history").write_text("old")
    link = tmp_path / "link"
    link.symlink_to(precious if where == "folder" else precious / ("none" if where == "absent" else "history"))
    os.lchown(link, ANOTHER, ANOTHER)
    path = link / "history" if where == "folder" else link
    with pytest.raises(OSError, match="belongs to another user") as refused:
        WRITERS[writer](str(path))
    assert "let root own the link" in unwritable(str(path), refused.value)
    assert (precious / "history").read_text() == "old"
    assert [entry.name for entry in precious.iterdir()] == ["history"]
    assert link.is_symlink()


@pytest.mark.parametrize("writer", ["atomic", "output", "append"])
def test_a_link_of_our_own_is_followed(writer: str, tmp_path: Path) -> None:
    """Over folders and files, relative or absolute, back and forth; the links stay links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "real" / "link").symlink_to(f"../folder/./..//{tmp_path.name}/../{tmp_path.name}/file")
    (tmp_path / "real" / tmp_path.name).symlink_to(tmp_path)
    (tmp_path / tmp_path.name).symlink_to(".")
    WRITERS[writer](str(tmp_path / "folder" / "link"))
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "real" / "link").is_symlink()
    assert (tmp_path / "folder").is_symlink()


@pytest.mark.parametrize("writer", ["append", "read"])
@pytest.mark.parametrize(("mode", "owner"), [(0o1777, 0), (0o2770, 0), (0o700, ANOTHER)])
@pytest.mark.needs("root")
def test_a_second_name_is_refused_where_others_may_write(mode: int, owner: int, writer: str, tmp_path: Path) -> None:
    """Such a hard link may lead to a file that only we may change; one name, or a folder of our own, is no danger."""
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    precious.write_text("old")
    folder.mkdir()
    (folder / "records").hardlink_to(precious)
    folder.chmod(mode)
    os.chown(folder, owner, owner)
    with pytest.raises(OSError, match="has a second name") as refused:
        WRITERS[writer](str(folder / "records"))
    assert unwritable("records", refused.value).endswith("in a folder of the user that runs ntpaudit")
    assert precious.read_text() == "old"
    write_atomically(str(folder / "records"), "new")  # replaces the name, and not what it leads to
    assert precious.read_text() == "old"
    WRITERS[writer](str(folder / "records"))


def test_a_second_name_in_a_folder_of_our_own_is_followed(tmp_path: Path) -> None:
    """A backup may make one: no other program could."""
    tmp_path.chmod(0o755)
    (tmp_path / "records").write_text("old")
    (tmp_path / "backup").hardlink_to(tmp_path / "records")
    _append(str(tmp_path / "records"))
    assert (tmp_path / "backup").read_text() == "oldnew"


def test_a_relative_path_begins_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any program's does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    write_atomically("file", "one")
    write_atomically("./in/../in/file", "two")
    assert ((tmp_path / "file").read_text(), (tmp_path / "in" / "file").read_text()) == ("one", "two")
    with find("in/file") as place:
        assert place.path == str(tmp_path / "in" / "file")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """As the kernel ends them."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        write_atomically(str(tmp_path / "a"), "new")


@pytest.mark.parametrize("path", ["", "/", ".", "folder/", "folder/.", "x\0y", "file/x"])
def test_what_names_no_file_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system, and nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError):  # noqa: PT011 - each has an error of its own
        write_atomically(path, "new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("target", ["/", ".", "..", "folder/", "folder/.", "folder/.."])
def test_a_link_to_a_folder_is_refused(target: str, writer: str, tmp_path: Path) -> None:
    """However the link names the folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(IsADirectoryError) as refused:
        WRITERS[writer](str(tmp_path / "link"))
    assert unwritable("link", refused.value).endswith("name a file, not a folder")


# --- what is no file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
@pytest.mark.parametrize("writer", ["atomic", "append", "read"])
def test_what_is_no_file_is_refused_at_once(kind: str, writer: str, tmp_path: Path) -> None:
    """A pipe without a reader blocks nothing, and nothing is replaced or opened."""
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path = Path("/dev/null")
    with pytest.raises(OSError, match="not a regular file"):
        WRITERS[writer](str(path))
    assert not path.is_file()


def test_agents_outputs_refuse_a_pipe(tmp_path: Path) -> None:
    """Each output that writes a file goes on with a message: the agent's loop never waits for a reader."""
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    outputs = {name: open_output(name, one(path=pipe)) for name, one in OUTPUTS.items() if "path" in one._fields}
    assert {"openmetrics", "jsonl"} <= outputs.keys()
    for output in outputs.values():
        with pytest.raises(OutputError, match="not a regular file; name a regular file"):
            output.emit(record(*servers(0.0019)), [])
        output.close()
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_on_the_command_line_waits_a_moment_for_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell may start the reader after us; without one there is an error and not a hang."""
    monkeypatch.setattr(files_module, "READER_WITHIN_S", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - asserted below
        write_output(str(pipe), "new")
    assert refused.value.errno == errno.ENXIO
    monkeypatch.setattr(files_module, "READER_WITHIN_S", 30.0)
    read: list[str] = []
    reader = threading.Timer(0.1, lambda: read.append(pipe.read_text()))
    reader.start()
    write_output(str(pipe), "new" * 100_000)
    reader.join()
    assert read == ["new" * 100_000]


@pytest.mark.needs("root")
def test_a_pipe_of_another_user_is_not_written_to(tmp_path: Path) -> None:
    """It would let its owner decide when a command ends."""
    os.mkfifo(tmp_path / "pipe")
    os.chown(tmp_path / "pipe", ANOTHER, ANOTHER)
    with pytest.raises(OSError, match="belongs to another user") as refused:
        write_output(str(tmp_path / "pipe"), "new")
    assert unwritable("pipe", refused.value).endswith("; name one of your own")


def test_what_a_shell_hands_over_is_written_to(tmp_path: Path) -> None:
    """A descriptor stands for what it is open on, also where that has no name."""
    reader, writer = os.pipe()
    write_output(f"/dev/fd/{writer}", "new")
    os.close(writer)
    assert os.read(reader, 9) == b"new"
    os.close(reader)


@pytest.mark.needs("root")
def test_the_mode_of_another_user_s_file_is_not_taken_over(tmp_path: Path) -> None:
    """Or that user could write what is root's from then on; our own file's mode stays."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    write_atomically(str(path), "new")
    assert path.stat().st_mode & 0o777 == 0o666
    os.chown(path, ANOTHER, ANOTHER)
    write_atomically(str(path), "newer")
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o644, os.geteuid())


def test_the_library_s_own_way_is_not_used() -> None:
    """No module writes, or resolves, a path by other means."""
    package = Path(files_module.__file__).parent
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for word in ("os.path.realpath(", "write_text(", ', "w"', "NamedTemporaryFile", "O_WRONLY", "O_RDWR")
        if word in path.read_text()
    }
    assert users == {"files.py", "outputs/jsonl.py", "cli/fleet_writing.py", "cli/output.py", "store/unsaved.py"}
