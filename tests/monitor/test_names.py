"""Names of versions are bounded, whoever writes them, and which are kept does not depend on how the log was chopped."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.monitor.machine import NAMES_PER_VERSION
from poisonwatch.monitor.names import SPAN, Names
from poisonwatch.types import OTHER_VERSIONS
from tests.streams import START, small_batch, usual_reference, watched
from tests.streams import batch as decoded
from tests.streams import predictions as records

if TYPE_CHECKING:
    from poisonwatch.types import Batch

KNOWN = frozenset(["known"])


def of(names: list[str], times: list[float]) -> Batch:
    """A prediction of each name."""
    versions = list(dict.fromkeys(names))
    whole = small_batch(times, np.random.default_rng(1), tuple(versions) or ("v1",))
    codes = np.array([versions.index(name) for name in names], whole.version.dtype)
    return dataclasses.replace(whole, version=codes)


def kept(names: Names, batch: Batch) -> list[str]:
    """What the predictions' versions are called."""
    found = names.keep(batch)
    return [found.versions[code] for code in found.version.tolist()]


def test_the_first_are_kept_and_those_that_are_known() -> None:
    """What has no place is called `other`; a known name needs none."""
    names = Names(2, KNOWN)
    given_ = ["a", "b", "c", "a", "known", "d", "b"]
    assert kept(names, of(given_, [START + n for n in range(7)])) == ["a", "b", "other", "a", "known", "other", "b"]


def test_a_name_that_goes_on_keeps_its_place_in_every_flood() -> None:
    """New names come only where others have been silent for a span."""
    names = Names(2, frozenset())
    assert kept(names, of(["a", "x"], [START, START + 1])) == ["a", "x"]
    flood = [f"f{n}" for n in range(50)]
    later = [START + SPAN + n for n in range(51)]
    assert kept(names, of([*flood, "a"], later)) == [OTHER_VERSIONS] * 50 + ["a"]
    latest = [START + 2 * SPAN + n for n in range(51)]
    assert kept(names, of([*flood, "a"], latest)) == ["f0", *[OTHER_VERSIONS] * 49, "a"]


@given(
    steps=st.lists(st.tuples(st.sampled_from("abcdefg"), st.floats(-100, 3000)), min_size=1, max_size=40),
    cuts=st.sets(st.integers(0, 40)),
)
def test_no_cut_or_restart_changes_anything(steps: list[tuple[str, float]], cuts: set[int]) -> None:
    """Names, in whatever pieces they come, and through a checkpoint."""
    times = (START + np.cumsum([step for _, step in steps])).tolist()
    letters = [name for name, _ in steps]
    whole = kept(Names(3, KNOWN), of(letters, times))
    names, found = Names(3, KNOWN), []
    for first, last in pairwise(sorted({0, len(letters), *(cut for cut in cuts if cut < len(letters))})):
        found += kept(names, of(letters[first:last], times[first:last]))
        saved, names = names.state(), Names(3, KNOWN)
        names.restore(saved)
    assert found == whole


def test_a_flood_of_names_hides_no_known_version_and_takes_no_room() -> None:
    """Hostile names come first, and many: the reference's version has its own machine, all others are bounded."""
    learned = usual_reference()
    flood = [{**record, "model_version": f"x{number}"} for number, record in enumerate(records(3000, 1))]
    honest = [{**record, "timestamp": START + 50 + number / 100} for number, record in enumerate(records(300, 2))]
    monitor = watched(learned).monitor
    list(monitor.absorb(decoded(learned, [{**record, "timestamp": START} for record in flood])))
    list(monitor.absorb(decoded(learned, honest)))
    (open_window,) = monitor.state()["windows"]["open"]
    assert len(open_window["versions"]) <= NAMES_PER_VERSION * 16 + 2
    (report,) = monitor.flush(0.0)
    counted = {facts.model_version: facts.predictions for facts in report.versions}
    assert counted["v1"] == 300
    assert len(counted) <= 16 + 2
    assert sum(counted.values()) == 3300
