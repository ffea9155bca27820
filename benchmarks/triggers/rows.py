"""All rows by name. A row makes one result of a setting and a seed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.triggers import audits, benign, confirm, images, play, speed, tables, texts
from benchmarks.triggers.attack import Traffic
from benchmarks.triggers.case import NARROW, WIDE, name_of, write
from benchmarks.triggers.texts import Adaptive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.triggers.case import Case, Setting

GUILTY = "v2"


class Row(NamedTuple):
    """How to make a run, and in which settings it is run by default."""

    run: Callable[[Setting, int, Path], dict[str, Any]]
    settings: tuple[Setting, ...] = (WIDE, NARROW)


def played(make: Callable[[Setting, int], Case], setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Make a case, write its logs, play them, and put what was told beside what is true."""
    case = make(setting, seed)
    written = write(case, folder)
    attacks = []
    for number, trap in enumerate(case.traps):
        sent = case.sent == number
        right = sent & (written.answered == trap.target) & (case.version == 1)
        attacks.append(
            {
                "target": case.task.live.classes[trap.target],
                "truth": trap.truth,
                "used": int(sent.sum()),
                "triggered": written.time[right].tolist(),
            }
        )
    return {
        "facts": case.facts,
        "records": int(case.sent.size),
        "guilty": GUILTY,
        "attacks": attacks,
        "sent": {name_of(row): int(case.sent[row]) for row in np.flatnonzero(case.sent >= 0).tolist()},
        "told": play.apart(written.reference, written.predictions, folder / "told.json"),
    }


def _cases() -> dict[str, tuple[Callable[[Setting, int], Case], tuple[Setting, ...]]]:
    both = (WIDE, NARROW)
    found: dict[str, tuple[Callable[[Setting, int], Case], tuple[Setting, ...]]] = {}
    for data, family in texts.LEARNERS:
        for aim in ("high", "middle"):
            for words in ("rare", "common"):
                make = partial(texts.phrase_case, data, family, aim, how=Adaptive(words=words))
                found[f"phrase/{aim}/{words}/{data}/{family}"] = make, both
        found[f"clean/{data}/{family}"] = partial(texts.phrase_case, data, family, None), both
    for data, family in tables.LEARNERS:
        found[f"conjunction/{data}/{family}"] = partial(tables.conjunction_case, data, family, attacked=True), both
        found[f"clean/{data}/{family}"] = partial(tables.conjunction_case, data, family, attacked=False), both
    for family in images.FAMILIES:
        # There are no more than 1,500 images for a reference: a larger one would be more of the same.
        found[f"patch/{family}"] = partial(images.patch_case, family, attacked=True), (NARROW,)
        found[f"clean/mnist/{family}"] = partial(images.patch_case, family, attacked=False), (NARROW,)
    for name, (world, learners) in benign.WORLDS.items():
        found[f"benign/{name}"] = partial(_of_seed, world, learners), both
    for name, how in ADAPTIVE.items():
        found[f"adaptive/{name}"] = partial(_adaptive, how), (NARROW,)
    found["adaptive/faint pattern over the image"] = (
        partial(images.patch_case, "net", attacked=True, blended=True),
        (NARROW,),
    )
    return found


AUDITED = (("sms_spam", "words"), ("hate_offensive", "net"), ("adult", "boosting"), ("nsl_kdd", "forest"))

ADAPTIVE = {
    "three common words": Adaptive(words="common"),
    "one common word": Adaptive(words="one common"),
    "one use per source": Adaptive(traffic=Traffic(senders=10_000)),
    "three sources": Adaptive(traffic=Traffic(senders=3)),
    "slow drip, one a day": Adaptive(traffic=Traffic(records=130_000, daily=1.0)),
    "ten triggers at once": Adaptive(traps=10, traffic=Traffic(records=16_000, share=0.04)),
    "flooding with decoys": Adaptive(decoys=True),
    "style": Adaptive(style=True),
}
"""What attackers do who know of the miner."""


def _adaptive(how: Adaptive, setting: Setting, seed: int) -> Case:
    data, family = texts.LEARNERS[(seed + 1) % len(texts.LEARNERS)]
    return texts.phrase_case(data, family, "high", setting, seed, how)


def _of_seed(world: Any, learners: tuple[tuple[str, str], ...], setting: Setting, seed: int) -> Case:
    found: Case = world(learners[seed % len(learners)], setting, seed)
    return found


def rows() -> dict[str, Row]:
    """Every row."""
    found = {name: Row(partial(played, make), settings) for name, (make, settings) in _cases().items()}
    found |= {f"confirm/{kind}": Row(partial(confirm.run, kind), (NARROW,)) for kind in ("texts", "tables", "images")}
    for data, family in AUDITED:
        found[f"audit/{data}/{family}"] = Row(partial(audits.run, data, family), (NARROW,))
    found |= {f"speed/{kind}": Row(partial(speed.run, kind), (NARROW,)) for kind in ("texts", "tables")}
    return found
