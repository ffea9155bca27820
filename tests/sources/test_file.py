"""A tailed file gives every line once and in order, whatever is done to the file; each test is named for one fault."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poisonwatch.sources.file import FileSource

LONGEST = 1 << 12


def drain(source: FileSource) -> bytes:
    """Everything that is there now: a rotation takes a few polls to be believed."""
    given, quiet = b"", 0
    while quiet < 4:
        block = source.poll()
        given += block
        quiet = 0 if block else quiet + 1
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
    source = FileSource(tmp_path / "log", LONGEST)
    assert (source.poll(), source.found, source.position(), source.lag()) == (b"", False, None, 0)
    append(tmp_path / "log", b"one\ntwo\n")
    assert (drain(source), source.found) == (b"one\ntwo\n", True)


def test_empty_file(tmp_path: Path) -> None:
    """An empty file is found, gives nothing, and is then followed."""
    (tmp_path / "log").touch()
    source = FileSource(tmp_path / "log", LONGEST)
    assert (drain(source), source.found) == (b"", True)
    append(tmp_path / "log", b"one\n")
    assert drain(source) == b"one\n"


def test_partial_line(tmp_path: Path) -> None:
    """A line is given when its newline has come, whole, and counts as lag until then."""
    path = tmp_path / "log"
    source = FileSource(path, LONGEST)
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
    source = FileSource(path, LONGEST)
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
    source = FileSource(path, LONGEST)
    assert drain(source) == numbered(0, 1)
    append(path, numbered(1, 500))
    path.rename(tmp_path / "log.1")
    append(path, numbered(500, 501))
    assert drain(source) == numbered(1, 501)


def test_no_newline_at_the_end_of_a_rotated_file(tmp_path: Path) -> None:
    """The last line of a file that was rotated away is complete without its newline."""
    path = tmp_path / "log"
    append(path, b"one\nlast")
    source = FileSource(path, LONGEST)
    assert drain(source) == b"one\n"
    path.rename(tmp_path / "log.1")
    append(path, b"next\n")
    assert drain(source) == b"last\nnext\n"


def test_file_vanishes(tmp_path: Path) -> None:
    """A file that was removed is read on through its open descriptor until another one stands at the path."""
    path = tmp_path / "log"
    append(path, numbered(0, 2))
    source = FileSource(path, LONGEST)
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
    source = FileSource(path, LONGEST)
    assert drain(source) == numbered(0, 9)
    shutil.copy(path, tmp_path / "log.1")
    path.write_bytes(numbered(9, 11))
    assert drain(source) == numbered(9, 11)


def test_truncated_and_longer_than_before(tmp_path: Path) -> None:
    """New content that already reaches beyond the old offset is not taken for a continuation of the old."""
    path = tmp_path / "log"
    append(path, numbered(0, 9))
    source = FileSource(path, LONGEST)
    assert drain(source) == numbered(0, 9)
    path.write_bytes(numbered(9, 300))
    assert drain(source) == numbered(9, 300)


def test_truncated_and_as_long_as_before(tmp_path: Path) -> None:
    """New content of exactly the old length is noticed too."""
    path = tmp_path / "log"
    append(path, numbered(100, 200))
    source = FileSource(path, LONGEST)
    assert drain(source) == numbered(100, 200)
    path.write_bytes(numbered(200, 300))
    assert drain(source) == numbered(200, 300)


def test_truncated_in_a_partial_line(tmp_path: Path) -> None:
    """The start of a line that was cut off by a truncation is not put before another file's first line."""
    path = tmp_path / "log"
    append(path, b"one\nunfinish")
    source = FileSource(path, LONGEST)
    assert drain(source) == b"one\n"
    path.write_bytes(b"new\n")
    assert drain(source) == b"new\n"


def test_short_file_grown_then_truncated(tmp_path: Path) -> None:
    """A file opened when it was a few bytes long is later known by more of them."""
    path = tmp_path / "log"
    append(path, b'{"line')
    source = FileSource(path, LONGEST)
    assert drain(source) == b""
    append(path, b'": 0}\n' + numbered(1, 9))
    assert drain(source) == numbered(0, 9)
    path.write_bytes(numbered(9, 90))
    assert drain(source) == numbered(9, 90)


def test_line_too_long(tmp_path: Path) -> None:
    """Of a long line as many bytes as are allowed are given, as one line; its neighbours are whole."""
    path = tmp_path / "log"
    source = FileSource(path, LONGEST)
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
    source = FileSource(path, LONGEST)
    assert len(drain(source)) == LONGEST + 1
    again = resumed(path, source.position())
    append(path, b"yyy\ntwo\n")
    assert drain(again) == b"two\n"


