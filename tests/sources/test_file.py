"""A tailed file gives every line once and in order, whatever is done to the file; each test is named for one fault."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from poisonwatch.sources.file import FollowedFile

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 1 << 12


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


CLOCK = Clock()


def follow(path: Path, longest: int = LONGEST) -> FollowedFile:
    """A log that is followed by the clock of these tests."""
    return FollowedFile(path, longest, clock=CLOCK)


def polled(source: FollowedFile) -> bytes:
    """What one poll gives."""
    block = source.poll()
    return b"" if block is None else block.data


def drain(source: FollowedFile) -> bytes:
    """Everything that is there now: a rotation takes a few looks to be believed."""
    given, quiet = b"", 0
    while quiet < 8:
        block = polled(source)
        given += block
        quiet = 0 if block else quiet + 1
        CLOCK.now += 0.7
    return given


def append(path: Path, content: bytes) -> None:
    """Write to the end of a file, as a server does."""
    with path.open("ab") as file:
        file.write(content)


def numbered(first: int, last: int) -> bytes:
    """Lines that say their own number."""
    return b"".join(b'{"line": %d}\n' % number for number in range(first, last))


def test_file_appears_later(tmp_path: Path) -> None:
    """A file that is not there yet is waited for, and read from its start."""
    source = follow(tmp_path / "log")
    assert (source.poll(), source.found, source.lag()) == (None, False, 0)
    append(tmp_path / "log", b"one\ntwo\n")
    assert (drain(source), source.found) == (b"one\ntwo\n", True)


def test_empty_file(tmp_path: Path) -> None:
    """An empty file is found, gives nothing, and is then followed."""
    (tmp_path / "log").touch()
    source = follow(tmp_path / "log")
    assert (drain(source), source.found) == (b"", True)
    append(tmp_path / "log", b"one\n")
    assert drain(source) == b"one\n"


def test_partial_line(tmp_path: Path) -> None:
    """A line is given when its newline has come, whole, and counts as lag until then."""
    path = tmp_path / "log"
    source = follow(path)
    append(path, b"one\ntw")
    assert drain(source) == b"one\n"
    assert source.lag() == 2
    append(path, b"o")
    assert drain(source) == b""
    append(path, b"\nthree\n")
    assert (drain(source), source.lag()) == (b"two\nthree\n", 0)


def test_rename_and_create(tmp_path: Path) -> None:
    """After a rotation the renamed file is read to its end, also what came after the rename, then the new one."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    source = follow(path)
    assert drain(source) == numbered(0, 3)
    path.rename(tmp_path / "log.1")
    append(tmp_path / "log.1", numbered(3, 5))
    append(path, numbered(5, 7))
    append(tmp_path / "log.1", numbered(7, 8))
    assert drain(source) == numbered(3, 5) + numbered(7, 8) + numbered(5, 7)


def test_renamed_before_it_was_read(tmp_path: Path) -> None:
    """What was written between the last poll and the rename is not lost."""
    path = tmp_path / "log"
    append(path, numbered(0, 1))
    source = follow(path)
    assert drain(source) == numbered(0, 1)
    append(path, numbered(1, 500))
    path.rename(tmp_path / "log.1")
    append(path, numbered(500, 501))
    assert drain(source) == numbered(1, 501)


def test_no_newline_at_the_end_of_a_rotated_file(tmp_path: Path) -> None:
    """The last line of a file that was rotated away is complete without its newline."""
    path = tmp_path / "log"
    append(path, b"one\nlast")
    source = follow(path)
    assert drain(source) == b"one\n"
    path.rename(tmp_path / "log.1")
    append(path, b"next\n")
    assert drain(source) == b"last\nnext\n"


def test_file_vanishes(tmp_path: Path) -> None:
    """A file that was removed is read on through its open descriptor until another one stands at the path."""
    path = tmp_path / "log"
    append(path, numbered(0, 2))
    source = follow(path)
    with path.open("ab", buffering=0) as server:
        assert drain(source) == numbered(0, 2)
        path.unlink()
        assert drain(source) == b""
        server.write(numbered(2, 3))
        assert drain(source) == numbered(2, 3)
    append(path, numbered(3, 4))
    assert drain(source) == numbered(3, 4)


def test_copied_and_truncated(tmp_path: Path) -> None:
    """A truncated file is read again from its start."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert drain(source) == numbered(0, 9)
    shutil.copy(path, tmp_path / "log.1")
    path.write_bytes(numbered(9, 11))
    assert drain(source) == numbered(9, 11)


def test_truncated_and_longer_than_before(tmp_path: Path) -> None:
    """New content that already reaches beyond the old offset is not taken for a continuation of the old."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = follow(path)
    assert drain(source) == numbered(0, 9)
    path.write_bytes(numbered(9, 300))
    assert drain(source) == numbered(9, 300)


