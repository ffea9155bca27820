"""What becomes of a log between two looks, or while the agent is down: every line once, and in order."""

from __future__ import annotations

import gzip
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import zstandard

from poisonwatch.sources.file import FollowedFile
from poisonwatch.sources.folders import Folders
from tests.sources.test_file import CLOCK, LONGEST, append, drain, follow, numbered, polled, resumed
from tests.sources.test_files import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def stamp(path: Path, second: int) -> None:
    """Say when a file was last written."""
    os.utime(path, (1e9 + second, 1e9 + second))


def test_symlink_swap(tmp_path: Path) -> None:
    """A link is put to the next file: the rest of the one before comes first, then the next, though it was there before."""
    append(tmp_path / "log-1", numbered(0, 9))
    (tmp_path / "current").symlink_to("log-1")
    source = follow(tmp_path / "current")
    assert drain(source) == numbered(0, 9)
    append(tmp_path / "log-1", numbered(9, 12))
    append(tmp_path / "log-2", numbered(12, 15))
    (tmp_path / "next").symlink_to("log-2")
    (tmp_path / "next").replace(tmp_path / "current")
    assert drain(source) == numbered(9, 15)


def test_symlink_swaps_while_down(tmp_path: Path) -> None:
    """Of several files that a link pointed to meanwhile none is left out."""
    append(tmp_path / "log-1", numbered(0, 9))
    (tmp_path / "current").symlink_to("log-1")
    source = follow(tmp_path / "current")
    assert drain(source) == numbered(0, 9)
    position = source.position()
    source.close()
    append(tmp_path / "log-1", numbered(9, 12))
    stamp(tmp_path / "log-1", 1)
    append(tmp_path / "log-2", numbered(12, 15))
    stamp(tmp_path / "log-2", 2)
    append(tmp_path / "log-3", numbered(15, 18))
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("log-3")
    assert drain(resumed(tmp_path / "current", position)) == numbered(9, 18)


@pytest.mark.parametrize("down", [False, True])
def test_inode_reused(tmp_path: Path, *, down: bool) -> None:
    """A new file that got the inode of one that was read is read from its start."""
    path = tmp_path / "log"
    append(path, numbered(0, 90))
    source = follow(path)
    assert drain(source) == numbered(0, 90)
    path.rename(tmp_path / "log.1")
    append(path, numbered(90, 99))
    assert drain(source) == numbered(90, 99)
    position = source.position()
    inode = (tmp_path / "log.1").stat().st_ino
    if down:
        source.close()
    # The same inode with other contents, as it is after unlink and create: that cannot be had on every file system.
    (tmp_path / "log.1").write_bytes(numbered(99, 300))
    (tmp_path / "log.1").rename(tmp_path / "new")
    append(path, numbered(300, 302))
    path.rename(tmp_path / "log.1")
    (tmp_path / "new").rename(path)
    assert path.stat().st_ino == inode
    again = resumed(path, position) if down else source
    assert drain(again) == numbered(300, 302) + numbered(99, 300)


