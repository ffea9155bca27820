"""Dead letters: a few rejected lines are kept while the disk takes them; it never stops anything when it does not."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING

import pytest

from poisonwatch.errors import StateError
from poisonwatch.sinks.deadletter import MOST_BYTES, DeadLetters

if TYPE_CHECKING:
    from pathlib import Path


def kept(path: Path) -> list[str]:
    """The reasons of all samples that can be read."""
    return [
        json.loads(line)["reason"]
        for line in path.read_bytes().splitlines()
        if line.startswith(b"{") and line.endswith(b"}")
    ]


def test_full_disk(tmp_path: Path) -> None:
    """What the disk refuses is lost and counted; a torn line does not spoil the next."""
    path = tmp_path / "dead"
    letters = DeadLetters(path)
    letters.write("s", [("a", b"\xff{")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        letters.write("s", [("b", b"x"), ("b", b"y")])
        letters.write("s", [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert letters.lost == 2
    letters.write("s", [("c", b"z")])
    letters.write("s", [("d", b"z")])
    assert kept(path) == ["a", "c", "d"]
    assert letters.lost == 2


def test_folder_gone_and_back(tmp_path: Path) -> None:
    """A folder that is taken away costs samples, no more; when it is back they are kept again."""
    path = tmp_path / "folder" / "dead"
    path.parent.mkdir()
    letters = DeadLetters(path)
    path.unlink()
    path.parent.rmdir()
    letters.write("s", [("a", b"x")])
    path.parent.mkdir()
    letters.write("s", [("b", b"x")])
    assert (letters.lost, kept(path)) == (1, ["b"])


def test_bounded(tmp_path: Path) -> None:
    """The file is put aside once when it is large, and begun anew."""
    path = tmp_path / "dead"
    letters = DeadLetters(path)
    for _ in range(5):
        letters.write("s", [("a", b"x" * (MOST_BYTES // 2))])
    sizes = [(tmp_path / name).stat().st_size for name in ("dead", "dead.1")]
    assert MOST_BYTES // 2 < sizes[0] < MOST_BYTES < sizes[1] < MOST_BYTES * 1.6


def test_cannot_be_opened(tmp_path: Path) -> None:
    """A path that can never be written is an error at the start."""
    with pytest.raises(
        StateError, match=r"cannot be written .*: make it writable, or choose another `state.dead_letter`"
    ):
        DeadLetters(tmp_path)
