"""Does a source of labels disagree with the model more than the other sources do just now?

A *party* is a source, an attribute that sources share (`network=10.1`), a cohort of sources first seen on one day, or a
coordinated group. Each keeps Shiryaev-Roberts e-detectors that bet on "the label disagrees with the model": over all its
labels, per predicted class, per labelled class (an attack diluted in one of them shows in the other), and on "the label
disagrees with the majority of others on this item". Its labels step

    M <- L (M + c),     L = exp(theta)^d / (1 + p0 (exp(theta) - 1)),     d = 1 where it disagrees,

the likelihood ratio of a rate theta log-odds above p0. p0 is 1.5 times the larger of the reference's error rate and what
the *other* sources do in the same cell, so a model that really got worse accuses nobody.

Budget. A label that comes dt after the previous one of any source earns c = share * dt / period; it is split equally over
the parties of the label and over their bets. Whose label it is and when it comes is known before L is, so with E[L | past]
<= 1 the sum S of M over all parties, ever, grows in the mean by no more than the sum of c, which is share * elapsed time /
period, however many sources there are: E[S at a stopping time] <= share * E[time] / period. (e-detectors: Shin, Ramdas,
Rinaldo, arXiv 2203.03532.) It is a theorem where p0 bounds an honest party's rate, and that is estimated, hence 1.5.

Within a block of labels the rates of the others stand still. A block is so short that a source has about half a label in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.detect.agreement import Agreement, rounds
from poisonwatch.detect.contemporaries import SETS, STRENGTH, Contemporaries
from poisonwatch.detect.coordination import find_groups
from poisonwatch.detect.labelled import Labelled
from poisonwatch.detect.parties import ATTRIBUTE, COHORT, GROUP, SOURCE, Parties
from poisonwatch.profile.odds import logit

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Floats, Ints, Texts, Words

DAY = 86400.0
THETAS = np.array([0.5, 1.0, 2.0, 3.5])
"""How far above the null the alternatives stand, in log-odds."""

ONSET_BET = 1
"""The alternative whose CUSUM places the onset."""

SLACK = 1.5
"""How many times the others' rate an honest source may reach."""

HIGHEST_NULL = 0.999
CAP = 1000.0
"""Ceiling of one e-detector: evidence beyond a thousand budgets must not delay acquittal."""

SUSPECTED, ACCUSED = 0.1, 1.0
"""From which sum of its e-detectors, in budgets, a party is suspected, and accused."""

FEWEST_DISAGREEMENTS = 4
FLOOR = 0.8
"""Log-odds above the null by which an accused party's rate must differ: less does no harm."""

FOUNDING_TIME, FOUNDING_LABELS = 3 * DAY, 500
"""Sources seen before both have passed are founders."""

PROBATION = 7 * DAY
"""A later source's labels count once it is known for so long."""

SILENCE = 7 * DAY
"""How long an accusation stands after the last label of the accused."""

SETTLED_LABELS, SETTLED_TIME = 20, 3 * DAY
"""What a source must have given, and for how long, before it speaks for the others."""

MOST_ATTRIBUTES = 8
"""Attributes of a label that are read."""

LONGEST_BLOCK = 256
SEARCH_EVERY = 32
"""Disagreeing labels between two searches for coordinated groups."""

SEARCHED = 4096
"""Disagreeing labels, the newest, that a search looks at."""


@dataclass(frozen=True, slots=True)
class Votes:
    """Labels joined to their predictions, in the order of the log; all arrays (m,).

    `source` is empty where none is named, `attributes` has a tuple of `name=value` per label, `item` is a fingerprint of
    `prediction_id`. `predicted` and `label` are class codes in [0, classes); a label that is no class has one of its own.
    """

    time: Floats
    source: Texts
    attributes: Texts
    prediction_id: Texts
    item: Words
    predicted: Ints
    label: Ints


