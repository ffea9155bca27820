"""The journal: an append-only file of what was found and decided, chained by hashes so that nothing can be taken out.

Every line is a JSON object with `seq` (from 1), `prev` (the hash of the line before, 64 zeros at first), `hash` (SHA-256 of the
line's own JSON without `hash`), `time` (event time, RFC 3339 UTC), `kind`, `model`, `model_version`, and what the
kind has beside. After a crash the agent reads its input again from the last checkpoint; what it would then say a
second time, word for word, is not written a second time.

While the disk refuses, entries wait in memory and in the checkpoint, and are written in their order as soon as it takes
them: a full disk ends neither the agent nor the chain.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.errors import JournalError, StateError
from poisonwatch.mining.naming import in_a_sentence
from poisonwatch.sinks.lock import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

    from poisonwatch.judge.aftermath import Rollback
    from poisonwatch.judge.override import Override
    from poisonwatch.judge.story import Story
    from poisonwatch.types import Accusation, Alert, Decision, Trigger

FIRST = "0" * 64

FINDINGS = ("alert", "accusation", "trigger", "decision", "rollback")
"""Kinds of entries that follow from the input alone, and so would be said again when it is read again."""

MOST_UNWRITTEN = 1024
"""Entries that wait while the disk refuses; of what comes beyond them an entry of kind `journal_gap` has the number."""

MOST_RECENT = 256
"""Entries at the end of the file that are kept at hand."""

AT_ONCE = 32
"""Entries that go to disk together when several wait."""


def rfc3339(time: float) -> str:
    """Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def alert_entry(alert: Alert) -> dict[str, Any]:
    """What the journal says of an alert that changed."""
    told = msgspec.to_builtins(alert)
    told["onset"] = rfc3339(alert.onset)
    return {"kind": "alert", **_rounded(told)}


def decision_entry(decision: Decision, story: Story) -> dict[str, Any]:
    """What the journal says of a decision that changed, and what stood behind it then."""
    told = _rounded(msgspec.to_builtins(story))
    told["onset"] = None if story.onset is None else rfc3339(story.onset)
    return {"kind": "decision", **msgspec.to_builtins(decision), "story": told}


def rollback_entry(rollback: Rollback) -> dict[str, Any]:
    """What the journal says of how far a rollback has come."""
    return {
        "kind": "rollback",
        "model": rollback.model,
        "model_version": rollback.model_version,
        "target": rollback.target,
        "receiver": rollback.receiver,
        "state": rollback.state.value,
        "decided": rfc3339(rollback.decided),
        "traffic": round(rollback.traffic, 6),
        "summary": rollback.summary,
    }


def override_entry(override: Override) -> dict[str, Any]:
    """What the journal says of what a person decided."""
    told = msgspec.to_builtins(override)
    del told["time"]
    return {"kind": "override", **told, "expires": rfc3339(override.expires)}


