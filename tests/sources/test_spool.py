"""A spool gives every acknowledged event once and in order, whatever is done to it; each test is named for one fault."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poisonwatch.errors import SpoolFullError, StateError
from poisonwatch.formats.events import MARK, Event, events, frame
from poisonwatch.sources.spool import READ_SIZE, Spool
from tests.sources.spooled import drain, numbered, segments

if TYPE_CHECKING:
    from types import FrameType

ROOM = 1 << 20


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    """Body, headers, time and origin survive the disk."""
    spool = Spool(tmp_path, ROOM)
    sent = [Event(bytes(range(256)), {"content-type": "x", "ce-id": "ä"}, 12.25, "/a"), Event(MARK * 3, {}, 1.0, "/b")]
    spool.append(sent)
    block = spool.poll()
    assert block is not None
    assert block.framed
    assert list(events(block)) == sent
    assert (spool.poll(), spool.lag()) == (None, 0)
    spool.close()


def test_safe_before_acknowledged(tmp_path: Path) -> None:
    """An append returns when the disk has the bytes, and the folder the name of a new segment."""
    spool = Spool(tmp_path / "spool", ROOM)
    calls: list[str] = []

    def note(_: FrameType, what: str, function: Any) -> None:
        if what == "c_call" and function.__module__ == "posix":
            calls.append(function.__name__)

    for expected in (["fsync", "pwrite", "fdatasync"], ["pwrite", "fdatasync"]):
        calls.clear()
        sys.setprofile(note)
        spool.append([numbered(0)])
        sys.setprofile(None)
        assert [name for name in calls if name in {"fsync", "pwrite", "fdatasync"}] == expected
    spool.close()


def test_large_events(tmp_path: Path) -> None:
    """An event larger than what is read in one go comes whole, and those around it too."""
    spool = Spool(tmp_path, 1 << 26)
    for number in range(3):
        spool.append([numbered(number), numbered(number, 3 * READ_SIZE)])
    assert drain(spool) == [0, 0, 1, 1, 2, 2]
    spool.close()


def test_restart_between_checkpoints(tmp_path: Path) -> None:
    """After a crash it is read again from the checkpoint, across segments; what is committed leaves the disk."""
    spool = Spool(tmp_path, ROOM, segment_bytes=300)
    for number in range(20):
        spool.append([numbered(number, 50)])
    first = [int(event.body.split()[0]) for event in events(spool.poll() or pytest.fail("nothing there"))]
    position = spool.position()
    rest = drain(spool)
    assert first + rest == list(range(20))
    before = len(segments(tmp_path))
    spool.commit(position)
    spool.close()
    for _ in range(2):
        again = Spool(tmp_path, ROOM, segment_bytes=300)
        assert again.resume(position) == []
        assert drain(again) == rest
        again.commit(again.position())
        again.close()
        assert len(segments(tmp_path)) < before
        position, rest = again.position(), []
    assert len(segments(tmp_path)) == 1


def test_full(tmp_path: Path) -> None:
    """A full spool refuses and says when to come again; once what it held is committed there is room, every time."""
    spool = Spool(tmp_path, 10_000)
    number, given = 0, []
    for _ in range(5):
        while spool.held + len(frame(numbered(number, 1000))) + 8 <= 10_000:
            spool.append([numbered(number, 1000)])
            number += 1
        with pytest.raises(SpoolFullError) as full:
            spool.append([numbered(number, 1000)])
        assert full.value.retry_after > 0
        assert sum(path.stat().st_size for path in segments(tmp_path)) == spool.held <= 10_000
        given += drain(spool)
        spool.commit(spool.position())
    assert number > 30
    assert given == list(range(number))
    spool.close()


def test_full_of_one_large_event(tmp_path: Path) -> None:
    """A segment that alone fills the spool is let go of, too."""
    spool = Spool(tmp_path, 10_000)
    for number in range(4):
        spool.append([numbered(number, 9000)])
        with pytest.raises(SpoolFullError):
            spool.append([numbered(number, 9000)])
        assert drain(spool) == [number]
        for _ in range(2):  # the first checkpoint begins a new segment, the second lets go of the old one
            spool.commit(spool.position())
            assert drain(spool) == []
    spool.close()


def test_torn_tail(tmp_path: Path) -> None:
    """What a crash left of a frame that was not acknowledged is cut off; what follows is read."""
    whole = len(frame(numbered(1, 40))) + 8
    for cut in range(1, whole):
        folder = tmp_path / str(cut)
        spool = Spool(folder, ROOM)
        spool.append([numbered(0, 40)])
        spool.append([numbered(1, 40)])
        spool.close()
        (path,) = segments(folder)
        os.truncate(path, 2 * whole - cut)
        again = Spool(folder, ROOM)
        assert (again.torn, path.stat().st_size) == (whole - cut, whole)
        again.append([numbered(2, 40)])
        assert (drain(again), again.damaged, again.lag()) == ([0, 2], 0, 0)
        again.close()


def test_no_event_is_forged_by_a_torn_one(tmp_path: Path) -> None:
    """A body that holds a frame of its own does not become that event when its own frame is torn or damaged."""
    forged = frame(Event(b"666 forged", {}, 1.0, "/v1/feedback"))
    for damage in ("torn", "flipped"):
        folder = tmp_path / damage
        spool = Spool(folder, ROOM)
        spool.append([numbered(0), Event(b"1 " + forged * 5 + b"x" * 100), numbered(2)])
        spool.close()
        (path,) = segments(folder)
        if damage == "torn":
            os.truncate(path, path.stat().st_size - len(frame(numbered(2))) - 8 - 50)
        else:
            flip(path, path.read_bytes().index(b"1 " + MARK))
        again = Spool(folder, ROOM)
        assert drain(again) == ([0] if damage == "torn" else [0, 2])
        assert again.damaged == (damage == "flipped")
        again.close()


def test_flipped_bit(tmp_path: Path) -> None:
    """Wherever one bit is turned over, only that event is lost, and it is counted."""
    spool = Spool(tmp_path, ROOM)
    size = len(frame(numbered(0))) + 8
    for number in range(4):
        spool.append([numbered(number)])
    spool.close()
    (path,) = segments(tmp_path)
    good = path.read_bytes()
    for place in range(3 * size):
        path.write_bytes(good)
        flip(path, place, place % 8)
        again = Spool(tmp_path, ROOM)
        assert drain(again) == [number for number in range(4) if number != place // size]
        assert (again.damaged, again.lost()) == (1, {"damaged": 1})
        again.close()


def test_flipped_bit_in_a_long_segment(tmp_path: Path) -> None:
    """Damage in and around large events, further than one read reaches, costs just those."""
    spool = Spool(tmp_path, 1 << 27)
    sizes = [10, 3 * READ_SIZE, 10, READ_SIZE, 2 * READ_SIZE, 10]
    spool.append([numbered(number, size) for number, size in enumerate(sizes)])
    spool.close()
    (path,) = segments(tmp_path)
    data = path.read_bytes()
    flip(path, data.index(b"1 xxx") + 2 * READ_SIZE)
    flip(path, data.index(b"4 xxx") - 20)
    again = Spool(tmp_path, 1 << 27)
    assert (drain(again), again.damaged) == ([0, 2, 3, 5], 2)
    again.close()


def test_segment_removed(tmp_path: Path) -> None:
    """A segment that somebody removes while the agent runs is told as lost, and the others are read."""
    spool = Spool(tmp_path, ROOM, segment_bytes=1)
    for number in range(4):
        spool.append([numbered(number)])
    segments(tmp_path)[1].unlink()
    assert (drain(spool), spool.lost()) == ([0, 2, 3], {"damaged": 1})
    spool.close()


def test_segments_gone_at_start(tmp_path: Path) -> None:
    """A position in a segment that is gone is told; what is still there is read, and nothing that was read before."""
    spool = Spool(tmp_path, ROOM, segment_bytes=1)
    for number in range(3):
        spool.append([numbered(number)])
    spool.poll()
    spool.poll()
    position = spool.position()
    spool.append([numbered(3)])
    spool.close()
    segments(tmp_path)[1].unlink()
    again = Spool(tmp_path, ROOM)
    (problem,) = again.resume(position)
    assert f"segment {position['segment']} was removed" in problem
    assert again.lag() == sum(path.stat().st_size for path in segments(tmp_path))
    assert (drain(again), again.lag()) == ([2, 3], 0)
    again.close()
    for path in segments(tmp_path):
        path.unlink()
    anew = Spool(tmp_path, ROOM)
    (problem,) = anew.resume(position)
    assert "segments were removed" in problem
    for number in range(4, 10):
        anew.append([numbered(number)])
    assert drain(anew) == list(range(4, 10))
    anew.close()


def test_a_position_before_the_first_event(tmp_path: Path) -> None:
    """A checkpoint of an empty spool is nothing to complain of after a crash, when events have come or not."""
    spool = Spool(tmp_path, ROOM)
    position = spool.position()
    spool.close()
    anew = Spool(tmp_path, ROOM)
    assert anew.resume(position) == []
    anew.append([numbered(0)])
    anew.close()
    again = Spool(tmp_path, ROOM)
    assert again.resume(position) == []
    assert drain(again) == [0]
    again.close()


def test_disk_lost_what_was_read(tmp_path: Path) -> None:
    """A segment shorter than its position is told, and events that come later are not taken for those."""
    spool = Spool(tmp_path, ROOM)
    for number in range(5):
        spool.append([numbered(number)])
    drain(spool)
    position = spool.position()
    spool.close()
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    for round_ in range(2):
        again = Spool(tmp_path, ROOM)
        (problem,) = again.resume(position)
        assert "shorter than what was read" in problem
        behind = again.lag()
        assert behind == round_ * (
            len(frame(numbered(5))) + 8
        )  # of the round before, whose event no checkpoint took in
        again.append([numbered(5)])
        assert again.lag() == behind + len(frame(numbered(5))) + 8
        assert set(drain(again)) == {5}
        again.close()


def test_two_agents(tmp_path: Path) -> None:
    """A second agent is told to take another folder; when the first is done it may have it."""
    spool = Spool(tmp_path, ROOM)
    with pytest.raises(StateError, match="another agent"):
        Spool(tmp_path, ROOM)
    spool.close()
    Spool(tmp_path, ROOM).close()


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    """A folder that cannot be made is named with the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot hold a spool"):
        Spool(tmp_path / "file" / "spool", ROOM)