def test_truncated_and_as_long_as_before(tmp_path: Path) -> None:
    """New content of exactly the old length is noticed too."""
    path = tmp_path / "log"
    append(path, numbered(100, 200))
    source = follow(path)
    assert drain(source) == numbered(100, 200)
    path.write_bytes(numbered(200, 300))
    assert drain(source) == numbered(200, 300)


def test_truncated_in_a_partial_line(tmp_path: Path) -> None:
    """The start of a line that was cut off by a truncation is not put before another file's first line."""
    path = tmp_path / "log"
    append(path, b"one\nunfinish")
    source = follow(path)
    assert drain(source) == b"one\n"
    path.write_bytes(b"new\n")
    assert drain(source) == b"new\n"


def test_short_file_grown_then_truncated(tmp_path: Path) -> None:
    """A file opened when it was a few bytes long is later known by more of them."""
    path = tmp_path / "log"
    append(path, b'{"line')
    source = follow(path)
    assert drain(source) == b""
    append(path, b'": 0}\n' + numbered(1, 9))
    assert drain(source) == numbered(0, 9)
    path.write_bytes(numbered(9, 90))
    assert drain(source) == numbered(9, 90)


def test_line_too_long(tmp_path: Path) -> None:
    """Of a long line as many bytes as are allowed are given, as one line; its neighbours are whole."""
    path = tmp_path / "log"
    source = follow(path)
    append(path, b"one\n" + b"x" * (LONGEST + 5))
    assert drain(source) == b"one\n" + b"x" * LONGEST + b"\n"
    append(path, b"x" * (3 << 20))
    assert drain(source) == b""
    append(path, b"end of the long line\ntwo\n")
    assert drain(source) == b"two\n"


def test_resumed_within_a_line_too_long(tmp_path: Path) -> None:
    """A restart in the middle of a long line does not take its rest for a line."""
    path = tmp_path / "log"
    append(path, b"x" * (LONGEST + 5))
    source = follow(path)
    assert len(drain(source)) == LONGEST + 1
    again = resumed(path, source.position())
    append(path, b"yyy\ntwo\n")
    assert drain(again) == b"two\n"


def resumed(path: Path, position: dict[str, Any], *, found: bool = True) -> FollowedFile:
    """A source in another process, put where the first one was."""
    source = follow(path)
    said = source.resume(json.loads(json.dumps(position)))
    assert bool(said) is not found
    return source


def test_resume(tmp_path: Path) -> None:
    """A restart goes on after the last line given; a partial line is read again."""
    path = tmp_path / "log"
    append(path, b"one\ntw")
    source = follow(path)
    assert drain(source) == b"one\n"
    position = source.position()
    source.close()
    append(path, b"o\nthree\n")
    assert drain(resumed(path, position)) == b"two\nthree\n"


def test_resume_in_the_renamed_file(tmp_path: Path) -> None:
    """A file that was rotated while nobody watched is read to its end first, then the one at the path."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    source = follow(path)
    assert drain(source) == numbered(0, 3)
    position = source.position()
    source.close()
    append(path, numbered(3, 4))
    path.rename(tmp_path / "log.1")
    append(path, numbered(4, 6))
    assert drain(resumed(path, position)) == numbered(3, 6)


def test_resume_in_other_content(tmp_path: Path) -> None:
    """The same inode with other content is another file: it is read from its start, and that is said."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    source = follow(path)
    drain(source)
    position = source.position()
    inode = path.stat().st_ino
    path.write_bytes(numbered(3, 90))
    assert path.stat().st_ino == inode
    assert drain(resumed(path, position, found=False)) == numbered(3, 90)


def test_resume_in_a_shorter_file(tmp_path: Path) -> None:
    """A file that ends before the position is not the file that was read."""
    path = tmp_path / "log"
    append(path, numbered(0, 90))
    source = follow(path)
    drain(source)
    path.write_bytes(numbered(0, 40))
    assert drain(resumed(path, source.position(), found=False)) == numbered(0, 40)


def test_resume_without_the_file(tmp_path: Path) -> None:
    """A file that is gone for good is said to be lost; what appears at the path is read from its start."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    source = follow(path)
    drain(source)
    position = source.position()
    path.unlink()
    again = resumed(path, position, found=False)
    append(path, numbered(3, 5))
    assert drain(again) == numbered(3, 5)
