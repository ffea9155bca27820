"""JSON lines of any shape: the configuration says where in them the fields of a native record are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from poisonwatch.formats.instants import instant, zone_of
from poisonwatch.formats.loading import objects
from poisonwatch.formats.records import IDENTITIES, PASSED, READ

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft
    from poisonwatch.formats.pairing import Pairing

FEATURES = "features"
NATIVE = (*READ, *PASSED, "attributes")
"""Fields of a native record or label."""

SAME = (IDENTITIES, ("probabilities", "scores"))
"""Fields that say the same: where one is mapped, the others mean something else in this log."""

_PATH = re.compile(r"(?:[^.\\]|\\.)+(?:\.(?:[^.\\]|\\.)+)*", re.DOTALL)
_STEP = re.compile(r"(?:[^.\\]|\\.)+", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class Step(NamedTuple):
    """One part of a path: the key of an object, or the place in a list (-1 where the key is no number)."""

    key: str
    place: int


def path_of(text: str) -> tuple[Step, ...]:
    r"""The steps of a dotted path; `\\.` is a dot that belongs to a key.

    Raises:
        ValueError: when a step is empty, or nothing follows a backslash.
    """
    if not _PATH.fullmatch(text):
        msg = f"{text!r} is no dotted path"
        raise ValueError(msg)
    keys = [re.sub(r"\\(.)", r"\1", step, flags=re.DOTALL) for step in _STEP.findall(text)]
    return tuple(Step(key, int(key) if _INDEX.fullmatch(key) else -1) for key in keys)


def value_at(value: Any, path: tuple[Step, ...]) -> Any:
    """What stands at the end of a path; None where it ends early."""
    for key, place in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and 0 <= place < len(value):
            value = value[place]
        else:
            return None
    return value


class Mapped:
    """Reads objects of any shape as predictions, or as labels when it is `feedback`.

    `fields` has the dotted path of each native field that stands elsewhere than in a native record; a field
    `features.NAME` is one feature. The others keep their native place, unless a path begins there. Timestamps may be in
    local time of `timezone`, or Unix times in other units than seconds.
    """

    pairing: Pairing | None = None

    def __init__(
        self,
        fields: Mapping[str, str],
        timezone: str,
        most_bytes: int,
        *,
        model: str | None = None,
        model_version: str | None = None,
        feedback: bool = False,
    ) -> None:
        self._most = most_bytes
        paths = {field: path_of(text) for field, text in fields.items()}
        self._zone = zone_of(timezone)
        self._single = [(f.removeprefix(f"{FEATURES}."), p) for f, p in paths.items() if f.startswith(f"{FEATURES}.")]
        self._whole = [(f, p) for f, p in paths.items() if not f.startswith(f"{FEATURES}.")]
        taken = {field for field, _ in self._whole} | {path[0].key for path in paths.values()} - {FEATURES}
        taken |= {name for same in SAME if any(name in paths for name in same) for name in same}
        self._kept = [name for name in NATIVE if name not in taken]
        self._model, self._version, self._feedback = model, model_version, feedback

    def read(self, event: Event, draft: Draft) -> None:
        """Add the records, or labels, of an event to the draft; what is no object is counted."""
        found = draft.labels if self._feedback else draft.records
        for loaded in objects(event, self._most, draft):
            found.append(self._record(loaded, draft))

    def _record(self, loaded: dict[str, Any], draft: Draft) -> dict[str, Any]:
        record = {name: loaded[name] for name in self._kept if name in loaded}
        for field, path in self._whole:
            value = value_at(loaded, path)
            if value is not None:
                record[field] = value
        if self._single:
            record[FEATURES] = self._features(loaded, record.get(FEATURES), draft)
        if "timestamp" in record:
            record["timestamp"] = instant(record["timestamp"], self._zone)
        if self._model is not None:
            record["model"] = self._model
        if self._version is not None and record.get("model_version") is None:
            record["model_version"] = self._version
        return record

    def _features(self, loaded: dict[str, Any], together: object, draft: Draft) -> dict[str, Any]:
        """Features that have paths of their own, with those of the object that holds the others."""
        if together is not None and not isinstance(together, dict):
            draft.faults["features_wrong_type"] += 1
            together = None
        features = dict(together or {})
        for name, path in self._single:
            value = value_at(loaded, path)
            if value is not None:
                features[name] = value
        return features
