"""All logs of a glob are read, each line once, however many there are and whatever becomes of them."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.sources.files import FilesSource
from tests.sources.test_file import Clock, append, numbered

LONGEST = 1 << 12


class Reader:
    """An agent that reads a glob: polls every stream, and may be killed."""

    def __init__(self, pattern: Path, **limits: int) -> None:
        self.clock = Clock()
        self.pattern = pattern
        self.limits = limits
        self.given: dict[str, bytes] = {}
        self.source = self.begin()

    def begin(self) -> FilesSource:
        """A source in a new process."""
        return FilesSource(self.pattern, LONGEST, clock=self.clock, **self.limits)

    def drain(self, seconds: float = 6.0) -> dict[str, bytes]:
        """What is given from now on, by stream, until nothing comes for some seconds."""
        given: dict[str, bytes] = {}
        quiet = 0.0
        while quiet < seconds:
            busy = False
            for stream in self.source.streams():
                block = stream.poll()
                if block is not None:
                    given[stream.name] = given.get(stream.name, b"") + block.data
                    busy = True
            self.clock.now += 0.5
            quiet = 0.0 if busy else quiet + 0.5
        return given

    def kill(self) -> None:
        """The process dies after its position was saved, and another takes over."""
        position = json.loads(json.dumps(self.source.position()))
        self.source.close()
        self.source = self.begin()
        assert self.source.resume(position) == []


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_match_is_a_stream(tmp_path: Path) -> None:
    """Streams are called after their paths, come when files come, and give what was there and what is added."""
    (tmp_path / "a").mkdir()
    append(tmp_path / "a" / "x.jsonl", numbered(0, 3))
    append(tmp_path / "y.jsonl", numbered(3, 5))
    append(tmp_path / "y.txt", b"other\n")
    reader = Reader(tmp_path / "**" / "*.jsonl")
    assert reader.drain() == {"a/x.jsonl": numbered(0, 3), "y.jsonl": numbered(3, 5)}
    append(tmp_path / "y.jsonl", numbered(5, 6))
    append(tmp_path / "z.jsonl", numbered(6, 7))
    reader.kill()
    assert reader.drain() == {"y.jsonl": numbered(5, 6), "z.jsonl": numbered(6, 7)}
    assert reader.source.lag() == 0


def test_rotated_files_that_match_belong_to_their_log(tmp_path: Path) -> None:
    """What the glob matches is read, older rotated files first; rotation makes no streams of its own."""
    append(tmp_path / "app.log.1", numbered(0, 3))
    os.utime(tmp_path / "app.log.1", (1e9, 1e9))
    append(tmp_path / "app.log", numbered(3, 5))
    reader = Reader(tmp_path / "*")
    assert reader.drain() == {"app.log": numbered(0, 5)}
    (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
    (tmp_path / "app.log").rename(tmp_path / "app.log.1")
    append(tmp_path / "app.log.1", numbered(5, 6))
    append(tmp_path / "app.log", numbered(6, 7))
    assert reader.drain() == {"app.log": numbered(5, 7)}


def test_log_that_appears_after_what_it_was_rotated_to(tmp_path: Path) -> None:
    """A rotated file alone is a stream; when its log appears, it is part of that, and not read again."""
    append(tmp_path / "app.log.1", numbered(0, 3))
    reader = Reader(tmp_path / "app.log*")
    assert reader.drain() == {"app.log.1": numbered(0, 3)}
    append(tmp_path / "app.log", numbered(3, 5))
    assert reader.drain() == {"app.log": numbered(3, 5)}
    (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
    (tmp_path / "app.log").rename(tmp_path / "app.log.1")
    append(tmp_path / "app.log", numbered(5, 6))
    assert reader.drain() == {"app.log": numbered(5, 6)}
    assert [stream.name for stream in reader.source.streams()] == ["app.log"]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("rested", [False, True])
def test_copy_under_the_glob(tmp_path: Path, *, killed: bool, rested: bool) -> None:
    """A copy is known by its contents: nothing of it is read again, but what it has more is read."""
    append(tmp_path / "a.jsonl", numbered(0, 300))
    reader = Reader(tmp_path / "*.jsonl")
    reader.drain(700 if rested else 6)
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    if killed:
        reader.kill()
    assert reader.drain() == {}
    append(tmp_path / "b.jsonl", numbered(300, 310))
    assert reader.drain() == {"b.jsonl": numbered(300, 310)}


def test_copies_that_were_there_before(tmp_path: Path) -> None:
    """Of files with the same contents one is read, also when neither was met before; and a shorter copy is none's."""
    append(tmp_path / "a.jsonl", numbered(0, 300))
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    append(tmp_path / "c.jsonl", numbered(0, 100))
    reader = Reader(tmp_path / "*.jsonl")
    given = reader.drain(20)
    assert b"".join(given.values()) == numbered(0, 300)


def test_moved_to_another_folder(tmp_path: Path) -> None:
    """A file that is moved where the glob matches too is the same file, also when it has grown meanwhile."""
    (tmp_path / "done").mkdir()
    append(tmp_path / "a.jsonl", numbered(0, 300))
    reader = Reader(tmp_path / "**" / "*.jsonl")
    reader.drain()
    append(tmp_path / "a.jsonl", numbered(300, 303))
    (tmp_path / "a.jsonl").rename(tmp_path / "done" / "a.jsonl")
    given = reader.drain(20)
    assert b"".join(given.values()) == numbered(300, 303)
    append(tmp_path / "done" / "a.jsonl", numbered(303, 304))
    assert b"".join(reader.drain(20).values()) == numbered(303, 304)