def test_other_files_in_the_folder(tmp_path: Path) -> None:
    """What is no segment is left alone."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "000000000009.frames").write_text("not ours")
    spool = Spool(tmp_path, ROOM)
    spool.append([numbered(0)])
    assert drain(spool) == [0]
    spool.close()
    assert (tmp_path / "000000000009.frames").read_text() == "not ours"


def test_closed(tmp_path: Path) -> None:
    """After the end nothing is acknowledged any more."""
    spool = Spool(tmp_path, ROOM)
    spool.close()
    with pytest.raises(OSError, match="shutdown"):
        spool.append([numbered(0)])


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from poisonwatch.sources.spool import Spool
    from tests.sources.spooled import drain, numbered, segments
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    spool = Spool(folder, 1 << 26)
    spool.append([numbered(0, 10_000)])
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    stored, failed = [0], 0
    for number in range(1, 50):
        try:
            spool.append([numbered(number, 9_000)])
        except OSError as error:
            failed += 1
        else:
            stored.append(number)
        (path,) = segments(folder)
        assert path.stat().st_size == spool.held == spool.lag(), (path.stat().st_size, spool.held)
    assert failed == spool.failed > 30, failed
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    spool.append([numbered(99, 9_000)])
    assert drain(spool) == [*stored, 99]
    assert spool.damaged == 0
    print("held")
"""