def override_ended_entry(override: Override, because: str, author: str = "", reason: str = "") -> dict[str, Any]:
    """What the journal says when a person's decision ends: it `expired`, was `withdrawn` by `author`, or its version is `gone`."""
    return {
        "kind": "override_ended",
        "model": override.model,
        "model_version": override.model_version,
        "decision": override.decision.value,
        "because": because,
        "author": author,
        "reason": reason,
    }


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
    """Appends entries to a file; without a path (a replay without `--journal`) there is none, and nothing to do.

    One process at a time. A file that does not hold is set aside and a new one begun: what somebody did to an audit file
    must not end detection. `set_aside` is then the entry that the new one has to begin with. `failures` counts the
    writes that the disk refused, `unwritten` the entries that wait for it, `recent` has the last ones of the file.

    Raises:
        StateError: when another process writes to the file, or it cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seq, self._prev = 0, FIRST
        self._told: deque[dict[str, Any]] = deque()
        self._waiting: deque[dict[str, Any]] = deque()
        self._torn = -1  # where the file has to end, when half an entry may stand there
        self._file: FileIO | None = None
        self.failures = 0
        self.recent: deque[dict[str, Any]] = deque(maxlen=MOST_RECENT)
        self.set_aside: dict[str, Any] | None = None
        if path is None:
            return
        try:
            self._file = _open(path)
            try:
                self._continue(path)
            except JournalError as error:
                self._begin_anew(path, str(error))
        except OSError as error:
            self.close()
            msg = f"{path}: the journal cannot be written ({error.strerror}): make it writable, or choose another `state.journal`"
            raise StateError(msg) from None

    def append(self, time: float, entry: dict[str, Any]) -> None:
        """Write one entry of event time `time`; it is on disk when this returns, or it waits for the disk."""
        if self._path is None:
            return
        content = {"model": None, "model_version": None, **entry, "time": rfc3339(time)}
        if self._told and content["kind"] in FINDINGS:
            if self._told[0] == json.loads(_canonical(content)):
                self._told.popleft()
                return
            self._told.clear()
        if content["kind"] == "journal_set_aside":
            self._waiting.appendleft(content)  # what waits is written to the new file, which begins with this
        elif len(self._waiting) < MOST_UNWRITTEN:
            self._waiting.append(content)
        elif self._waiting[-1]["kind"] == "journal_gap":
            self._waiting[-1]["entries"] += 1
        else:
            self._waiting.append({**content, "kind": "journal_gap", "entries": 1})
        self.write()

    def write(self) -> bool:
        """Write what waits, in its order; False while the disk refuses."""
        while self._waiting and self._file is not None:
            seq, prev = self._seq, self._prev
            lines = []
            for content in islice(self._waiting, AT_ONCE):
                line = {"seq": seq + 1, "prev": prev, **content}
                seq, prev = seq + 1, _hash(line)
                line["hash"] = prev
                lines.append(line)
            try:
                self._put(self._file, b"".join(_canonical(line) + b"\n" for line in lines))
            except OSError:
                self.failures += 1
                return False
            self._seq, self._prev = seq, prev
            self.recent.extend(lines)
            for _ in lines:
                self._waiting.popleft()
        return True

    @property
    def unwritten(self) -> int:
        """Entries that wait for the disk."""
        return len(self._waiting)

    def position(self) -> tuple[int, str, list[dict[str, Any]]]:
        """Number and hash of the last entry that was written, and those that wait; without a file there are none."""
        return self._seq, self._prev, [dict(entry) for entry in self._waiting]

    def resume(self, seq: int, last: str, waiting: Sequence[dict[str, Any]] = ()) -> None:
        """State was restored as it stood after entry `seq`, of hash `last`, with others `waiting`: later ones will be said again.

        A journal without that entry is not the one that was written.
        """
        if self._path is None:
            return
        self._waiting.extend(waiting)
        if self.set_aside is not None:
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
            elif line["seq"] > seq:
                self._written_since(line)
        if found != last:
            problem = f"entry {seq} is not the one that the checkpoint knows: the journal was written anew"
            self._begin_anew(self._path, f"{self._path}: {problem}")

    def _written_since(self, line: dict[str, Any]) -> None:
        """An entry that was written after the checkpoint: one that waited then, or one that will be said again."""
        content = _content(line)
        if self._waiting and json.loads(_canonical(self._waiting[0])) == content:
            self._waiting.popleft()
        elif line["kind"] in FINDINGS:
            self._told.append(content)

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
        self.recent.extend(read(path))
        if self.recent:
            self._seq, self._prev = self.recent[-1]["seq"], self.recent[-1]["hash"]

    def _put(self, file: FileIO, lines: bytes) -> None:
        """Bring lines to the disk, all of them or none.

        Raises:
            OSError: when the disk refuses.
        """
        if self._torn >= 0:
            os.ftruncate(file.fileno(), self._torn)
            self._torn = -1
        end = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            self._torn = end
            with suppress(OSError):  # tried again before the next lines
                os.ftruncate(file.fileno(), end)
                self._torn = -1
            raise

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
        self.recent.clear()
        self.set_aside = {"kind": "journal_set_aside", "file": aside, "problem": problem}


def _open(path: Path) -> FileIO:
    """The file, locked, to append to. Unbuffered: what was not written must not be written later, behind other lines."""
    file = path.open("ab", buffering=0)
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
