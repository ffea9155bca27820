"""Which sources say the same against the model, on the same predictions, within minutes?

Honest reviewers meet on an item too when the model is wrong there, so being found here accuses nobody: a group is only a
candidate, whose later labels are pooled and judged like a source's. What formed it is not used as evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints, Words

MEETING = 600.0
"""Seconds within which two labels of one item are a meeting."""

NEIGHBOURS = 6
"""A label meets at most so many that precede it on its item: bounds the work whatever is sent."""

FEWEST_MEETINGS = 2
CLOSE = 4.0
"""Log-odds of meeting, against independence, from which two sources are joined."""

SMALLEST = 3
"""Sources that make a group."""


def find_groups(time: Floats, item: Words, label: Ints, source: Ints) -> list[Ints]:
    """Groups of sources in disagreeing labels, all (m,): connected components of at least 3 sources, each ascending.

    An edge joins two sources that met on at least two items, where the log-odds ratio of "a labelled it so" and "b
    labelled it so" over the (item, label) pairs (Haldane-Anscombe corrected) is at least `CLOSE`.
    """
    if not time.size:
        return []
    _, said = np.unique(np.stack([item, label.astype(np.uint64)]), axis=1, return_inverse=True)
    said = said.reshape(-1)
    names, who = np.unique(source, return_inverse=True)
    _, once = np.unique(said * names.size + who, return_index=True)
    said, who, time = said[once], who[once], time[once]
    order = np.lexsort((time, said))
    said, who, time = said[order], who[order], time[order]
    size = names.size
    met = []
    for back in range(1, NEIGHBOURS + 1):
        near = (said[back:] == said[:-back]) & (time[back:] - time[:-back] <= MEETING)
        a, b = who[:-back][near], who[back:][near]
        met.append(np.minimum(a, b) * size + np.maximum(a, b))
    pair, times = np.unique(np.concatenate(met), return_counts=True)
    a, b = pair // size, pair % size
    mine = np.bincount(who, minlength=size)
    everything = int(said[-1]) + 1
    both = times + 0.5
    neither = np.maximum(everything - mine[a] - mine[b] + times, 0) + 0.5
    odds = np.log(both * neither / ((mine[a] - times + 0.5) * (mine[b] - times + 0.5)))
    edge = (times >= FEWEST_MEETINGS) & (odds >= CLOSE)
    from scipy.sparse import coo_array  # noqa: PLC0415 - only who has something to judge pays for SciPy
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    graph = coo_array((np.ones(int(edge.sum())), (a[edge], b[edge])), shape=(size, size))
    count, component = connected_components(graph, directed=False)
    large = np.bincount(component, minlength=count) >= SMALLEST
    return [names[component == one] for one in np.flatnonzero(large)]