@dataclass(frozen=True, slots=True)
class Accusation:
    """A party whose labels are not to be trusted: `kind` is source, attribute or group.

    `rate` of disagreement since `onset` against `expected`, the others' at the same time; `labels`, `disagreements`,
    `first`, `last` are of all its time. `direction` is the commonest (predicted, labelled) pair among its disagreements.
    `log_e` is in units of the budget. `prediction_ids` are at most 1,000, those that it contradicted first, newest first.
    """

    source: str
    kind: str
    labels: int
    disagreements: int
    rate: float
    expected: float
    direction: tuple[int, int] | None
    log_e: float
    onset: float
    first: float
    last: float
    members: tuple[str, ...]
    prediction_ids: tuple[str, ...]


class Sources:
    """All that is known of the sources of one model's labels.

    `confusion` (classes, classes) counts labels of the reference by predicted and labelled class, zeros where there are
    none. `share` is the sources' part of the budget of one false page per `period` seconds.
    """

    def __init__(self, confusion: Ints, share: float, period: float, capacity: int = 50_000) -> None:
        self.classes = int(confusion.shape[0])
        self.budget = share / period
        self.parties = Parties(capacity, 2 * self.classes + 2, THETAS.size)
        self.others = Contemporaries(2 * self.classes + 2)
        self.agreement = Agreement(self.classes)
        self.contradicted = Labelled(1 << 16)
        self.confirmed = Labelled(1 << 13)
        self.longest_block = max(1, min(LONGEST_BLOCK, capacity // 100))
        self.labels = 0
        self.began = np.nan
        self.clock = -np.inf
        self._reference = _reference_rates(confusion)
        self._groups = 0
        self._searched = 0
        self._block = 1
        self._pending: list[dict[str, Any]] = []
        self._held = 0

    def step(self, votes: Votes) -> Bools:
        """Take labels into account; whether each (m,) counts for error rates, as known right after it.

        A label without a source counts. One of a suspected party does not, nor one of a source that is neither a founder
        nor known for a week.
        """
        counts = np.ones(votes.time.size, np.bool_)
        named = np.flatnonzero(votes.source != "")
        while named.size:
            room = self._block - self._held
            take, named = named[:room], named[room:]
            counts[take] = self._advance(votes, take)
            if self._held == self._block:
                self._close()
        return counts

    def _advance(self, votes: Votes, take: Ints) -> Bools:
        """Labels within one block: the null stands still, parties step in rounds of one label each."""
        p = self.parties
        if not self.labels:
            self.began = self.clock = float(votes.time[take[0]])
        time = np.maximum.accumulate(np.maximum(votes.time[take], self.clock))
        earned = self.budget * np.diff(time, prepend=self.clock)
        self.clock = float(time[-1])
        touched = [
            self._parties_of(votes, i, t, n) for n, (i, t) in enumerate(zip(take.tolist(), time.tolist(), strict=True))
        ]
        self.labels += take.size
        self._held += take.size
        number = np.array([len(slots) for slots in touched])
        of = np.repeat(np.arange(take.size), number)
        slot = np.array([s for slots in touched for s in slots], np.int64)
        source = np.array([slots[0] for slots in touched], np.int64)
        predicted, label = votes.predicted[take], votes.label[take]
        wrong = predicted != label
        standing = p.party["founder"][source] | (time - p.party["first"][source] >= PROBATION)
        verdict = self.agreement.add(
            votes.item[take], p.party["serial"][source], label, standing & ~p.party["suspected"][source]
        )
        k = self.classes
        cells = np.stack([np.zeros_like(label), 1 + predicted, 1 + k + label, np.full_like(label, 1 + 2 * k)], axis=1)
        asked = np.ones((take.size, 4), np.bool_)
        asked[:, 3] = verdict >= 0
        yes = np.stack([wrong, wrong, wrong, (verdict != label) & (verdict >= 0)], axis=1)
        of_label = list(zip(cells.tolist(), (verdict >= 0).tolist(), strict=True))
        row = np.array(
            [
                (*(p.row_of(s, c) for c in three), p.row_of(s, last) if voted else 0)
                for slots, ((*three, last), voted) in zip(touched, of_label, strict=True)
                for s in slots
            ],
            np.int64,
        )
        expected = self._expected(row, cells[of])
        share = earned / number / (4 * THETAS.size)
        suspected = self._bet(slot, row, yes[of], expected, share[of], time[of])
        np.add.at(p.party["labels"], slot, 1)
        np.add.at(p.party["wrong"], slot, wrong[of])
        ids = votes.prediction_id[take]
        serial = np.zeros((take.size, MOST_ATTRIBUTES + 3), np.int64)
        rank = np.arange(of.size) - np.repeat(np.cumsum(number) - number, number)
        serial[of, rank] = p.party["serial"][slot]
        for ring, kept in ((self.contradicted, wrong), (self.confirmed, ~wrong)):
            ring.add(time[kept], votes.item[take][kept], predicted[kept], label[kept], serial[kept], ids[kept])
        self._pending.append({"of": of, "slot": slot, "row": row, "cells": cells, "asked": asked, "yes": yes})
        return np.asarray(standing & (np.bincount(of, suspected, take.size) == 0))

    def _parties_of(self, votes: Votes, i: int, time: float, n: int) -> list[int]:
        """Slots of all parties to which the label belongs, its source first."""
        p = self.parties
        founding = time - self.began < FOUNDING_TIME or self.labels + n < FOUNDING_LABELS
        slots = [p.admit(SOURCE, votes.source[i], time, founding)]
        for attribute in dict.fromkeys(votes.attributes[i][:MOST_ATTRIBUTES]):
            slot = p.admit(ATTRIBUTE, attribute, time, founding)
            if slot not in slots:
                slots.append(slot)
        if not p.party["founder"][slots[0]]:
            slots.append(p.admit(COHORT, str(int(p.party["first"][slots[0]] // DAY)), time, founding))
        if p.party["group"][slots[0]]:
            slots.append(p.admit(GROUP, str(p.party["group"][slots[0]]), time, founding))
        return slots

    def _expected(self, row: Ints, cells: Ints) -> Floats:
        """The others' rate (t, 4) for rows of cells (t, 4); that over all a party's labels is of the predicted class."""
        p, others = self.parties, self.others
        own = others.faded(p.own[row.ravel()], p.stamp[row.ravel()], cells.ravel()).reshape(*row.shape, SETS, -1, 2)
        settled = others.settled_share(cells[:, 0], own[:, 0])
        one = np.ones(row.shape[0])
        everywhere = others.rate(cells[:, 0], own[:, 0], settled, one, 1.0)
        of_class = [
            np.maximum(others.rate(cells[:, n], own[:, n], settled, everywhere, STRENGTH), self._reference[cells[:, n]])
            for n in (1, 2)
        ]
        against = others.rate(cells[:, 3], own[:, 3], settled, one, 1.0)
        return np.stack([of_class[0], *of_class, against], axis=1)

    def _bet(self, slot: Ints, row: Ints, yes: Bools, expected: Floats, share: Floats, time: Floats) -> Bools:
        """Step the e-detectors; which touches (t,) leave their party suspected."""
        p = self.parties
        null = np.minimum(SLACK * expected, HIGHEST_NULL)
        tilt = np.exp(THETAS)
        gain = np.where(yes[..., None], tilt, 1.0) / (1.0 + null[..., None] * (tilt - 1.0))
        gain[row == 0] = 1.0
        log_gain = np.log(gain[..., ONSET_BET])
        suspected = np.zeros(slot.size, np.bool_)
        r = p.row
        for one in rounds(slot):
            rows, who = row[one], slot[one]
            before = p.evidence[rows]
            after = np.minimum((before + np.where(rows > 0, share[one, None], 0.0)[..., None]) * gain[one], CAP)
            p.evidence[rows] = after
            m = np.maximum(p.party["m"][who] + (after - before).sum(axis=(1, 2)), 0.0)
            p.party["m"][who] = m
            restart = r["cusum"][rows] <= 0
            again = rows[restart]
            r["n"][again] = r["d"][again] = 0
            r["expected"][again] = 0.0
            r["since"][rows] = np.where(restart, time[one, None], r["since"][rows])
            r["cusum"][rows] = np.where(rows > 0, np.maximum(r["cusum"][rows], 0.0) + log_gain[one], 0.0)
            r["n"][rows] += 1
            r["d"][rows] += yes[one]
            r["expected"][rows] += expected[one]
            for party in who[(m >= ACCUSED) & ~p.party["accused"][who]].tolist():
                p.party["accused"][party] = self._guilty(party)
            p.party["accused"][who] &= m >= SUSPECTED
            suspected[one] = m >= SUSPECTED
        # Row 0 stood in for the rows that were not asked; how often depends on how the labels were cut.
        for name in ("cusum", "since", "n", "d", "expected"):
            r[name][0] = 0
        return suspected

    def _guilty(self, slot: int) -> bool:
        """Is the strongest evidence against a party more than noise: enough labels, and far enough from the null?"""
        row = self._strongest(slot)
        rate, expected = self._rates(row)
        null = min(SLACK * expected, HIGHEST_NULL)
        effect = np.diff(logit(np.array([null, rate])))[0]
        return bool(self.parties.row["d"][row] >= FEWEST_DISAGREEMENTS and effect >= FLOOR)

    def _strongest(self, slot: int) -> int:
        rows = self.parties.rows_of(slot)
        return int(rows[np.argmax(self.parties.evidence[rows].sum(axis=1))])

    def _rates(self, row: int) -> tuple[float, float]:
        """Rate since the onset, one made-up label doing as expected, and the mean of what was expected."""
        n, d, expected = (float(self.parties.row[name][row]) for name in ("n", "d", "expected"))
        return (d + expected / n) / (n + 1), expected / n

    def _close(self) -> None:
        """The block is full: let its labels speak for the others, look for groups, make room."""
        p = self.parties
        size = len(p)
        party = {name: column[:size] for name, column in p.party.items()}
        party["suspected"][:] = (party["m"] >= SUSPECTED) | party["accused"]
        steady = (party["labels"] >= SETTLED_LABELS) & (party["last"] - party["first"] >= SETTLED_TIME)
        self._fold(_joined(self._pending), party["suspected"], steady)
        self._pending, self._held = [], 0
        if self.contradicted.added - self._searched >= SEARCH_EVERY:
            self._searched = self.contradicted.added
            self._join_groups()
        if p.crowded():
            p.evict(party["founder"] | (party["last"] - party["first"] >= PROBATION))
        known = sum(kind == SOURCE for kind, _ in p.names)
        self._block = min(max(known // 2, 1), self.longest_block)

    def _fold(self, part: dict[str, Any], suspect: Bools, steady: Bools) -> None:
        p, of, slot = self.parties, part["of"], part["slot"]
        heard = np.bincount(of, suspect[slot]) == 0
        first = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
        speaks = np.stack([heard & steady[slot[first]], heard], axis=1)
        counts = np.stack([part["asked"], part["yes"]], axis=2)[:, :, None, :] & speaks[:, None, :, None]
        new = np.zeros((p.cells, SETS, 2))
        np.add.at(new, part["cells"], counts)
        self.others.fold(new)
        # What a party added fades with its cell from now on; what it had added before has faded with this block.
        row = np.unique(part["row"])
        row = row[row > 0]
        cell = p.row["cell"][row]
        p.own[row] = self.others.faded(p.own[row], p.stamp[row], cell)
        p.stamp[row] = self.others.seen[cell]
        np.add.at(p.own, part["row"], np.where(part["row"][..., None, None] > 0, counts[of], 0)[..., None, :])

    def _join_groups(self) -> None:
        """Put sources that were found together into one group, that of the oldest of them if one has one already."""
        p = self.parties
        time, item, _, label, serial = self.contradicted.newest(SEARCHED)
        size = len(p)
        slot_of = {int(s): n for n, s in enumerate(p.party["serial"][:size])}
        for found in find_groups(time, item, label, serial):
            slots = np.array([slot_of[s] for s in found.tolist() if s in slot_of], np.int64)
            group = p.party["group"][slots]
            number = int(group[group > 0].min(initial=self._groups + 1))
            self._groups = max(self._groups, number)
            p.party["group"][slots[group == 0]] = number

    def log_e(self) -> float:
        """The logarithm of the sum of all e-detectors, in units of the whole page budget; -inf where there is nothing."""
        with np.errstate(divide="ignore"):
            return float(np.log(self.parties.party["m"][: len(self.parties)][self._heard_lately()].sum()))

    def _heard_lately(self) -> Bools:
        """Which parties gave a label within the last `SILENCE` seconds: who fell silent does no harm any more."""
        return np.asarray(self.parties.party["last"][: len(self.parties)] >= self.clock - SILENCE)

    def accusations(self, *, affected: bool = True) -> list[Accusation]:
        """All parties accused now, the strongest evidence first.

        Without `affected` they come without direction and prediction ids, which have to be searched for.
        """
        p = self.parties
        slots = np.flatnonzero(p.party["accused"][: len(p)] & self._heard_lately())
        order = np.argsort(-p.party["m"][slots], kind="stable")
        return [self._accusation(int(slot), affected=affected) for slot in slots[order]]

    def _accusation(self, slot: int, *, affected: bool) -> Accusation:
        p = self.parties
        kind, name = p.names[slot]
        row = self._strongest(slot)
        rate, expected = self._rates(row)
        serial = int(p.party["serial"][slot])
        members: tuple[str, ...] = ()
        if kind == GROUP:
            of_group = np.flatnonzero(p.party["group"][: len(p)] == int(name))
            members = tuple(p.names[n][1] for n in of_group)
        if kind == COHORT:
            name = f"first seen {np.datetime64(int(name), 'D')}"
        ids = self.contradicted.ids_of(serial) + self.confirmed.ids_of(serial) if affected else ()
        return Accusation(
            source=f"coordinated group {name}" if kind == GROUP else name,
            kind="source" if kind == SOURCE else "attribute" if kind == ATTRIBUTE else "group",
            labels=int(p.party["labels"][slot]),
            disagreements=int(p.party["wrong"][slot]),
            rate=rate,
            expected=expected,
            direction=self.contradicted.direction_of(serial, self.classes) if affected else None,
            log_e=float(np.log(p.party["m"][slot])),
            onset=float(p.row["since"][row]),
            first=float(p.party["first"][slot]),
            last=float(p.party["last"][slot]),
            members=members,
            prediction_ids=ids[: self.contradicted.MOST_IDS],
        )

    def sensitivities(self) -> dict[str, Floats]:
        """Dawid-Skene's estimate (classes,) of how often each source in the window names a class that is the truth."""
        found = self.agreement.sensitivities()
        serial = self.parties.party["serial"]
        return {
            name: found[int(serial[n])] for n, (_, name) in enumerate(self.parties.names) if int(serial[n]) in found
        }

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        parts = (self.parties, self.agreement, self.contradicted, self.confirmed)
        return {
            "parts": [part.state() for part in parts],
            "counts": self.others.counts.copy(),
            "seen": self.others.seen.copy(),
            "numbers": [self.labels, self._groups, self._searched, self._block, self._held],
            "times": np.array([self.began, self.clock]),
            "pending": [_joined(self._pending)] if self._pending else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of sources with the same settings."""
        parts: tuple[Parties | Agreement | Labelled, ...] = (
            self.parties,
            self.agreement,
            self.contradicted,
            self.confirmed,
        )
        for part, saved in zip(parts, state["parts"], strict=True):
            part.restore(saved)
        self.others.counts, self.others.seen = state["counts"].copy(), state["seen"].copy()
        self.labels, self._groups, self._searched, self._block, self._held = state["numbers"]
        self.began, self.clock = state["times"].tolist()
        self._pending = [dict(part) for part in state["pending"]]


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts of a block as one: how it was cut must not fade one part by the next."""
    starts = np.cumsum([0, *(part["cells"].shape[0] for part in parts)])
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    whole["of"] = np.concatenate([part["of"] + start for part, start in zip(parts, starts, strict=False)])
    return whole


def _reference_rates(confusion: Ints) -> Floats:
    """Disagreement per cell (2 k + 2,) in the reference, a class's shrunk towards the whole."""
    total, right = confusion.sum(), np.diagonal(confusion)
    overall = float(total - right.sum()) / max(int(total), 1)
    of_class = [
        (n - right + STRENGTH * overall) / (n + STRENGTH) for n in (confusion.sum(axis=1), confusion.sum(axis=0))
    ]
    return np.concatenate([[overall], *of_class, [overall]])