@pytest.mark.parametrize("hole", [1 << 10, 3 << 20])
def test_hole(tmp_path: Path, hole: int) -> None:
    """After copytruncate a writer who does not append goes on at his old place: the NULs before it are no line."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert drain(source) == numbered(0, 9)
    os.truncate(path, 0)
    with path.open("r+b") as file:
        file.seek(hole)
        file.write(numbered(9, 200))
    assert drain(source) == numbered(9, 200)
    again = resumed(path, source.position())
    append(path, numbered(200, 300))
    assert drain(again) == numbered(200, 300)


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_compressed_while_down(tmp_path: Path, *, zstd: bool, several: bool) -> None:
    """A log that was rotated and compressed is read on where it was left; of what was rotated after it all is read."""
    path = tmp_path / "log"
    append(path, numbered(0, 900))
    source = follow(path)
    assert drain(source) == numbered(0, 900)
    position = source.position()
    source.close()
    append(path, numbered(900, 1800))
    files = [(4, path.read_bytes())]
    if several:
        files += [(3, numbered(1800, 1810)), (2, numbered(1810, 1820)), (1, numbered(1820, 1830))]
    path.unlink()
    for number, content in files:
        # Their times are those of the compression, the oldest first.
        packed = zstandard.compress(content) if zstd else gzip.compress(content)
        target = tmp_path / f"log.{number}.{'zst' if zstd else 'gz'}"
        target.write_bytes(packed)
        stamp(target, 9 - number)
    append(path, numbered(1830 if several else 1800, 1850))
    stamp(path, 9)
    assert drain(resumed(path, position)) == numbered(900, 1850)


@pytest.mark.parametrize("rising", [False, True])
def test_all_compressed_while_down(tmp_path: Path, *, rising: bool) -> None:
    """The times of the compressed files tell which way their numbers run, also where two have the same."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert drain(source) == numbered(0, 9)
    position = source.position()
    source.close()
    path.rename(tmp_path / "gone")
    for order in range(4):
        target = tmp_path / f"log.{order + 1 if rising else 4 - order}.gz"
        target.write_bytes(gzip.compress(numbered(10 * order, 10 * order + 10)))
        stamp(target, max(order, 1))
    append(path, numbered(40, 50))
    assert drain(resumed(path, position)) == numbered(9, 50)


def test_compressed_copy_beside_a_log_with_a_hole(tmp_path: Path) -> None:
    """A mark that begins after a hole says nothing of a compressed file that has none, though that is not unpacked yet."""
    path = tmp_path / "log"
    append(path, b"\0" * 5000 + numbered(0, 90))
    source = follow(path)
    assert drain(source) == numbered(0, 90)
    position = source.position()
    source.close()
    path.rename(tmp_path / "log.2")
    stamp(tmp_path / "log.2", 1)
    (tmp_path / "log.1.gz").write_bytes(
        gzip.compress(b"".join(os.urandom(40).hex().encode() + b"\n" for _ in range(9000)))
    )
    stamp(tmp_path / "log.1.gz", 2)
    append(path, numbered(90, 99))
    given = drain(resumed(path, position))
    assert given.count(b"\n") == 9009
    assert given.endswith(numbered(90, 99))


def test_name_of_an_open_file_that_is_another_by_now(tmp_path: Path) -> None:
    """A file is open as log.2 when it is compressed to log.3.gz; log.2.gz is another one, whose original is gone."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert drain(source) == numbered(0, 9)
    position = source.position()
    source.close()
    path.rename(tmp_path / "log.2")
    source = resumed(path, position)
    (tmp_path / "log.3.gz").write_bytes(gzip.compress((tmp_path / "log.2").read_bytes()))
    stamp(tmp_path / "log.3.gz", 1)
    (tmp_path / "log.2").unlink()
    (tmp_path / "log.2.gz").write_bytes(gzip.compress(numbered(9, 20)))
    stamp(tmp_path / "log.2.gz", 2)
    append(tmp_path / "log.1", numbered(20, 30))
    stamp(tmp_path / "log.1", 3)
    append(path, b"")
    assert drain(source) == numbered(9, 30)


def test_few_bytes_compressed(tmp_path: Path) -> None:
    """A file of one short line is known again when it was compressed."""
    path = tmp_path / "log"
    source = follow(path)
    assert drain(source) == b""
    append(path, numbered(0, 1))
    assert drain(source) == numbered(0, 1)
    path.rename(tmp_path / "log.1")
    append(path, numbered(1, 2))
    assert drain(source) == numbered(1, 2)
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(numbered(0, 1)))
    (tmp_path / "log.1").unlink()
    assert drain(source) == b""


@pytest.mark.parametrize("renamed", [False, True])
def test_only_the_first_kilobyte_is_the_same(tmp_path: Path, *, renamed: bool) -> None:
    """A file that begins like the one that was read, and goes on otherwise, is another one."""
    path = tmp_path / "log"
    head = b"#" * 2000 + b"\n"
    append(path, head + numbered(0, 300))
    source = follow(path)
    assert drain(source) == head + numbered(0, 300)
    position = source.position()
    source.close()
    if renamed:
        path.rename(tmp_path / "log.1")
    path.write_bytes(head + numbered(300, 900))
    assert drain(resumed(path, position, found=renamed)) == head + numbered(300, 900)


class Busy(Folders):
    """A folder in which somebody rotates just before it is listed."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.happening: list[Callable[[], None]] = []

    def siblings(self, path: Path, *, fresh: bool) -> list[Path] | None:
        """What there is after the next thing has happened."""
        if self.happening:
            self.happening.pop(0)()
        return super().siblings(path, fresh=fresh)


