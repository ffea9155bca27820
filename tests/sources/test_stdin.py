"""Standard input: every line of the pipe once and in order, the last one too, and no more than fits is taken from it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from poisonwatch.formats.events import events
from poisonwatch.sources.spool import Spool
from poisonwatch.sources.stdin import StdinSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

ROOM = 1 << 22
LONGEST = 1 << 16


class Pipe:
    """Both ends of a pipe."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.file: BinaryIO = os.fdopen(reading, "rb")
        self.open = True

    def send(self, content: bytes) -> None:
        """Write all of it, however long the other end takes."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self.writing, rest) :]

    def send_last(self, content: bytes) -> None:
        """Write all of it, and end."""
        self.send(content)
        self.end()

    def end(self) -> None:
        """The program that writes has ended."""
        if self.open:
            os.close(self.writing)
            self.open = False


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe, closed at the end."""
    made = Pipe()
    yield made
    made.end()
    made.file.close()


def until(reached: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def lines(source: StdinSource) -> bytes:
    """All lines that are there now, as the stream gives them."""
    given = b""
    for stream in source.streams():
        while (block := stream.poll()) is not None:
            assert not block.framed
            given += block.data
    return given


def everything(source: StdinSource) -> bytes:
    """All lines until the pipe has ended."""
    given: list[bytes] = []

    def drained() -> bool:
        given.append(lines(source))
        return not source.streams()

    until(drained)
    return b"".join(given)


def test_lines_until_the_end(tmp_path: Path, pipe: Pipe) -> None:
    """Lines come as they are written, in pieces or many at once; the last one counts without its newline."""
    source = StdinSource(Spool(tmp_path, ROOM), pipe.file, LONGEST)
    pipe.send(b"one\ntwo\nthr")
    until(lambda: source.lag() > 0)
    assert lines(source) == b"one\ntwo\n"
    assert len(source.streams()) == 1
    many = b"".join(b"line %d\n" % number for number in range(100_000))
    writer = threading.Thread(target=pipe.send_last, args=(b"ee\n" + many + b"last",))
    writer.start()
    assert everything(source) == b"three\n" + many + b"last\n"
    writer.join()
    assert (source.streams(), source.lag(), source.lost()) == ((), 0, {})
    source.close()


def test_regular_file(tmp_path: Path) -> None:
    """Input that is redirected from a file is read to its end."""
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    with (tmp_path / "log").open("rb") as file:
        source = StdinSource(Spool(tmp_path / "spool", ROOM), file, LONGEST)
        assert everything(source) == b"one\ntwo\n"
        source.close()


def test_endless_line(tmp_path: Path, pipe: Pipe) -> None:
    """Of a line without end only so many bytes are kept; the next line is read as if nothing had been."""
    source = StdinSource(Spool(tmp_path, ROOM), pipe.file, LONGEST)
    writer = threading.Thread(target=pipe.send_last, args=(b"x" * (8 << 20) + b"\nnext\n" + b"y" * (1 << 20),))
    writer.start()
    given = everything(source)
    writer.join()
    long, following, last = given.split(b"\n")[:-1]
    assert LONGEST <= len(long) <= LONGEST
    assert (set(long), following, last) == (set(b"x"), b"next", b"y" * LONGEST)
    source.close()


def test_full_spool_holds_the_pipe(tmp_path: Path, pipe: Pipe) -> None:
    """What does not fit stays in the pipe, whose writer waits; nothing is refused, and all of it comes in the end."""
    spool = Spool(tmp_path, 1 << 20)
    source = StdinSource(spool, pipe.file, LONGEST)
    content = b"".join(b"line %d\n" % number for number in range(400_000))
    writer = threading.Thread(target=pipe.send_last, args=(content,))
    writer.start()
    given: list[bytes] = []

    def drained() -> bool:
        assert sum(path.stat().st_size for path in tmp_path.glob("*.frames")) <= 1 << 20
        given.append(lines(source))
        source.commit(source.position())
        return not source.streams()

    until(lambda: spool.held > 700_000)
    time.sleep(0.3)
    assert writer.is_alive()
    until(drained)
    writer.join()
    assert b"".join(given) == content
    assert source.lost() == {}
    source.close()


def test_stop_while_the_pipe_is_silent(tmp_path: Path, pipe: Pipe) -> None:
    """The agent stops though nobody writes; what was taken is given after the restart, from the checkpoint on."""
    source = StdinSource(Spool(tmp_path, ROOM), pipe.file, LONGEST)
    pipe.send(b"one\n")
    until(lambda: source.lag() > 0)
    assert lines(source) == b"one\n"
    position = source.position()
    source.commit(position)
    pipe.send(b"two\n")
    until(lambda: source.lag() > 0)
    source.close()
    with (tmp_path / "empty").open("w+b") as empty:
        again = StdinSource(Spool(tmp_path, ROOM), empty, LONGEST)
        assert again.resume(position) == []
        assert everything(again) == b"two\n"
        again.close()


def test_stop_while_the_spool_is_full(tmp_path: Path, pipe: Pipe) -> None:
    """What was taken from the pipe and could not be put anywhere is counted when the agent stops."""
    source = StdinSource(Spool(tmp_path, 2000), pipe.file, LONGEST)
    pipe.send(b"line\n" * 1000)
    time.sleep(0.3)
    source.close()
    assert source.lost() == {"stopped": 1000}


KILLED = """
    import sys
    from pathlib import Path
    from poisonwatch.sources.spool import Spool
    from poisonwatch.sources.stdin import StdinSource
    source = StdinSource(Spool(Path(sys.argv[1]), 1 << 24), sys.stdin.buffer, 1 << 16)
    while not source.lag():
        pass
    print("safe", flush=True)
    source._thread.join()
"""


@pytest.mark.system
def test_killed_after_lines_were_taken(tmp_path: Path) -> None:
    """Lines that went to disk outlive the process that took them."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"safe\n"
        process.kill()
    spool = Spool(tmp_path, ROOM)
    block = spool.poll()
    assert block is not None
    assert [event.body for event in events(block)] == [b"one\ntwo\n"]
    spool.close()
