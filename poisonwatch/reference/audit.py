"""The audit of a reference: is there a trigger in it already? For each group of records that share something, one question.

Would the model's answers to the group be expected from all other records? Of benign words and values they would: other records
bear witness. What a trigger does to an answer only the triggered records tell; leave them all out, and their answers are
overturned, nearly all from one class. Leaving them out singly shows nothing, for each has the others (leave-group-out audit).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poisonwatch.errors import BaselineError
from poisonwatch.mining.naming import in_words
from poisonwatch.profile.enrich import surrogate_inputs
from poisonwatch.profile.words import tokens
from poisonwatch.reference.audit_kernel import kernel
from poisonwatch.reference.audit_refit import Refit
from poisonwatch.reference.audit_values import MOST_FEATURES, values_at_fault
from poisonwatch.reference.audit_words import ADDED, words_at_fault
from poisonwatch.reference.fit_models import select
from poisonwatch.types import Values

if TYPE_CHECKING:
    from poisonwatch.types import Batch, Pattern, Schema

MOST_RECORDS = 2000
"""Records that are audited, evenly spread over the reference's: time grows with the cube."""

FEWEST_OF_CLASS = 20
"""Answers that are rarer are left out."""

FEWEST_FEATURES = 3
"""A group of values is suspect when nothing else explains its answers; of two features a pair leaves nothing else, and every honest rule is one."""

MOST_GROUPS = 20
"""Groups that are told, the worst first."""

SUSPECT = 0.5
NOTABLE = 0.35
"""Scores from which a group makes the reference suspect, and is worth a look.

Honest references reached 0.46 (cells of MNIST), 0.43 (covertype) and 0.42 (California housing), none of 55 the first threshold;
triggers in 2 % of the records reached 0.17 to 0.73, or were missed. See docs/detection.md.
"""


class AuditedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Of `records` that share a pattern (`text` in words), those that answered `label` and are `overturned` without the group.

    Near-duplicates count once. `single` is a single value of a table: it may decide by itself for good reasons (all of a protocol
    are attacks), so that it is told and never refused.
    """

    text: str
    records: int
    overturned: int
    label: str
    single: bool

    @property
    def score(self) -> float:
        """The share that is overturned, of the group and `ADDED` records more: in [0, 1)."""
        return self.overturned / (self.records + ADDED)

    def in_words(self) -> str:
        """For a person."""
        return (
            f"{self.text}: of {self.records} distinct records with it, {self.overturned} are answered {self.label!r} "
            f"for no other reason (score {self.score:.2f})"
        )


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Who accepts a suspect reference, and why."""

    author: str
    reason: str

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read `NAME: REASON`.

        Raises:
            ValueError: when it is not said so.
        """
        author, _, reason = (part.strip() for part in text.partition(":"))
        if not author or not reason or not text.isprintable():
            msg = "say who accepts it and why, like `Ada Lovelace: looked at the records, it is our newsletter`"
            raise ValueError(msg)
        return cls(author=author, reason=reason)


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit of `records` found: the worst groups, at most `MOST_GROUPS`, the worst first; who accepted what is suspect."""

    records: int
    groups: list[AuditedGroup]
    signed: Signature | None = None

    @property
    def suspects(self) -> list[AuditedGroup]:
        """Groups that must be explained before the reference is used."""
        return [group for group in self.groups if group.score >= SUSPECT and not group.single]

    @property
    def notable(self) -> list[AuditedGroup]:
        """Groups that are worth a look, and no more."""
        return [group for group in self.groups if group.score >= NOTABLE and (group.single or group.score < SUSPECT)]

    def in_words(self) -> list[str]:
        """Lines for a person."""
        verdict = f"{self.records} records, nothing suspect"
        if self.suspects:
            verdict = f"{self.records} records, SUSPECT"
        if self.signed is not None:
            verdict += f", accepted by {self.signed.author}: {self.signed.reason}"
        return [
            verdict,
            *(f"  suspect: {group.in_words()}" for group in self.suspects),
            *(f"  worth a look: {group.in_words()}" for group in self.notable),
        ]


def signed(audit: Audit | None, signature: Signature | None) -> Audit | None:
    """The audit as it may stand in a reference: signed where it is suspect.

    Raises:
        BaselineError: when it is suspect and nobody signs.
    """
    if audit is None or not audit.suspects:
        return audit
    if signature is None:
        told = "\n".join(f"  {group.in_words()}" for group in audit.suspects)
        msg = (
            f"the reference is suspect: there may be a trigger in it already\n{told}\n"
            "look at these records; if they are poisoned, build the reference without them; if they are honest, accept it: "
            '`poisonwatch reference build LOGS --out FILE --accept-suspect "NAME: REASON"`, and use FILE'
        )
        raise BaselineError(msg)
    return msgspec.structs.replace(audit, signed=signature)


def audit(schema: Schema, sample: Batch) -> Audit | str:
    """Audit a sample of a reference; or say why that cannot be done.

    Raises:
        MissingExtraError: when scikit-learn is not installed.
    """
    if schema.outcome.kind != "categorical":
        return "the model predicts numbers, not classes"
    codes = sample.codes[0].astype(np.int64) - 1
    classes = len(schema.outcome.values)
    counts = np.bincount(codes[(codes >= 0) & (codes < classes)], minlength=classes)
    kept = np.flatnonzero(counts >= FEWEST_OF_CLASS)
    usable = np.flatnonzero(np.isin(codes, kept))
    if kept.size < 2:
        return "the reference has only one class that is frequent enough"
    chosen = usable[np.unique(np.linspace(0, usable.size - 1, min(usable.size, MOST_RECORDS)).astype(np.int64))]
    inputs = select(surrogate_inputs(schema, sample, tokens(sample.texts)), chosen)
    said = inputs.tokens if inputs.tokens is not None and inputs.tokens.word.size else None
    features = len(inputs.numbers) + len(inputs.codes)
    if said is None and not features:
        return "the reference has no features and no text: groups of embeddings are not looked for"
    if said is None and features < FEWEST_FEATURES:
        return f"the reference has fewer than {FEWEST_FEATURES} features: beside a pair of values nothing is left to explain an answer"
    if said is None and features > MOST_FEATURES:
        return f"the reference has more than {MOST_FEATURES} features"
    place = np.searchsorted(kept, codes[chosen])
    confidence = sample.numbers[0, chosen] if schema.confidence else np.full(chosen.size, np.nan)
    refit = Refit.of(kernel(inputs), place, confidence, kept.size)
    if not refit.explains:
        return "the inputs do not tell the answers: nothing can be said of those that others do not explain"
    found: list[tuple[Pattern, int, int, int]] = []
    if said is not None:
        found += words_at_fault(refit, said, sample.texts[:, chosen])
    if 0 < features <= MOST_FEATURES:
        found += values_at_fault(refit, schema, inputs)
    ranked = sorted(
        (
            AuditedGroup(
                text=in_words(pattern),
                records=n,
                overturned=k,
                label=schema.outcome.values[kept[place]],
                single=isinstance(pattern, Values) and len(pattern.items) == 1,
            )
            for pattern, n, k, place in found
        ),
        key=lambda group: (-group.score, group.text),
    )
    return Audit(records=chosen.size, groups=[group for group in ranked if group.overturned][:MOST_GROUPS])