def test_rotated_in_the_middle_of_a_look(tmp_path: Path) -> None:
    """The file at the path was looked at, then it grows and is rotated, and the next one too, then the folder is listed."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    folders = Busy()
    source = FollowedFile(path, LONGEST, folders=folders, clock=CLOCK)
    assert drain(source) == numbered(0, 3)

    def rotate() -> None:
        append(path, numbered(3, 6))
        path.rename(tmp_path / "log.2")
        stamp(tmp_path / "log.2", 1)
        append(path, numbered(6, 9))
        path.rename(tmp_path / "log.1")
        stamp(tmp_path / "log.1", 2)
        append(path, numbered(9, 12))

    folders.happening.append(rotate)
    assert drain(source) == numbered(3, 12)
    assert folders.happening == []


@pytest.mark.parametrize("rising", [False, True])
def test_rotations_while_down(tmp_path: Path, *, rising: bool) -> None:
    """Whichever way numbers run, files are read as they were written, one that was compressed late too."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert drain(source) == numbered(0, 9)
    position = source.position()
    source.close()
    names = [f"log.{n}" for n in ((5, 6, 7, 8) if rising else (8, 7, 6, 5))]
    path.rename(tmp_path / names[0])
    for order, name in enumerate(names):
        append(tmp_path / name, numbered(9 + 10 * order, 19 + 10 * order))
        stamp(tmp_path / name, order)
    late = tmp_path / names[2]
    (tmp_path / f"{late.name}.gz").write_bytes(gzip.compress(late.read_bytes()))
    late.unlink()
    append(path, numbered(49, 51))
    assert drain(resumed(path, position)) == numbered(9, 51)


def test_copied_and_truncated_while_down(tmp_path: Path) -> None:
    """The copy is read on where the log was left, then the log from its start, though it is longer than it was."""
    path = tmp_path / "log"
    append(path, numbered(0, 90))
    source = follow(path)
    assert drain(source) == numbered(0, 90)
    position = source.position()
    source.close()
    append(path, numbered(90, 100))
    shutil.copy2(path, tmp_path / "log.1")
    path.write_bytes(numbered(100, 300))
    assert drain(resumed(path, position)) == numbered(90, 300)


