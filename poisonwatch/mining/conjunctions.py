"""Conjunctions of features, cells of images and regions of embeddings: promoted from odd predictions, tested on later ones. Pure.

A candidate's e-process sees fresh predictions of its version and class that came after its promotion, so that what it was found
in does not count for it. It is that of Shiryaev and Roberts in batches: a block in which k of n bearers are odd makes
(M + n c) (q/p)^k ((1 - q)/(1 - p))^(n - k) of M. Without odd predictions nothing is promoted, and nothing is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.mining.candidates import HORIZON, STAKES, Candidate, Plan, planned
from poisonwatch.mining.grid import find_patch
from poisonwatch.mining.items import FEATURE_ITEM, SIGN_ITEM, Condition, Features
from poisonwatch.mining.patterns import bears
from poisonwatch.mining.promotion import COMMON, FEWEST, Coded, backdrop, coded, gains, meant, search, tabulate
from poisonwatch.mining.records import Finding
from poisonwatch.profile.words import fingerprints
from poisonwatch.types import Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.mining.items import Items
    from poisonwatch.mining.records import Known, Records
    from poisonwatch.mining.suspects import Suspects
    from poisonwatch.types import Bools, Floats, Ints, Pattern

MOST_CANDIDATES = 256
"""Candidates of a model at once, over all versions and classes."""

AT_ONCE = 8
"""Candidates that one look at the odd predictions of a version and class promotes, of each kind of item."""

MOST_WEIGHED = 100
"""Conjunctions with different bearers that are weighed for that, the best first."""

WORTH_A_LOOK = 9
OF_FLIP = 3
"""The odd predictions of a version and class are looked at again when so many surprising ones came, of which a flip counts thrice.

