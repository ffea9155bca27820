"""A log that is rotated in every manner under a reader that is killed at any moment: no line lost, none double, all in order.

What no reader can save is left out: lines written between the copy and the truncation of copytruncate, and files that are
deleted before they were read.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from poisonwatch.sources.files import FilesSource
from tests.sources.rotating import Server
from tests.sources.test_file import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 1 << 12


class Agent:
    """Reads, saves its position now and then, and goes back to what was saved when it is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.given = b""
        self.saved: tuple[str, int] | None = None
        self.crashes = 0
        self.source = self._begin()
        self.save()

    def _begin(self) -> FilesSource:
        return FilesSource(self.path, LONGEST, clock=self.clock)

    def poll(self) -> bool:
        """Look once."""
        found = False
        for stream in self.source.streams():
            block = stream.poll()
            if block is not None:
                self.given += block.data
                found = True
        self.clock.now += 0.3
        return found

    def look(self, times: int) -> None:
        """Look a few times."""
        for _ in range(times):
            self.poll()

    def drain(self) -> None:
        """Look until nothing comes any more; the last line of a rotated file comes when there is a new one."""
        if not self.path.exists():
            self.path.touch()
            os.utime(self.path, (1, 1))
        quiet = 0
        while quiet < 20:
            quiet = 0 if self.poll() else quiet + 1

    def save(self) -> None:
        """Write a checkpoint."""
        self.saved = json.dumps(self.source.position()), len(self.given)

    def crash(self) -> list[str]:
        """Be killed, and be started again from the last checkpoint."""
        assert self.saved is not None
        position, length = self.saved
        self.source.close()
        self.given = self.given[:length]
        self.source = self._begin()
        self.crashes += 1
        return self.source.resume(json.loads(position))


def after(server: Server) -> bytes:
    """All that was written and is complete."""
    written = server.written[:-1] if server.unfinished else server.written
    return b"".join(written)


class Rotated(RuleBasedStateMachine):
    """Any order of writing, rotating, looking and dying."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="poisonwatch-test-")
        self.server = Server(Path(self.folder.name))
        self.agent = Agent(self.server.path)

    def teardown(self) -> None:
        """Let go of the files."""
        self.agent.source.close()
        self.folder.cleanup()

    @rule(fills=st.lists(st.integers(0, 900), min_size=1, max_size=6))
    def write(self, fills: list[int]) -> None:
        """Whole lines."""
        self.server.write(fills)

    @rule(fill=st.integers(0, 900), share=st.floats(0, 1))
    def begin_line(self, fill: int, share: float) -> None:
        """A part of a line."""
        self.server.finish_line()
        self.server.begin_line(fill, share)

    @rule(created=st.booleans(), cut=st.booleans(), dated=st.booleans())
    def rename(self, *, created: bool, cut: bool, dated: bool) -> None:
        """Rotation by renaming; the server may have died within a line."""
        if cut:
            self.server.cut_line()
        self.server.finish_line()
        if dated:
            self.server.by_date()
        elif created:
            self.server.rename_and_create()
        else:
            self.server.rename()

    @rule(appending=st.booleans(), looks=st.integers(0, 2))
    def copy_and_truncate(self, *, appending: bool, looks: int) -> None:
        """Rotation by copying, with looks between the copy and the truncation."""

        def between() -> None:
            for _ in range(looks):
                self.agent.poll()

        self.server.copy_and_truncate(between, appending=appending)

    @rule(zstd=st.booleans(), whole=st.booleans())
    def compress(self, *, zstd: bool, whole: bool) -> None:
        """The oldest file that is not compressed is."""
        self.server.compress(zstd=zstd, whole=whole)

    @rule()
    def backup(self) -> None:
        """A copy is put aside where rotated files are; the agent sees it before the original is compressed."""
        self.server.backup("log.old")
        self.agent.drain()
        self.agent.save()

    @rule()
    def rewrite(self) -> None:
        """The log is replaced by a copy of itself."""
        self.server.rewrite()

    @rule()
    def remove_oldest(self) -> None:
        """Old files go, once they were read and that was saved."""
        self.agent.drain()
        self.agent.save()
        self.server.remove_oldest()

    @rule()
    def poll(self) -> None:
        """The agent looks once."""
        self.agent.poll()

    @rule()
    def save(self) -> None:
        """The agent writes a checkpoint."""
        self.agent.save()

    @rule()
    def crash(self) -> None:
        """The agent is killed."""
        self.agent.crash()

    @invariant()
    def in_order(self) -> None:
        """Nothing is given that was not written, nor twice, nor out of order."""
        assert b"".join(self.server.written).startswith(self.agent.given)

    @rule()
    def everything(self) -> None:
        """After catching up, everything was given."""
        self.agent.drain()
        assert self.agent.given == after(self.server)
        lag = self.agent.source.lag()
        assert (lag > 0) is bool(self.server.unfinished)


TestRotated = Rotated.TestCase
TestRotated.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def deeds(server: Server, agent: Agent, chance: random.Random) -> Iterator[Any]:
    """What happens, at random."""

    def rename() -> None:
        if chance.random() < 0.3:
            server.cut_line()
        server.finish_line()
        chance.choice([server.rename, server.rename_and_create, server.by_date])()

    def truncate() -> None:
        looks = chance.choice([0, 0, 1, 3])
        server.copy_and_truncate(lambda: agent.look(looks), appending=chance.random() < 0.6)

    def begin() -> None:
        server.finish_line()
        server.begin_line(chance.randrange(900), chance.random())

    def remove() -> None:
        agent.drain()
        agent.save()
        server.remove_oldest()

    def backup() -> None:
        server.backup("log.old")
        agent.drain()
        agent.save()

    usual = [
        lambda: server.write([chance.randrange(900) for _ in range(chance.randrange(1, 30))]),
        begin,
        agent.poll,
        agent.poll,
    ]
    seldom = [
        rename,
        truncate,
        lambda: server.compress(zstd=chance.random() < 0.4, whole=chance.random() < 0.8),
        backup,
        server.rewrite,
        remove,
        agent.save,
        agent.crash,
        agent.crash,
    ]
    while True:
        yield chance.choice(usual if chance.random() < 0.6 else seldom)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_under_rotation(tmp_path: Path, seed: int) -> None:
    """The reader is killed forty times a seed under every kind of rotation: the lines are those written, in their order."""
    chance = random.Random(seed)
    server, agent = Server(tmp_path), Agent(tmp_path / "log")
    happening = deeds(server, agent, chance)
    while agent.crashes < 40:
        next(happening)()
        assert b"".join(server.written).startswith(agent.given)
    server.finish_line()
    agent.drain()
    assert agent.given == b"".join(server.written)
    assert agent.source.lag() == 0
    agent.source.close()
