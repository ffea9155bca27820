"""The decoders of a source's blocks: native ones and foreign ones, all to the same columns."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from poisonwatch.formats.foreign import Draft
from poisonwatch.formats.jsonl import MOST_SAMPLES, JsonlPredictions
from poisonwatch.formats.native import opened_lines
from poisonwatch.formats.records import LATEST
from poisonwatch.types import Decoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.events import Block
    from poisonwatch.formats.foreign import Translated, Translator
    from poisonwatch.formats.jsonl import JsonlFeedback


class Native:
    """Decodes native lines, and what was posted with them in it. A body takes at most `most_bytes` when it is unpacked."""

    waiting = 0

    def __init__(self, lines: JsonlPredictions | JsonlFeedback, most_bytes: int) -> None:
        self._lines = lines
        self._most = most_bytes

    def decode(self, block: Block, latest: float = LATEST) -> Decoded:
        """Columns of a block. Records with a timestamp after `latest` are rejected."""
        if not block.framed:
            return self._lines.decode(block.data, latest)
        draft = Draft()
        decoded = self._lines.decode(opened_lines(block, self._most, draft), latest)
        return _with_lost(decoded, draft, self._lines if isinstance(self._lines, JsonlPredictions) else None)

    def flush(self) -> Decoded:
        """Nothing waits here."""
        return Decoded()

    def state(self) -> None:
        """Nothing has to survive a restart."""

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Nothing was saved."""


class Foreign:
    """Decodes blocks of a foreign log: translation, then the native decoders."""

    def __init__(self, translator: Translator, predictions: JsonlPredictions, labels: JsonlFeedback) -> None:
        self._translator = translator
        self._predictions = predictions
        self._labels = labels

    @property
    def waiting(self) -> int:
        """Halves of predictions that wait for the other."""
        return self._translator.waiting

    def decode(self, block: Block, latest: float = LATEST) -> Decoded:
        """Columns of a block. Records with a timestamp after `latest` are rejected."""
        return self._decoded(self._translator.translate(block), latest)

    def flush(self) -> Decoded:
        """What is left when the log has ended."""
        return self._decoded(self._translator.flush(), LATEST)

    def state(self) -> dict[str, Any] | None:
        """Everything that must survive a restart."""
        return self._translator.state()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take up a saved state."""
        self._translator.restore(state)

    def _decoded(self, told: Translated, latest: float) -> Decoded:
        decoded = self._predictions.decode(told.records, latest)
        labels = self._labels.decode(told.labels, latest) if told.labels else Decoded()
        both = dataclasses.replace(
            decoded,
            lines=decoded.lines + labels.lines,
            labels=labels.labels,
            feedback=labels.feedback,
            rejected=_sum(decoded.rejected, labels.rejected),
            samples=(*decoded.samples, *labels.samples),
        )
        return _with_lost(both, told.lost, self._predictions)


def _with_lost(decoded: Decoded, lost: Draft, predictions: JsonlPredictions | None) -> Decoded:
    """What was decoded, with what was lost on the way to it. Lost labels are no model's."""
    count = lost.rejected.total()
    return dataclasses.replace(
        decoded,
        lines=decoded.lines + count,
        batches=decoded.batches if predictions is None else tuple(predictions.with_lost(decoded.batches, count)),
        rejected=_sum(decoded.rejected, lost.rejected),
        faults=_sum(decoded.faults, lost.faults),
        samples=(*lost.samples, *decoded.samples)[:MOST_SAMPLES],
    )


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second)) if second else dict(first)
