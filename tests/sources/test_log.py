"""Finite logs: whole lines, however the file is packed, and no end that comes too early without a word."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import zstandard

from poisonwatch.errors import LogError
from poisonwatch.sources.log import READ_SIZE, blocks, open_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINES = b"".join(b'{"line":%d,"filler":"%s"}\n' % (n, b"x" * (n % 300)) for n in range(20_000))
PACK: dict[str, Callable[[bytes], bytes]] = {
    "log.jsonl": bytes,
    "log.jsonl.gz": gzip.compress,
    "log.jsonl.zst": zstandard.compress,
}


@pytest.mark.parametrize("name", PACK)
def test_all_lines_come_whole_and_once(tmp_path: Path, name: str) -> None:
    """In blocks of about a megabyte; the progress adds up to the bytes of the file."""
    path = tmp_path / name
    path.write_bytes(PACK[name](LINES))
    told: list[int] = []
    found = list(blocks(path, 1 << 20, told.append))
    assert b"".join(found) == LINES
    assert len(found) > 2
    assert all(block.endswith(b"\n") and len(block) < READ_SIZE + 400 for block in found)
    assert sum(told) == path.stat().st_size


@pytest.mark.parametrize("name", PACK)
def test_packed_one_after_another_it_is_one_log(tmp_path: Path, name: str) -> None:
    """As a rotation that appends leaves it; a last line needs no newline."""
    path = tmp_path / name
    path.write_bytes(PACK[name](b"a\nb\n") + PACK[name](b"c\n") + PACK[name](b"") + PACK[name](b"d"))
    assert b"".join(blocks(path, 100)) == b"a\nb\nc\nd\n"


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
@pytest.mark.parametrize("harm", [lambda data: data[:-5], lambda data: data[: len(data) // 2], lambda _: b"{}\n"])
def test_what_was_cut_off_or_is_something_else_says_so(
    tmp_path: Path, name: str, harm: Callable[[bytes], bytes]
) -> None:
    """Rather than to end early, as if that were all."""
    path = tmp_path / name
    path.write_bytes(harm(PACK[name](LINES)))
    with pytest.raises(LogError, match="cannot be read"):
        list(blocks(path, 1 << 20))


def test_a_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    """Of every kind."""
    for name in (*PACK, "log.csv"):
        with pytest.raises(LogError, match="cannot be read"):
            list(blocks(tmp_path / name, 100))


def test_of_a_line_without_end_only_the_beginning_is_kept(tmp_path: Path) -> None:
    """However much it would unpack to."""
    path = tmp_path / "log.jsonl.zst"
    path.write_bytes(zstandard.compress(b"x" * (40 * READ_SIZE) + b"\nlast\n"))
    found = b"".join(blocks(path, 1000))
    assert len(found) < READ_SIZE + 2000
    assert found.endswith(b"x\nlast\n")


def test_a_packed_log_can_be_opened_to_look_at_its_start(tmp_path: Path) -> None:
    """Whatever it is packed with."""
    for name, pack in PACK.items():
        (tmp_path / name).write_bytes(pack(LINES))
        with open_log(tmp_path / name) as file:
            assert file.read(64) == LINES[:64]
