"""Times, shares and strengths as people read them. Pure: nothing here knows what time it is."""

from __future__ import annotations

import math

import numpy as np

LONGEST = 600
"""Characters of a summary: what a page and a metric's label have room for."""

STRONGEST = 900.0
"""Times the budget from which evidence is only called stronger than that: it is capped a little above."""

JUST = 0.095
"""Nats below which evidence beyond the budget is a tenth above it at most."""

WEAKEST = 0.001
"""Part of the budget below which evidence is next to nothing."""


def instant(time: float) -> str:
    """Unix seconds as a person reads them, to the minute, in UTC."""
    told = np.datetime_as_string(np.datetime64(int(time), "s"), unit="m")
    return f"{str(told).replace('T', ' ')} UTC"


def percent(share: float) -> str:
    """A share with two digits that count."""
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def strength(log_e: float) -> str:
    """Evidence, in nats of the page budget, in words and in numbers."""
    times = math.exp(min(log_e, 700.0))
    if times >= STRONGEST:
        words = f"more than {STRONGEST:.0f} times what a page takes"
    elif 0 <= log_e < JUST:
        words = "just what a page takes"
    elif log_e >= 0:
        words = f"{times:.2g} times what a page takes" if times < 10 else f"{times:.0f} times what a page takes"
    elif times >= WEAKEST:
        words = f"{percent(times)} of what a page takes"
    else:
        return "next to nothing"
    return f"{words}, {log_e:+.1f} nats"


def within(text: str, most: int = LONGEST) -> str:
    """The text, cut after a word where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    cut = text[: most - 3]
    whole = cut.rpartition(" ")[0]
    return f"{whole or cut}..."


def with_advice(why: str, advice: str) -> str:
    """What is wrong, then what to do: where there is no room for both, what to do stays whole."""
    return f"{within(why, LONGEST - len(advice) - 1)} {advice}"
