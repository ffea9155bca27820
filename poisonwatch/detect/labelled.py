"""The newest labels and whose they were, in a ring: where groups are found, and which predictions are affected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints, Texts, Words


class Labelled:
    """A ring of `size` labels. `serials` are the parties of each, its source first, 0 where there is none."""

    MOST_IDS: ClassVar[int] = 1000

    def __init__(self, size: int) -> None:
        self.size = size
        self.added = 0
        self._time = np.zeros(0)
        self._item = np.zeros(0, np.uint64)
        self._predicted = np.zeros(0, np.int64)
        self._label = np.zeros(0, np.int64)
        self._serials: Ints = np.zeros((0, 0), np.int64)
        self._ids: list[str] = []

    def add(self, time: Floats, item: Words, predicted: Ints, label: Ints, serials: Ints, ids: Texts) -> None:
        """Take labels (m,) of parties (m, parties) in order."""
        if not time.size:
            return
        at = (self.added + np.arange(time.size)) % self.size
        self.added += time.size
        missing = min(self.added, self.size)
        if missing > self._time.size:
            room = min(self.size, max(2 * missing, 256))
            self._time = np.concatenate([self._time, np.zeros(room - self._time.size)])
            self._item = np.concatenate([self._item, np.zeros(room - self._item.size, np.uint64)])
            self._predicted = np.concatenate([self._predicted, np.zeros(room - self._predicted.size, np.int64)])
            self._label = np.concatenate([self._label, np.zeros(room - self._label.size, np.int64)])
            grown = np.zeros((room, serials.shape[1]), np.int64)
            grown[: self._serials.shape[0]] = self._serials.reshape(-1, serials.shape[1])
            self._serials = grown
            self._ids += [""] * (room - len(self._ids))
        self._time[at], self._item[at], self._predicted[at], self._label[at] = time, item, predicted, label
        self._serials[at] = serials
        for place, name in zip(at.tolist(), ids.tolist(), strict=True):
            self._ids[place] = name

    def _order(self) -> Ints:
        """Places of what is held, oldest first."""
        held = min(self.added, self.size)
        return np.arange(self.added - held, self.added) % self.size

    def newest(self, most: int) -> tuple[Floats, Words, Ints, Ints, Ints]:
        """Time, item, predicted and labelled class, and serial of the source, of the newest labels, oldest first."""
        at = self._order()[-most:]
        return self._time[at], self._item[at], self._predicted[at], self._label[at], self._serials[at, 0]

    def _places_of(self, serial: int) -> Ints:
        at = self._order()
        return at[(self._serials[at] == serial).any(axis=1)] if at.size else at

    def ids_of(self, serial: int) -> tuple[str, ...]:
        """The predictions that a party labelled, newest first, each once, at most 1,000."""
        names = dict.fromkeys(self._ids[place] for place in self._places_of(serial)[::-1].tolist())
        return tuple(names)[: self.MOST_IDS]

    def direction_of(self, serial: int, classes: int) -> tuple[int, int] | None:
        """The commonest (predicted, labelled) pair of a party."""
        at = self._places_of(serial)
        if not at.size:
            return None
        most = int(np.argmax(np.bincount(self._predicted[at] * classes + self._label[at])))
        return most // classes, most % classes

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        held = min(self.added, self.size)
        columns = (self._time, self._item, self._predicted, self._label, self._serials)
        return {"added": self.added, "columns": [c[:held].copy() for c in columns], "ids": self._ids[:held]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.added = int(state["added"])
        self._time, self._item, self._predicted, self._label, self._serials = (c.copy() for c in state["columns"])
        self._ids = list(state["ids"])