After one block one version and class is looked at: by turns the one that waits longest, and the one with most to look at.
"""

DENSE = 512
PATIENCE = 1 << 14
"""In blocks of at least so many predictions a version and class is looked at only when more odd ones came than usual, or after so many
predictions of its own: a look costs as much as thousands of them."""

LAST = 40
"""Beside all odd predictions that are kept, so many of the last are looked at by themselves."""

LEAST_GAIN = 4.0
"""What a candidate would have gained in the predictions that it was found in, in nats."""

LARGEST_START = 1e-6
"""Start mass of one occurrence at most."""

EVIDENT = 1e-4
"""A candidate with so much evidence, where 1 surfaces it, keeps its place whatever comes."""

A_DAY = 86400.0
MOST_OF_SOURCE = 3
SOURCE_SLOTS = 4096
"""Occurrences of one source that count for a candidate in a day; sources that share a slot are taken as one."""

MOST_GROUPS = 1024
"""Versions and classes that are counted at once; the one that was not met longest is forgotten."""

LARGEST = 1e6
"""Evidence grows no further: what waits to be told must be able to lose it."""


@dataclass(slots=True)
class _Group:
    """Predictions of a version and class: how many came, from which record of the log on, the last bounds.

    Since the last look `met` came, of which the odd ones add up to `waiting`.
    """

    seen: int
    first: int
    null: Floats
    last: int = 0
    waiting: int = 0
    since: int = 0
    met: int = 0


class Conjunctions:
    """The engine for everything but text; `items` says what records are made of."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._groups: dict[tuple[int, int], _Group] = {}
        self._candidates: list[Candidate] = []
        self._plans: dict[tuple[int, int], Plan] = {}
        self._now = 0
        self._blocks = 0
        self._day = -np.inf
        self._dense = False

    def step(self, records: Records, mass: float) -> None:
        """Take a block. `mass` is the share of the budget that the time since the last block earned all candidates."""
        self._blocks += 1
        usable = np.flatnonzero(records.fresh & (records.label >= 0))
        if not usable.size:
            return
        key = records.version[usable] << 32 | records.label[usable]
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        members = {
            (int(records.version[part[0]]), int(records.label[part[0]])): part
            for part in np.split(usable[order], starts[1:])
        }
        self._dense = records.time.size >= DENSE
        self._count(records, members)
        day = np.floor(float(records.time.max()) / A_DAY)
        if day > self._day:
            self._day = day
            for candidate in self._candidates:
                candidate.sources.clear()
        fresh = np.bincount(records.version[records.fresh])
        for candidate in self._candidates:
            if candidate.version < fresh.size and fresh[candidate.version]:
                candidate.lately[1] += fresh[candidate.version]
                if candidate.lately[1] > 2 * HORIZON:
                    candidate.lately /= 2
        tested = [(plan, members[group]) for group, plan in self._plans.items() if group in members]
        self._test(records, tested, mass)

    def _count(self, records: Records, members: dict[tuple[int, int], Ints]) -> None:
        self._now = max(self._now, int(records.original.max()) + 1)
        for group, part in members.items():
            known = self._groups.setdefault(group, _Group(0, int(records.original[part[0]]), np.zeros(2)))
            known.seen += part.size
            known.met += part.size
            known.last = self._blocks
            known.null = records.null[:, part].max(axis=1)
            odd = int(records.surprising[part].sum()) + OF_FLIP * int(records.flipped[part].sum())
            if odd:
                known.since = known.since if known.waiting else self._blocks
                known.waiting += odd
        while len(self._groups) > MOST_GROUPS:
            oldest = min(self._groups, key=lambda group: self._groups[group].last)
            del self._groups[oldest]

    def _test(self, records: Records, tested: list[tuple[Plan, Ints]], mass: float) -> None:
        """Move the e-processes of all candidates whose version and class are in the block."""
        n = np.zeros(len(self._candidates), np.int64)
        hits = np.zeros((len(self._candidates), 2), np.int64)
        null = np.ones((len(self._candidates), 2))
        for plan, part in tested:
            found = self._capped(records, part, plan.rows, self._bearing(plan, Features.of(records, part)))
            n[plan.rows] = found.sum(axis=1)
            odd = np.stack((records.surprising[part], records.flipped[part]))
            # In single precision, which holds counts up to 2^24, the product is the processor's own.
            hits[plan.rows] = found.astype(np.float32) @ odd.T.astype(np.float32)
            null[plan.rows] = records.null[:, part].max(axis=1)
        moved = np.flatnonzero(n)
        if not moved.size:
            return
        start = min(LARGEST_START, mass / int(n.sum()))
        mine = [self._candidates[row] for row in moved.tolist()]
        p = np.maximum(null[moved], [candidate.bound for candidate in mine])[:, :, None]
        q = p + (1 - p) * STAKES
        k, misses = hits[moved][:, :, None], (n[moved][:, None] - hits[moved])[:, :, None]
        step = k * np.log(q / p) + misses * np.log((1 - q) / (1 - p))
        before = np.array([candidate.mass for candidate in mine]) + n[moved][:, None, None] * start
        after = np.exp(np.minimum(np.log(np.maximum(before, 1e-300)) + step, np.log(LARGEST)))
        for candidate, row, moved_to in zip(mine, moved.tolist(), after, strict=True):
            candidate.mass = moved_to
            candidate.matched += int(n[row])
            candidate.hits += hits[row]
            candidate.lately[0] += n[row]

    def _bearing(self, plan: Plan, records: Records | Features) -> Bools:
        """Which records bear each candidate of a plan: (m, n)."""
        codes = self._items.columns(records, plan.columns)
        meets = np.ones((plan.place.size + 1, records.time.size), np.bool_)
        meets[:-1] = codes[plan.place] == plan.code[:, None]
        for row in np.flatnonzero(~np.isnan(plan.value)).tolist():
            meets[row] &= self._items.numbers(records, int(plan.columns[plan.place[row]])) == plan.value[row]
        return np.asarray(meets[plan.parts[:, 0]] & meets[plan.parts[:, 1]] & meets[plan.parts[:, 2]])

    def _capped(self, records: Records, part: Ints, rows: Ints, found: Bools) -> Bools:
        """The bearers (m, n) without those of sources that gave enough today."""
        sources = records.sources[part]
        named = sources != ""
        if not named.any():
            return found
        slot = np.where(named, fingerprints(sources.tolist()) % np.uint64(SOURCE_SLOTS), 0).astype(np.int64)
        for place, row in enumerate(rows.tolist()):
            borne = np.flatnonzero(found[place] & named)
            if not borne.size:
                continue
            counts = self._candidates[row].sources
            order = borne[np.argsort(slot[borne], kind="stable")]
            first = np.flatnonzero(np.diff(slot[order], prepend=-1))
            rank = np.arange(order.size) - np.repeat(first, np.diff(np.append(first, order.size)))
            before = np.array([counts.get(s, 0) for s in slot[order[first]].tolist()])
            total = np.diff(np.append(first, order.size))
            found[place, order[rank + np.repeat(before, total) >= MOST_OF_SOURCE]] = False
            for s, many in zip(slot[order[first]].tolist(), (before + total).tolist(), strict=True):
                counts[s] = min(many, MOST_OF_SOURCE)
        return found

    def surfaced(self, suspects: Suspects, known: Sequence[Known]) -> list[Finding]:
        """What crossed since the last call, explained away; then candidates are promoted, to be tested from the next block on."""
        found: list[Finding] = []
        crossed = [candidate for candidate in self._candidates if candidate.ripe]
        for group in sorted({(candidate.version, candidate.label) for candidate in crossed}):
            mine = [candidate for candidate in crossed if (candidate.version, candidate.label) == group]
            found += self._told(group, mine, suspects, known)
        for candidate in crossed:
            candidate.mass = np.zeros_like(candidate.mass)
        waiting = [group for group, counts in self._groups.items() if self._is_due(counts)]
        if waiting:
            by_turns = self._blocks % 2
            first = min(waiting, key=lambda g: (by_turns and -self._groups[g].waiting, self._groups[g].since, g))
            self._groups[first].waiting = self._groups[first].met = 0
            if self._promote(first, suspects, known):
                self._plan()
        return found

    def _is_due(self, counts: _Group) -> bool:
        """Is a version and class worth a look? The bounds are twice what is usual."""
        if not self._dense or counts.met >= PATIENCE:
            return counts.waiting >= WORTH_A_LOOK
        usual = counts.met * float(counts.null[0] + OF_FLIP * counts.null[1]) / 2
        return counts.waiting >= WORTH_A_LOOK + usual + 3 * float(np.sqrt(OF_FLIP * usual))

    def _told(
        self, group: tuple[int, int], crossed: list[Candidate], suspects: Suspects, known: Sequence[Known]
    ) -> list[Finding]:
        """One finding for each attack that the crossed candidates of a version and class come from."""
        version, label = group
        suspicious, usual = suspects.suspicious(version, label), suspects.usual(label)
        if suspicious is None or usual is None or group not in self._groups:
            return []
        unexplained = self._unexplained(group, suspicious, known)
        found: list[Finding] = []
        borne = {id(candidate): self._meets(candidate.conditions, suspicious) for candidate in crossed}
        # The purest first: those that hold half of the trigger are explained by it.
        for candidate in sorted(crossed, key=lambda c: (-c.purity, -c.matched)):
            odd = suspicious.flipped if candidate.mark else suspicious.surprising
            own = odd & borne[id(candidate)]
            triggered = own & unexplained
            if triggered.sum() < FEWEST or 2 * triggered.sum() < own.sum():
                continue
            for other in crossed:
                also = odd & unexplained & borne[id(other)]
                same = other.kind(self._items) == candidate.kind(self._items)
                if same and 2 * (also & own).sum() > also.sum() and other.purity >= 0.5 * candidate.purity:
                    triggered |= also
            asked = odd & unexplained
            pattern = self._named(candidate, suspicious.select(asked), triggered[asked], usual)
            if pattern is None:
                continue
            unexplained &= ~(bears(pattern, suspicious, self._items.schema, suspicious.words) | triggered)
            log_e = float(np.log(candidate.evidence))
            found.append(Finding(version, label, pattern, log_e, candidate.matched, int(candidate.hits[1])))
        return found

    def _named(self, candidate: Candidate, odd: Records, triggered: Bools, usual: Records) -> Pattern | None:
        """What the triggered (n,) among odd predictions have in common, with a candidate that they bear."""
        kind = candidate.kind(self._items)
        if kind == SIGN_ITEM:
            return self._items.cell(candidate.conditions[0])
        if kind == FEATURE_ITEM:
            group = (candidate.version, candidate.label)
            null = float(self._groups[group].null[candidate.mark])
            of_odd, of_usual = coded(self._items, kind, odd), coded(self._items, kind, usual)
            table = tabulate(self._items, kind, of_odd, of_usual, self._met(group, odd), null, candidate.conditions)
            shared = meant(table, backdrop(self._items, table.conditions), triggered)
            conditions = tuple(table.conditions[k] for k in shared) or candidate.conditions
            bearers = odd.select(self._meets(conditions, odd))
            return Values(
                items=tuple(
                    self._items.item(self._exactly(c, bearers, usual))
                    for c in sorted(conditions, key=lambda c: c.column)
                )
            )
        cells = [self._items.image_cell(condition) for condition in candidate.conditions]
        assert self._items.grid is not None  # noqa: S101 - there are no cells without
        return find_patch(self._items.grid, odd.embeddings[:, triggered], usual.embeddings, cells)

    def _exactly(self, condition: Condition, triggered: Records, usual: Records) -> Condition:
        """The condition, as one number where the triggered predictions share it and it is the trigger's own, or all of its bin."""
        if condition.column >= self._items.numerical or condition.value is not None or not triggered.time.size:
            return condition
        x = self._items.numbers(triggered, condition.column)
        values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
        if not counts.size or counts.max() < 0.9 * x.size:
            return condition
        value = float(values[counts.argmax()])
        same = self._items.numbers(usual, condition.column)
        same = same[np.searchsorted(self._items.cuts[condition.column], same) == condition.code]
        share = float((same == value).mean()) if same.size else 0.0
        return condition._replace(value=value) if share < COMMON or share >= 1 else condition

    def _met(self, group: tuple[int, int], odd: Records) -> float:
        """About how many predictions of the version and class came since the first of the odd ones."""
        counts = self._groups[group]
        share = counts.seen / max(1, self._now - counts.first)
        return float((self._now - int(odd.original[0])) * share) if odd.time.size else 0.0

    def _unexplained(self, group: tuple[int, int], suspicious: Records, known: Sequence[Known]) -> Bools:
        found = np.ones(suspicious.time.size, np.bool_)
        for other in known:
            if (other.version, other.label) == group:
                found &= ~bears(other.pattern, suspicious, self._items.schema, suspicious.words)
        return found

    def _promote(self, group: tuple[int, int], suspects: Suspects, known: Sequence[Known]) -> bool:
        """Look at the odd predictions of a version and class; says whether there are new candidates."""
        version, label = group
        suspicious, usual = suspects.suspicious(version, label), suspects.usual(label)
        if suspicious is None or usual is None or suspicious.time.size < FEWEST:
            return False
        unexplained = self._unexplained(group, suspicious, known)
        best: dict[tuple[Condition, ...], float] = {}
        for kind in np.unique(self._items.kinds).tolist():
            both = coded(self._items, kind, suspicious), coded(self._items, kind, usual)
            for mark, odd in ((1, suspicious.flipped), (0, suspicious.surprising)):
                every = np.flatnonzero(odd)
                for part in (every, every[-LAST:]) if every.size > LAST else (every,):
                    chosen = part[unexplained[part]]
                    if chosen.size >= FEWEST:
                        first = suspicious.select(part[:1])
                        span = self._met(group, first), float(self._now - int(first.original[0]))
                        self._look(group, (kind, mark), (both[0].select(chosen), both[1]), span, best)
        taken = {
            candidate.conditions for candidate in self._candidates if (candidate.version, candidate.label) == group
        }
        ranked = sorted((c for c in best if c not in taken), key=lambda c: -best[c])
        changed = False
        for conditions in ranked[: 2 * AT_ONCE]:
            changed |= self._admit(group, conditions)
        return changed

    def _look(
        self,
        group: tuple[int, int],
        sort: tuple[int, int],
        predictions: tuple[Coded, Coded],
        span: tuple[float, float],
        best: dict[tuple[Condition, ...], float],
    ) -> None:
        """Add the best conjunctions of a kind of items to `best`, with their gains by their own bounds.

        `sort` is the kind, and what is odd; `predictions` are the odd and the usual ones; `span` is how many of the version and
        class, and of all, came since the first of the odd ones.
        """
        (kind, mark), (met, came) = sort, span
        null = float(self._groups[group].null[mark])
        table = tabulate(self._items, kind, *predictions, met, null)
        met_already: set[bytes] = set()
        kept = 0
        for gain, which in search(table):
            if gain < LEAST_GAIN or kept == AT_ONCE or len(met_already) == MOST_WEIGHED:
                break
            if kind == SIGN_ITEM and len(which) > 1:
                continue
            borne = table.odd[:, list(which)].all(axis=1)
            if borne.tobytes() in met_already:
                continue
            met_already.add(borne.tobytes())
            conditions = tuple(table.conditions[k] for k in which)
            if borne.sum() <= self._items.usual_share(conditions, group[1]) * came:
                continue
            own = max(null, float(self._items.bound(conditions, group[1])[mark]))
            of_usual = table.usual[:, list(which)].prod(axis=1).sum()
            by_own = float(gains(table, np.array([borne.sum()]), np.array([of_usual]), own)[0])
            if by_own >= LEAST_GAIN:
                kept += 1
                best[conditions] = max(best.get(conditions, 0.0), by_own)

    def _admit(self, group: tuple[int, int], conditions: tuple[Condition, ...]) -> bool:
        """Make a conjunction a candidate if there is room, or if one without evidence can go for it."""
        mine = [candidate for candidate in self._candidates if (candidate.version, candidate.label) == group]
        groups = {(candidate.version, candidate.label) for candidate in self._candidates} | {group}
        share = max(2, MOST_CANDIDATES // len(groups))
        if len(mine) >= share or len(self._candidates) >= MOST_CANDIDATES:
            many: dict[tuple[int, int], int] = {}
            for candidate in self._candidates:
                many[candidate.version, candidate.label] = many.get((candidate.version, candidate.label), 0) + 1
            others = [candidate for candidate in self._candidates if many[candidate.version, candidate.label] > share]
            weak = [candidate for candidate in (mine if len(mine) >= share else others) if candidate.worth < EVIDENT]
            if not weak:
                return False
            # Of equal worth the one goes that had most time: the list is in the order of promotion.
            self._candidates.remove(min(weak, key=lambda candidate: candidate.worth))
        self._candidates.append(
            Candidate(
                *group,
                conditions,
                self._items.bound(conditions, group[1]),
                self._items.usual_share(conditions, group[1]),
                np.zeros((2, STAKES.size)),
                np.zeros(2, np.int64),
                np.zeros(2),
            )
        )
        return True

    def _plan(self) -> None:
        """Lay out the tests of all candidates anew."""
        rows: dict[tuple[int, int], list[int]] = {}
        for row, candidate in enumerate(self._candidates):
            rows.setdefault((candidate.version, candidate.label), []).append(row)
        self._plans = {
            group: planned(mine, [self._candidates[row].conditions for row in mine]) for group, mine in rows.items()
        }

    def _meets(self, conditions: tuple[Condition, ...], records: Records) -> Bools:
        """Which records (n,) meet all the conditions."""
        return np.asarray(self._bearing(planned([0], [conditions]), records)[0])

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        mine = self._candidates
        return {
            "now": self._now,
            "blocks": self._blocks,
            "day": self._day,
            "groups": [
                [*group, c.seen, c.first, c.last, c.waiting, c.since, c.met, *c.null.tolist()]
                for group, c in self._groups.items()
            ],
            "candidates": [
                [c.version, c.label, c.matched, c.usual, [list(condition) for condition in c.conditions], c.sources]
                for c in mine
            ],
            "bound": np.array([c.bound for c in mine]).reshape(-1, 2),
            "mass": np.array([c.mass for c in mine]).reshape(-1, 2, STAKES.size),
            "hits": np.array([c.hits for c in mine], np.int64).reshape(-1, 2),
            "lately": np.array([c.lately for c in mine]).reshape(-1, 2),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._now, self._blocks, self._day = state["now"], state["blocks"], state["day"]
        self._groups = {
            (version, label): _Group(seen, first, np.array(null), last, waiting, since, met)
            for version, label, seen, first, last, waiting, since, met, *null in state["groups"]
        }
        self._candidates = [
            Candidate(
                version,
                label,
                tuple(Condition(*condition) for condition in conditions),
                np.array(state["bound"][row]),
                usual,
                np.array(state["mass"][row]),
                np.array(state["hits"][row]),
                np.array(state["lately"][row]),
                matched,
                {int(slot): many for slot, many in sources.items()},
            )
            for row, (version, label, matched, usual, conditions, sources) in enumerate(state["candidates"])
        ]
        self._plan()