def test_equal_beginnings(tmp_path: Path) -> None:
    """Files that begin alike and differ later are different files."""
    head = b"#" * 5000 + b"\n"
    append(tmp_path / "a.jsonl", head[-3000:] + numbered(0, 300))
    append(tmp_path / "b.jsonl", head[-3000:] + numbered(1000, 1200))
    reader = Reader(tmp_path / "*.jsonl")
    given = reader.drain(20)
    assert given["a.jsonl"].endswith(numbered(0, 300))
    assert given["b.jsonl"].endswith(numbered(1000, 1200))


def test_many_finished_files(tmp_path: Path) -> None:
    """Dozens of files are read a few at a time, cost no descriptor when they are done, and are known after a restart."""
    for number in range(60):
        append(tmp_path / f"part-{number:x}.jsonl", numbered(10 * number, 10 * number + 10))
    before = open_files()
    reader = Reader(tmp_path / "*.jsonl", most_followed=8)
    most = 0
    lines: list[bytes] = []
    for _ in range(100):
        for name, given in reader.drain(1).items():
            assert name.startswith("part-")
            lines += given.splitlines()
        most = max(most, open_files())
        if len(lines) == 600:
            break
    assert sorted(lines) == sorted(numbered(0, 600).splitlines())
    assert most - before <= 10
    reader.drain(1300)
    assert open_files() - before == 0
    reader.kill()
    assert reader.drain() == {}
    append(tmp_path / "part-7.jsonl", b"more\n")
    assert reader.drain() == {"part-7.jsonl": b"more\n"}


def test_more_files_than_are_known(tmp_path: Path) -> None:
    """The oldest are remembered by time alone: they are not read again, new ones are."""
    for number in range(30):
        path = tmp_path / f"part-{number:x}.jsonl"
        append(path, numbered(10 * number, 10 * number + 10))
        os.utime(path, (1e9 + number, 1e9 + number))
    reader = Reader(tmp_path / "*.jsonl", most_known=5)
    assert sum(given.count(b"\n") for given in reader.drain(700).values()) == 300
    reader.kill()
    assert reader.drain(20) == {}
    assert len(reader.source.position()["resting"]) == 5
    append(tmp_path / "new.jsonl", b"new\n")
    assert reader.drain() == {"new.jsonl": b"new\n"}


def test_last_line_of_a_finished_file(tmp_path: Path) -> None:
    """After ten minutes without news a last line needs no newline."""
    append(tmp_path / "a.jsonl", b"one\ntwo")
    reader = Reader(tmp_path / "*.jsonl")
    assert reader.drain() == {"a.jsonl": b"one\n"}
    assert reader.drain(700) == {"a.jsonl": b"two\n"}
    reader.drain(700)
    append(tmp_path / "a.jsonl", b"three\n")
    assert reader.drain() == {"a.jsonl": b"three\n"}


def test_link_to_a_match(tmp_path: Path) -> None:
    """A link to a file that matches too is not a second log, and a loop of links ends."""
    append(tmp_path / "app-1.log", numbered(0, 3))
    (tmp_path / "current.log").symlink_to("app-1.log")
    (tmp_path / "loop").symlink_to(".")
    reader = Reader(tmp_path / "**" / "*.log")
    assert b"".join(reader.drain().values()) == numbered(0, 3)


def test_folder_that_is_a_link(tmp_path: Path) -> None:
    """Logs behind a linked folder are found and followed."""
    (tmp_path / "real").mkdir()
    (tmp_path / "logs").symlink_to("real")
    append(tmp_path / "real" / "a.log", numbered(0, 3))
    reader = Reader(tmp_path / "logs" / "*.log")
    assert reader.drain() == {"a.log": numbered(0, 3)}
    (tmp_path / "real" / "a.log").rename(tmp_path / "real" / "a.log.1")
    append(tmp_path / "real" / "a.log", numbered(3, 4))
    assert reader.drain() == {"a.log": numbered(3, 4)}


def test_what_is_no_file(tmp_path: Path) -> None:
    """Folders, FIFOs and links to nowhere match, and do no harm."""
    (tmp_path / "a.log").mkdir()
    os.mkfifo(tmp_path / "b.log")
    (tmp_path / "c.log").symlink_to("nowhere")
    reader = Reader(tmp_path / "*.log")
    assert (reader.drain(), reader.source.found) == ({}, False)
    for name in ("a.log", "b.log", "c.log"):
        plain: Any = Reader(tmp_path / name)
        assert (plain.drain(), plain.source.found) == ({}, False)


def test_unreadable(tmp_path: Path) -> None:
    """A file that may not be read is counted once, tried again, and read when it may."""
    path = tmp_path / "a.log"
    append(path, numbered(0, 3))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    reader = Reader(path)
    assert (reader.drain(), reader.source.found, reader.source.lost()) == ({}, False, {"file_unreadable": 1})
    path.chmod(0o600)
    assert reader.drain() == {str(path): numbered(0, 3)}
    assert reader.source.found


def test_busy_logs_take_turns(tmp_path: Path) -> None:
    """Of more logs than are followed at once, none of which is ever quiet, each is read."""
    clock = Clock()
    source = FilesSource(tmp_path / "*.jsonl", 1 << 16, clock=clock, most_followed=4)
    told: Counter[str] = Counter()
    for line in range(60):
        for name in range(12):
            with (tmp_path / f"{name}.jsonl").open("ab") as log:
                log.write(f"{name} {line}\n".encode())
        for _ in range(3):
            clock.now += 0.2
            for stream in source.streams():
                while (block := stream.poll()) is not None:
                    told.update(said.split()[0].decode() for said in block.data.splitlines())
    assert min(told[str(name)] for name in range(12)) > 40
    source.close()