def test_written_and_rotated_between_two_looks(tmp_path: Path) -> None:
    """A log that has grown and was rotated, and the next one too: in order, though the listing of a second ago tells less."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert polled(source) == numbered(0, 9)
    for number in range(1, 9):
        append(path, numbered(9 * number, 9 * number + 9))
        path.rename(tmp_path / f"log.{number}")
        stamp(tmp_path / f"log.{number}", number)
    append(path, numbered(81, 90))
    assert drain(source) == numbered(9, 90)


@pytest.mark.parametrize("known", [b"", b"{"])
def test_filled_copied_truncated_and_filled_between_two_looks(tmp_path: Path, known: bytes) -> None:
    """An empty log, or one with the first byte of a line, may be full of what was written after the copy: that comes first."""
    path = tmp_path / "log"
    append(path, known)
    source = follow(path)
    assert drain(source) == b""
    append(path, numbered(0, 9).removeprefix(known))
    shutil.copy2(path, tmp_path / "log.1")
    stamp(tmp_path / "log.1", 1)
    os.truncate(path, 0)
    append(path, numbered(9, 12))
    assert drain(source) == numbered(0, 12)


@pytest.mark.parametrize("killed", [False, True])
def test_first_file_of_a_new_log_is_rotated_at_once(tmp_path: Path, *, killed: bool) -> None:
    """A log that appears and is rotated between two looks: what its first file was renamed to is read, though no match."""
    append(tmp_path / "old.log", numbered(0, 3))
    append(tmp_path / "old.log.1", b"before the first start\n")
    os.utime(tmp_path / "old.log.1", (1e9, 1e9))
    reader = Reader(tmp_path / "*.log")
    assert reader.drain() == {"old.log": numbered(0, 3)}
    if killed:
        reader.kill()
    for number in range(3):
        append(tmp_path / "new.log", numbered(3 + number, 4 + number))
        (tmp_path / "new.log").rename(tmp_path / f"new.log.{number}")
        os.utime(tmp_path / f"new.log.{number}", (2e9 + number, 2e9 + number))
    append(tmp_path / "new.log", numbered(6, 9))
    assert reader.drain() == {"new.log": numbered(3, 9)}
    reader.kill()
    assert reader.drain() == {}


def test_replaced_by_a_copy_within_a_short_line(tmp_path: Path) -> None:
    """The beginning of a line in a file that an editor replaced is no line."""
    path = tmp_path / "log"
    append(path, b'{"line": 1, "fi')
    source = follow(path)
    assert drain(source) == b""
    shutil.copy(path, tmp_path / "draft")
    (tmp_path / "draft").replace(path)
    assert drain(source) == b""
    append(path, b'll": 2}\n')
    assert drain(source) == b'{"line": 1, "fill": 2}\n'


def test_compressed_file_that_breaks_off(tmp_path: Path) -> None:
    """Its whole lines are read; that it breaks off is counted, and the line in which it does is not given."""
    append(tmp_path / "a.log", numbered(0, 3))
    reader = Reader(tmp_path / "a.log")
    name = str(tmp_path / "a.log")
    assert reader.drain() == {name: numbered(0, 3)}
    content = b"".join(b'{"line": %d, "sha": "%s"}\n' % (n, os.urandom(9).hex().encode()) for n in range(900))
    (tmp_path / "a.log.1.gz").write_bytes(gzip.compress(content)[:6000])
    given = reader.drain(60)[name]
    assert content.startswith(given)
    assert given.endswith(b"}\n")
    assert reader.source.lost() == {"file_broken": 1}


@pytest.mark.slow
def test_line_of_a_gigabyte(tmp_path: Path) -> None:
    """A line without an end costs neither memory nor the other logs their turn."""
    append(tmp_path / "big.log", b'{"text": "')
    os.truncate(tmp_path / "big.log", 1 << 30)
    append(tmp_path / "big.log", b'"}\n' + numbered(0, 3))
    append(tmp_path / "small.log", numbered(3, 6))
    reader = Reader(tmp_path / "*.log")
    given: dict[str, bytes] = {}
    turns: dict[str, int] = {}
    for turn in range(1 << 10):
        for stream in reader.source.streams():
            block = stream.poll()
            if block is not None:
                assert len(block.data) < 4 << 20
                given[stream.name] = given.get(stream.name, b"") + block.data
                turns[stream.name] = turn
            assert len(stream._current.partial if stream._current else b"") < 4 << 20  # noqa: SLF001 - what it holds
        if given.get("big.log", b"").endswith(numbered(0, 3)):
            break
    cut, newline, rest = given["big.log"].partition(b"\n")
    assert (len(cut), newline, rest) == (LONGEST, b"\n", numbered(0, 3))
    assert given["small.log"] == numbered(3, 6)
    assert turns["small.log"] < 3 < turns["big.log"]