def resumed(path: Path, position: dict[str, Any] | None, *, found: bool = True) -> FileSource:
    """A source in another process, put where the first one was."""
    source = FileSource(path, LONGEST)
    assert position is not None
    assert source.resume(position) is found
    return source


def test_resume(tmp_path: Path) -> None:
    """A restart goes on after the last line given; a partial line is read again."""
    path = tmp_path / "log"
    append(path, b"one\ntw")
    source = FileSource(path, LONGEST)
    assert drain(source) == b"one\n"
    position = source.position()
    source.close()
    append(path, b"o\nthree\n")
    assert drain(resumed(path, position)) == b"two\nthree\n"


def test_resume_in_the_renamed_file(tmp_path: Path) -> None:
    """A file that was rotated while nobody watched is read to its end first, then the one at the path."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    source = FileSource(path, LONGEST)
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
    source = FileSource(path, LONGEST)
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
    source = FileSource(path, LONGEST)
    drain(source)
    path.write_bytes(numbered(0, 40))
    assert drain(resumed(path, source.position(), found=False)) == numbered(0, 40)


def test_resume_without_the_file(tmp_path: Path) -> None:
    """A file that is gone for good is said to be lost; what appears at the path is read from its start."""
    path = tmp_path / "log"
    append(path, numbered(0, 3))
    source = FileSource(path, LONGEST)
    drain(source)
    position = source.position()
    path.unlink()
    again = resumed(path, position, found=False)
    append(path, numbered(3, 5))
    assert drain(again) == numbered(3, 5)


class Tailing(RuleBasedStateMachine):
    """Against a list of what was written, whatever the order of events: every line once, in the order written.

    The server rotates at any time, but not twice (nor truncates and rotates) while the agent is behind; it truncates, which
    loses what was not read by its nature, only after all was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="poisonwatch-test-")
        self.path = Path(self.folder.name) / "log"
        self.source = FileSource(self.path, LONGEST)
        self.written = 0
        self.rotations = 0
        self.unread_change = False
        self.given = b""
        self.expected = b""

    def teardown(self) -> None:
        """Let go of the files."""
        self.source.close()
        self.folder.cleanup()

    def line(self, size: int) -> bytes:
        """A line that says its number."""
        self.written += 1
        return b'{"line": %d, "fill": "%s"}\n' % (self.written, b"x" * size)

    @rule(sizes=st.lists(st.integers(0, 600), min_size=1, max_size=5))
    def write(self, sizes: list[int]) -> None:
        """The server writes whole lines."""
        content = b"".join(self.line(size) for size in sizes)
        self.expected += content
        append(self.path, content)

    @rule(size=st.integers(0, 600), cut=st.floats(0, 1))
    def write_in_two_parts(self, size: int, cut: float) -> None:
        """The server's line arrives in two parts, with a poll between."""
        line = self.line(size)
        at = int(cut * len(line))
        append(self.path, line[:at])
        self.poll()
        append(self.path, line[at:])
        self.expected += line

    @rule()
    def poll(self) -> None:
        """The agent looks once."""
        self.given += self.source.poll()

    @rule()
    def poll_until_quiet(self) -> None:
        """The agent catches up."""
        self.given += drain(self.source)
        self.unread_change = False

    @precondition(lambda self: self.source.position() is not None and not self.unread_change)
    @rule()
    def rotate(self) -> None:
        """The file is renamed and another one made: one that the agent has met, and not twice while it is behind."""
        self.rotations += 1
        self.path.rename(self.path.with_name(f"log.{self.rotations}"))
        self.path.touch()
        self.unread_change = True

    @precondition(lambda self: self.path.exists() and not self.unread_change)
    @rule(sizes=st.lists(st.integers(0, 600), max_size=9))
    def truncate_after_drain(self, sizes: list[int]) -> None:
        """The file is copied away and truncated after everything was read, and at once written again."""
        self.poll_until_quiet()
        content = b"".join(self.line(size) for size in sizes)
        self.path.write_bytes(content)
        self.expected += content
        self.unread_change = True
        if not content:
            self.poll_until_quiet()

    @rule()
    def restart(self) -> None:
        """The agent is stopped and started again from its position."""
        position = self.source.position()
        self.source.close()
        self.source = FileSource(self.path, LONGEST)
        if position is not None:
            self.source.resume(position)

    @invariant()
    def given_so_far(self) -> None:
        """Nothing is given that was not written, nor twice, nor out of order."""
        assert self.expected.startswith(self.given)

    @rule()
    def everything(self) -> None:
        """After catching up, everything was given."""
        self.poll_until_quiet()
        assert self.given == self.expected


TestTailing = Tailing.TestCase
TestTailing.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
