"""The journal: an append-only file of what was found and decided, chained by hashes so that nothing can be taken out.

Every line is a JSON object with `seq` (from 1), `prev` (the hash of the line before, 64 zeros at first), `hash` (SHA-256 of the
line's own JSON without `hash`), `time` (event time, RFC 3339 UTC), `kind`, `model`, `model_version`, and what the
kind has beside. After a crash the agent reads its input again from the last checkpoint; what it would then say a
second time, word for word, is not written a second time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.errors import JournalError, StateError
from poisonwatch.mining.naming import in_a_sentence
from poisonwatch.sinks.lock import hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from poisonwatch.types import Accusation, Alert, Decision, Trigger

FIRST = "0" * 64

FINDINGS = ("alert", "accusation", "trigger", "decision")
"""Kinds of entries that follow from the input alone, and so would be said again when it is read again."""


def rfc3339(time: float) -> str:
    """Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def alert_entry(alert: Alert) -> dict[str, Any]:
    """What the journal says of an alert that changed."""
    told = msgspec.to_builtins(alert)
    told["onset"] = rfc3339(alert.onset)
    return {"kind": "alert", **_rounded(told)}


def decision_entry(decision: Decision) -> dict[str, Any]:
    """What the journal says of a decision that changed."""
    return {"kind": "decision", **msgspec.to_builtins(decision)}


def accusation_entry(model: str, accusation: Accusation) -> dict[str, Any]:
    """What the journal says of a source whose labels must not reach retraining."""
    told = msgspec.to_builtins(accusation)
    for name in ("onset", "first", "last"):
        told[name] = rfc3339(told[name])
    return {"kind": "accusation", "model": model, "accused": told.pop("kind"), **_rounded(told)}


def trigger_entry(trigger: Trigger) -> dict[str, Any]:
    """What the journal says of a trigger that changed.

    The pattern is a tagged object, in full and to the last bit: records are looked for by it. An end of an interval that is open is null.
    """
    told = _finite(msgspec.to_builtins(trigger))
    for name in ("first_seen", "last_seen"):
        told[name] = rfc3339(told[name])
    summary = in_a_sentence(trigger, trigger.model_version)
    return {"kind": "trigger", **_rounded(told), "pattern": told["pattern"], "summary": summary}


def _finite(told: Any) -> Any:
    """Numbers that JSON has; None stands for those that it has not."""
    if isinstance(told, float):
        return told if math.isfinite(told) else None
    if isinstance(told, dict):
        return {key: _finite(value) for key, value in told.items()}
    return [_finite(value) for value in told] if isinstance(told, list | tuple) else told


def _rounded(told: Any) -> Any:
    """Numbers as people read them: the journal states findings, the checkpoint keeps the bits."""
    if isinstance(told, float):
        return round(told, 6)
    if isinstance(told, dict):
        return {key: value if key == "time" else _rounded(value) for key, value in told.items()}
    return [_rounded(value) for value in told] if isinstance(told, list | tuple) else told


class Journal:
    """Appends entries to a file, or only chains them when there is no path (a replay without `--journal`).

    One process at a time. A file that does not hold is set aside and a new one begun: what somebody did to an audit file
    must not end detection. `set_aside` is then the entry that the new one has to begin with.

    Raises:
        StateError: when another process writes to the file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seq, self._prev = 0, FIRST
        self._told: deque[dict[str, Any]] = deque()
        self._file: BinaryIO | None = None
        self.set_aside: dict[str, Any] | None = None
        if path is not None:
            self._file = _open(path)
            try:
                self._continue(path)
            except JournalError as error:
                self._begin_anew(path, str(error))

    def append(self, time: float, entry: dict[str, Any]) -> None:
        """Write one entry of event time `time`; it is on disk when this returns."""
        content = {"model": None, "model_version": None, **entry, "time": rfc3339(time)}
        if self._told and content["kind"] in FINDINGS:
            if self._told[0] == json.loads(_canonical(content)):
                self._told.popleft()
                return
            self._told.clear()
        self._seq += 1
        line = {"seq": self._seq, "prev": self._prev, **content}
        self._prev = _hash(line)
        line["hash"] = self._prev
        if self._file is not None:
            self._file.write(_canonical(line) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def position(self) -> tuple[int, str]:
        """Number and hash of the last entry; without a file there is none to come back to."""
        return (self._seq, self._prev) if self._path is not None else (0, FIRST)

    def resume(self, seq: int, last: str) -> None:
        """State was restored as it stood after entry `seq`, of hash `last`: later entries will be said again.

        A journal without that entry is not the one that was written.
        """
        if self._path is None or self.set_aside is not None:
            return
        if self._seq < seq:
            cut = f"entries were cut off its end, it has {self._seq} and the checkpoint knows {seq}"
            problem = cut if self._seq else "the journal was removed or emptied"
            self._begin_anew(self._path, f"{self._path}: {problem}")
            return
        found = FIRST
        for line in read(self._path):
            if line["seq"] == seq:
                found = line["hash"]
            elif line["seq"] > seq and line["kind"] in FINDINGS:
                self._told.append(_content(line))
        if found != last:
            problem = f"entry {seq} is not the one that the checkpoint knows: the journal was written anew"
            self._begin_anew(self._path, f"{self._path}: {problem}")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _continue(self, path: Path) -> None:
        """Go on after the last line; one that a crash left incomplete is cut off."""
        with path.open("rb+") as file:
            whole = file.read()
            complete = whole.rfind(b"\n") + 1
            if complete != len(whole):
                file.truncate(complete)
        last = deque(read(path), maxlen=1)
        if last:
            self._seq, self._prev = last[0]["seq"], last[0]["hash"]

    def _begin_anew(self, path: Path, problem: str) -> None:
        """Keep the file that does not hold under another name, and begin the next."""
        aside: str | None = None
        bad = self._file
        if path.stat().st_size:
            numbered = (path.with_name(f"{path.name}.broken-{number}") for number in count(1))
            aside = path.rename(next(name for name in numbered if not name.exists())).name
            self._file = _open(path)
            if bad is not None:
                bad.close()
        self._seq, self._prev = 0, FIRST
        self._told.clear()
        self.set_aside = {"kind": "journal_set_aside", "file": aside, "problem": problem}


def _open(path: Path) -> BinaryIO:
    """The file, locked, to append to."""
    file = path.open("ab")
    try:
        hold(file.fileno(), path)
    except StateError:
        file.close()
        raise
    return file


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of a journal, each checked against the chain.

    Raises:
        JournalError: names the first line that does not hold.
    """
    prev = FIRST
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            entry, own = _hashed(line)
            if own is None or entry.get("hash") != own or entry["seq"] != number or entry["prev"] != prev:
                msg = f"{path}: line {number} breaks the chain: it, or the line before it, was changed or removed"
                raise JournalError(msg)
            prev = own
            yield entry


def _hashed(line: bytes) -> tuple[dict[str, Any], str | None]:
    """The entry of a line, and the hash that it ought to carry; None where the line is no entry."""
    try:
        entry = json.loads(line)
        told = {key: value for key, value in entry.items() if key != "hash"}
        # Written in any other way (spaces, a key twice), it is not the line that was hashed.
        ours = _canonical(entry) == line.removesuffix(b"\n") and {"seq", "prev"} <= told.keys()
        return entry, _hash(told) if ours else None
    except (ValueError, AttributeError, RecursionError):
        return {}, None


def _content(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in {"seq", "prev", "hash"}}


def _canonical(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(entry)).hexdigest()
