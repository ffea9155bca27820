"""Redaction: who asked cannot be read, the same asker can be told again, and the finding stays whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from poisonwatch.errors import StateError
from poisonwatch.sinks.redaction import KEY_BYTES, key_of, redactor
from tests.triggers import trigger

if TYPE_CHECKING:
    from pathlib import Path


def test_names_are_hidden_and_nothing_else() -> None:
    """Sources keep their order and counts under twelve hex digits each; all but sources and examples is as it was."""
    told = trigger()
    hidden = redactor(b"k" * KEY_BYTES)(told)
    assert [count for _, count in hidden.sources] == [count for _, count in told.sources]
    names = [*(name for name, _ in hidden.sources), *hidden.examples]
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)
    assert len(set(names)) == 4
    assert msgspec.structs.replace(hidden, sources=told.sources, examples=told.examples) == told


def test_the_same_name_is_the_same_hash_under_one_key_only() -> None:
    """A source is known again under the same key; another key gives another hash, so that who has none cannot compare."""
    of = [redactor(key)(trigger()).sources for key in (b"a" * KEY_BYTES, b"a" * KEY_BYTES, b"b" * KEY_BYTES)]
    assert of[0] == of[1]
    assert not {name for name, _ in of[0]} & {name for name, _ in of[2]}


def test_the_key_is_kept_beside_the_journal_for_its_owner_alone(tmp_path: Path) -> None:
    """It outlives a restart, nobody else may read it, and without a journal every run has its own."""
    journal = tmp_path / "journal"
    key = key_of(journal)
    assert key_of(journal) == key
    assert len(key) == KEY_BYTES
    beside = tmp_path / "journal.key"
    assert beside.stat().st_mode & 0o777 == 0o600
    assert key_of(tmp_path / "other") != key
    assert key_of(None) != key_of(None)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    """A file that was cut off is told with its remedy, never used as a short key."""
    (tmp_path / "journal.key").write_bytes(b"short")
    with pytest.raises(StateError, match=r"journal\.key: this is no key of 32 bytes: remove it"):
        key_of(tmp_path / "journal")
