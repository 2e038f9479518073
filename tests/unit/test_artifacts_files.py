"""Where files are written: what is not a regular file stays what it is, and nothing is left half-written."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from vqmem.files import atomic_file, atomic_write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("links", [1, 3])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, links):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "page.html").write_text("old")
    for number in range(links):
        target = "real/page.html" if number == 0 else f"link{number - 1}"
        (tmp_path / f"link{number}").symlink_to(target)
    link = tmp_path / f"link{links - 1}"
    atomic_write(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "page.html").read_text() == "new"
    assert not (tmp_path / "real" / "page.html").is_symlink()
    assert names(tmp_path / "real") == ["page.html"]


def test_a_link_to_what_is_not_there_yet_makes_it(tmp_path):
    (tmp_path / "link").symlink_to("deep/page.html")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "deep" / "page.html").read_text() == "new"


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"\Acannot write '.*/a': Too many levels of symbolic links\Z"):
        atomic_write(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink()


def test_a_pipe_is_written_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    for path in (pipe, tmp_path / "link"):
        read: list[bytes] = []
        reader = threading.Thread(target=lambda into=read: into.append(pipe.read_bytes()))
        reader.start()
        with atomic_file(path) as file:
            file.write(b"?old")
            file.seek(0)  # as the headers of sound files need it
            file.write(b"new ")
        reader.join(10)
        assert read == [b"new "]
        assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["link", "pipe"]


def test_a_pipe_gets_nothing_of_what_fails(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    keep = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with contextlib.suppress(KeyboardInterrupt), atomic_file(pipe) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.read(keep, 10) == b""
    os.close(keep)


def test_a_device_stays(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.open("wb").close()
    except OSError:
        pytest.skip("only root may make devices, and not everywhere")
    atomic_write(device, "new")
    assert stat.S_ISCHR(device.stat().st_mode)
    atomic_write(Path("/dev/null"), "new")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match=r"\Acannot write '.*/socket': No such device or address\Z"):
            atomic_write(tmp_path / "socket", "new")
    assert names(tmp_path) == ["socket"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_file_is_written_where_it_stands(tmp_path, name):
    """Opened by name it would be emptied; replaced, it would not have what comes after."""
    script = f"from vqmem.artifacts import *; print('b'); atomic_write(Path({name!r}), 'c\\n'); print('d')"
    log = tmp_path / "log"
    log.write_text("a\n")
    with log.open("a") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True, timeout=60)
    assert log.read_text() == "a\nb\nc\nd\n"


@pytest.mark.parametrize("mode", [0o640, 0o755, 0o600])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "page.html"
    path.write_text("old")
    path.chmod(mode)
    before = path.stat()
    os.link(path, tmp_path / "hard")
    atomic_write(path, "new")
    assert path.read_text() == "new"
    assert (path.stat().st_mode, path.stat().st_uid) == (before.st_mode, before.st_uid)
    assert path.stat().st_ino != before.st_ino
    assert (tmp_path / "hard").read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    os.chown(path, 1234, 5678)
    atomic_write(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_permissions_of_files_and_folders_count(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    tmp_path.chmod(0o555)
    atomic_write(path, "new")
    assert path.read_text() == "new"
    tmp_path.chmod(0o755)
    path.chmod(0o444)
    with pytest.raises(OSError, match=r"\Acannot write '.*page.html': Permission denied\Z"):
        atomic_write(path, "newer")
    assert path.read_text() == "new"


def test_the_longest_name_that_a_file_may_have(tmp_path):
    atomic_write(tmp_path / ("n" * 255), "new")
    assert names(tmp_path) == ["n" * 255]


def test_a_folder_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "link"):
        with pytest.raises(OSError, match="it is a folder; give the name of a file"), atomic_file(tmp_path / name):
            pytest.fail("the work should not begin")
    assert names(tmp_path) == ["folder", "link"]
