"""What the agent asked comes back in the log that it reads: its own questions are left out of what is judged.

They are known by their content, not by an id or a mark on the request, which anybody could write on a request of his own to hide it.
Nobody else knows which verified inputs are asked, nor when.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.mining.duplicates import value_hashes
from poisonwatch.profile.enrich import feature_numbers
from poisonwatch.profile.indicators import OUTCOME, code_rows
from poisonwatch.profile.pieces import left_out
from poisonwatch.profile.words import fingerprints, mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.types import Batch, Question, Schema, Words

SECONDS = 3600.0
"""How long after it was asked a question may still appear in the log."""

MOST = 8192
"""Questions that are waited for; of more the oldest are forgotten."""

TIMES = 4
"""How often one question may appear: it is asked again when the endpoint fails."""

_LONGEST = 1 << 24


class Echoes:
    """The questions asked of one model that may still appear in its log."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._decoder = JsonlPredictions({schema.model or "": schema}, _LONGEST, timed=False)
        self._waiting: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self.met = 0

    def asked(self, now: float, questions: Sequence[Question]) -> None:
        """Expect questions in the log from `now` on."""
        any_class = self._schema.outcome.values[0]
        lines = [
            msgspec.json.encode(
                {"prediction": any_class} | {name: value for name, value in q._asdict().items() if value is not None}
            )
            for q in questions
        ]
        for batch in self._decoder.decode(b"\n".join(lines) + b"\n").batches:
            for print_ in self._prints(batch).tolist():
                self._waiting[print_] = now, TIMES
                self._waiting.move_to_end(print_)
        while len(self._waiting) > MOST:
            self._waiting.popitem(last=False)

    def without(self, now: float, batch: Batch) -> Batch:
        """A batch of the log without what was asked."""
        while self._waiting and next(iter(self._waiting.values()))[0] < now - SECONDS:
            self._waiting.popitem(last=False)
        if not self._waiting or not batch.time.size:
            return batch
        keep = np.ones(batch.time.size, np.bool_)
        prints = self._prints(batch)
        for place in np.flatnonzero(
            np.isin(prints, np.fromiter(self._waiting, np.uint64, len(self._waiting)))
        ).tolist():
            found = int(prints[place])
            if found in self._waiting:
                since, times = self._waiting[found]
                keep[place] = False
                self.met += 1
                if times > 1:
                    self._waiting[found] = since, times - 1
                else:
                    del self._waiting[found]
        return batch if keep.all() else left_out(batch, keep)

    def _prints(self, batch: Batch) -> Words:
        """A hash (n,) of the inputs of each prediction."""
        codes = [row for row, column in enumerate(code_rows(self._schema)) if column.name != OUTCOME]
        numbers = batch.numbers[feature_numbers(self._schema)]
        total = value_hashes(numbers, batch.codes[codes], batch.embeddings, np.uint64(0))
        for texts in batch.texts:
            total = mix(total + fingerprints(texts.tolist()))
        return total
