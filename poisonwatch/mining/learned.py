"""What the miner takes from a reference. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.mining.commonness import CommonFile, Commonness
from poisonwatch.mining.conjunctions import Conjunctions
from poisonwatch.mining.elevated import Elevated, ElevatedFile, learn_elevated
from poisonwatch.mining.items import Items, ItemsFile
from poisonwatch.mining.miner import Miner
from poisonwatch.mining.phrases import Phrases
from poisonwatch.profile.indicators import text_rows
from poisonwatch.types import Phrase, Values

if TYPE_CHECKING:
    from poisonwatch.mining.miner import MiningSettings
    from poisonwatch.mining.records import Engine, Records
    from poisonwatch.types import Floats, Pattern, Schema


class MiningFile(msgspec.Struct, frozen=True, kw_only=True):
    """`Mining` as it is kept in a file; `rates` has, by predicted class, those of surprising and of flipped predictions."""

    rates: list[tuple[float, float]]
    elevated: ElevatedFile | None
    common: CommonFile | None
    items: ItemsFile | None


@dataclass(frozen=True, slots=True)
class Mining:
    """How often the reference's own predictions are odd, out of fold.

    `rates` (2, classes) are shares of surprising and of flipped ones by predicted class; `elevated` has the words that are odd by
    themselves and `common` how often benign texts bear them, where there are texts; `items` the columns that conjunctions are made of, where there is anything else.
    """

    rates: Floats
    elevated: Elevated | None
    common: Commonness | None
    items: Items | None

    @classmethod
    def learn(cls, schema: Schema, cuts: dict[str, tuple[float, ...]], sample: Records) -> Self:
        """Learn from a sample of the reference whose records say whether they are surprising or flipped."""
        classes = len(schema.outcome.values)
        known = sample.label >= 0
        many = np.bincount(sample.label[known], minlength=classes)
        odd = [np.bincount(sample.label[known], hit[known], classes) for hit in (sample.surprising, sample.flipped)]
        # Half a hit more: a class without any has a rate all the same.
        rates = (np.stack(odd) + 0.5) / (many + 1.0)
        rates = np.where(many > 0, rates, rates[:, many > 0].max(axis=1, keepdims=True, initial=0.0))
        items = Items.learn(schema, cuts, sample)
        return cls(
            rates.round(9),
            learn_elevated(sample.words, sample.label, sample.surprising, sample.flipped)
            if text_rows(schema)
            else None,
            Commonness.learn(sample.words, sample.label.size) if text_rows(schema) else None,
            items if items.width else None,
        )

    def miner(self, model: str, schema: Schema, settings: MiningSettings) -> Miner:
        """A miner that has seen nothing yet."""
        engines: list[Engine] = []
        # What senders do not know: the reference.
        content = hashlib.sha256(msgspec.msgpack.encode(self.file())).digest()
        salt = int.from_bytes(content[:8], "little")
        if self.elevated is not None:
            engines.append(Phrases(self.elevated, salt))
        if self.items is not None:
            engines.append(Conjunctions(self.items))
        return Miner(model, schema, self.rates, engines, settings, salt, self._usual)

    def _usual(self, pattern: Pattern) -> float:
        """Upper bound of the share of benign predictions that bear a pattern; 0 where that is not known."""
        if isinstance(pattern, Phrase) and self.common is not None:
            return self.common.share_of(pattern)
        return self.items.share_of(pattern) if self.items is not None and isinstance(pattern, Values) else 0.0

    def file(self) -> MiningFile:
        """What is kept in a file."""
        return MiningFile(
            rates=[(float(surprising), float(flipped)) for surprising, flipped in self.rates.T],
            elevated=None if self.elevated is None else self.elevated.file(),
            common=None if self.common is None else self.common.file(),
            items=None if self.items is None else self.items.file(),
        )

    @classmethod
    def read(cls, file: MiningFile, schema: Schema, cuts: dict[str, tuple[float, ...]]) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when its parts do not fit together, or not to the schema.
        """
        rates = np.array(file.rates, np.float64).reshape(-1, 2).T
        if rates.shape[1] != len(schema.outcome.values) or not ((rates >= 0) & (rates <= 1)).all():
            msg = "mining: rates of other classes"
            raise ValueError(msg)
        return cls(
            rates,
            None if file.elevated is None else Elevated.read(file.elevated),
            None if file.common is None else Commonness.read(file.common),
            None if file.items is None else Items.read(file.items, schema, cuts),
        )