def test_disk_full(tmp_path: Path) -> None:
    """A write that the disk takes only half of is undone and told; when there is room again, all goes on."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "held\n", done.stderr
    again = Spool(tmp_path, 1 << 26)
    assert (again.torn, drain(again)[-1]) == (0, 99)
    again.close()


def test_segment_cannot_be_begun(tmp_path: Path) -> None:
    """A folder in which no file can be made refuses; when it is mended, all goes on."""
    folder = tmp_path / "spool"
    spool = Spool(folder, ROOM)
    folder.rename(tmp_path / "away")
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        spool.append([numbered(0)])
    assert (spool.failed, spool.held) == (1, 0)
    (tmp_path / "away").rename(folder)
    spool.append([numbered(1)])
    assert drain(spool) == [1]
    spool.close()


def test_many_threads(tmp_path: Path) -> None:
    """What many threads append at once is all there, each thread's in its order, while the loop reads."""
    spool = Spool(tmp_path, 1 << 26, segment_bytes=5_000)
    each, threads = 100, 16

    def write(first: int) -> None:
        for number in range(first, first + each):
            spool.append([numbered(number, number % 97)])

    writers = [threading.Thread(target=write, args=(each * thread,)) for thread in range(threads)]
    for writer in writers:
        writer.start()
    given: list[int] = []
    until = time.monotonic() + 60
    while len(given) < each * threads and time.monotonic() < until:
        given += drain(spool)
        spool.commit(spool.position())
    for writer in writers:
        writer.join()
    assert sorted(given) == list(range(each * threads))
    for thread in range(threads):
        mine = [number for number in given if number // each == thread]
        assert mine == sorted(mine)
    spool.commit(spool.position())
    assert len(segments(tmp_path)) == 1
    spool.close()


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Reading a long backlog holds about a block, not the backlog."""
    spool = Spool(tmp_path, 1 << 27)
    for number in range(32):
        spool.append([numbered(number, 1 << 20)])
    tracemalloc.start()
    assert drain(spool) == list(range(32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    spool.close()


def test_compressed_bodies_come_few_at_a_time(tmp_path: Path) -> None:
    """Bodies that may grow a thousandfold do not meet in one block."""
    spool = Spool(tmp_path, ROOM)
    spool.append([Event(b"\x1f\x8b\x08 bomb")] * 10 + [Event(b"plain")] * 10)
    sizes = []
    while (block := spool.poll()) is not None:
        sizes.append(len(list(events(block))))
    assert sizes == [4, 4, 12]
    spool.close()


WRITER = """
    import sys, threading
    from pathlib import Path
    from poisonwatch.sources.spool import Spool
    from tests.sources.spooled import numbered
    folder, first = Path(sys.argv[1]), int(sys.argv[2])
    spool = Spool(folder, 1 << 28, segment_bytes=20_000)
    told = threading.Lock()
    def write(number):
        while True:
            spool.append([numbered(number, number * 7919 % 3000)])
            with told:
                sys.stdout.write(f"{number}\\n")
                sys.stdout.flush()
            number += 4
    for thread in range(4):
        threading.Thread(target=write, args=(first + thread,), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()
"""
KILLS = 60


@pytest.mark.slow
def test_writer_killed(tmp_path: Path) -> None:
    """Killed at random moments, again and again: what was acknowledged is read once, what is read was sent."""
    rng = random.Random(5)
    given: list[int] = []
    acknowledged: list[int] = []
    position: dict[str, Any] | None = None
    kept = 0
    for kill in range(KILLS):
        first = kill * 1_000_000
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            writer.send_signal(signal.SIGKILL)
            # A line that the kill cut short was acknowledged all the same, but says no number.
            acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1] if line.isdecimal()]
        spool = Spool(tmp_path, 1 << 28, segment_bytes=20_000)
        if position is not None:
            assert spool.resume(position) == []
        given += drain(spool)
        if position is None or rng.random() < 0.7:
            position, kept = spool.position(), len(given)
            spool.commit(position)
        else:
            del given[kept:]  # the loop was killed, too, and comes back to its checkpoint
        assert spool.damaged == 0
        spool.close()
    last = Spool(tmp_path, 1 << 28, segment_bytes=20_000)
    assert position is not None
    assert last.resume(position) == []
    given += drain(last)
    last.close()
    assert len(given) == len(set(given))
    assert set(acknowledged) <= set(given)
    assert len(acknowledged) > 20 * KILLS
    # At most what each of its threads had under way when it was killed.
    assert len(given) - len(acknowledged) <= 4 * KILLS
    assert all(number % 1_000_000 < 100_000 for number in given)


class Spooled(RuleBasedStateMachine):
    """Any sequence of what can happen gives each whole event once and in order, counted from the last checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self._path = Path(self._folder.name)
        self._sent = 0
        self._broken: set[int] = set()
        self._ends: dict[Path, list[tuple[int, int]]] = {}
        self._given: list[int] = []
        self._checkpoint: tuple[dict[str, Any], int] | None = None

    @initialize(segment=st.sampled_from([1, 150, 1000]))
    def begin(self, segment: int) -> None:
        """A new spool, of small or large segments."""
        self._segment = segment
        self._spool = Spool(self._path, 100_000, segment)

    @rule(count=st.integers(1, 4), size=st.sampled_from([0, 10, 300]))
    def append(self, count: int, size: int) -> None:
        """Some events come together."""
        try:
            sent = [numbered(self._sent + number, size) for number in range(count)]
            self._spool.append(sent)
        except SpoolFullError:
            assert self._spool.held > 50_000
        else:
            last = segments(self._path)[-1]
            end = last.stat().st_size - sum(len(frame(event)) + 8 for event in sent)
            for event in sent:
                end += len(frame(event)) + 8
                self._ends.setdefault(last, []).append((end, self._sent))
                self._sent += 1

    @rule()
    def poll(self) -> None:
        """The loop takes a block."""
        block = self._spool.poll()
        if block is not None:
            self._given += [int(event.body.split()[0]) for event in events(block)]

    @rule()
    def commit(self) -> None:
        """A checkpoint is made."""
        self._checkpoint = (self._spool.position(), len(self._given))
        self._spool.commit(self._checkpoint[0])

    @rule(torn=st.binary(max_size=60))
    def crash(self, torn: bytes) -> None:
        """The process ends in the middle of a write, and another one begins."""
        self._spool.close()
        if torn and segments(self._path):
            with segments(self._path)[-1].open("ab") as file:
                file.write(torn)
        self._reopen()

    @precondition(lambda self: len(segments(self._path)) > 1)
    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        """The disk turns a bit over in an event of a segment that is done with."""
        path = data.draw(st.sampled_from(segments(self._path)[:-1]))
        if path.stat().st_size:
            self._spool.close()
            place = data.draw(st.integers(0, path.stat().st_size - 1))
            flip(path, place)
            self._broken.add(next(number for end, number in self._ends[path] if place < end))
            self._reopen()

    def _reopen(self) -> None:
        self._spool = Spool(self._path, 100_000, self._segment)
        position, kept = self._checkpoint or (None, 0)
        if position is not None:
            assert self._spool.resume(position) == []
        del self._given[kept:]

    @invariant()
    def in_order(self) -> None:
        """Nothing twice, nothing out of order, nothing that was not sent."""
        assert self._given == sorted(set(self._given))
        assert all(number < self._sent for number in self._given)

    def teardown(self) -> None:
        """In the end every event that nothing happened to is there."""
        self._given += drain(self._spool)
        assert set(range(self._sent)) - set(self._given) <= self._broken
        assert self._given == sorted(set(self._given))
        self._spool.close()
        self._folder.cleanup()


TestSpooled = Spooled.TestCase
TestSpooled.settings = settings(stateful_step_count=30)
