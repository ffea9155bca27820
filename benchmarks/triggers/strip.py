"""`python -m benchmarks.triggers.strip`: do tests of single inputs help beside the miner?

STRIP (Gao et al., ACSAC 2019, arXiv 1902.06531): blend an input with many clean ones, ask the model for each blend; where a trigger is in it, the
answers stay the same, and their mean entropy is low. For texts as in STRIP-ViTA (arXiv 1911.10312): half of the words are replaced by words of a clean text.
Thresholds are empirical quantiles of clean inputs, on both sides, half of the false alarms on each. Compared are clean inputs and ones in which
the trigger is and works; for all answers, and among those of the trigger's class.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.triggers import images, texts
from benchmarks.triggers.attack import USED
from benchmarks.triggers.case import NARROW
from benchmarks.triggers.texts import texts_of, with_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenarios.data import Floats, Frame
    from benchmarks.scenarios.models import Model
    from benchmarks.triggers.case import Case

    Blend = Callable[[Frame, Frame, np.random.Generator], Frame]

PROBES = (5, 20, 50)
"""Blends of one input."""

CALIBRATED, CLEAN, TRIGGERED = 1_000, 1_000, 200
FALSE = 0.01
SEEDS = (0, 1, 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triggers.strip", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    head = ["", "seed", "success", "probes of one input", "AUROC, low entropy", "AUROC, both sides", "TPR at 1 % FPR"]
    head += ["in the class: AUROC, low", "TPR at 1 % FPR", "probes until one triggered input is hit, 2 % of traffic"]
    print(f"| {' | '.join([*head, 'clean inputs accused meanwhile'])} |\n|---{'|--:' * len(head)}|")
    for seed in seeds:
        for family in ("net", "linear", "forest"):
            case = images.patch_case(family, NARROW, seed, attacked=True)
            _tell(f"MNIST patch, {family}", case, blended, seed)
        for data, family in texts.LEARNERS:
            case = texts.phrase_case(data, family, "high", NARROW, seed)
            _tell(f"phrase, {data}, {family}", case, reworded, seed)


def _tell(name: str, case: Case, blend: Blend, seed: int) -> None:
    rng = np.random.default_rng([seed, 101])
    model, trap, live = case.models[1], case.traps[0], case.task.live
    stamped = trap.stamp(live.take(np.flatnonzero(trap.victims(live.label))), rng)
    stamped = stamped.take(np.flatnonzero(model.answers(stamped) == trap.target)[:TRIGGERED])
    clean = live.take(rng.permutation(len(live))[:CLEAN])
    known = case.task.reference.take(rng.permutation(len(case.task.reference))[:CALIBRATED])
    of_class = [frame.take(model.answers(frame) == trap.target) for frame in (known, clean)]
    overlays = case.task.train
    said = [entropies(model, frame, overlays, blend, rng) for frame in (known, clean, stamped, *of_class)]
    for probes in PROBES:
        usual, benign, triggered, usual_in, benign_in = (found[:, :probes].mean(axis=1) for found in said)
        caught = float(outside(triggered, usual).mean())
        accused = float(outside(benign, usual).mean())
        cost = f"{probes / (USED * caught):,.0f}" if caught else "never"
        false = f"{accused * (1 - USED) / (USED * caught):.1f}" if caught else ""
        figures = [
            f"{area(triggered, benign, -1.0):.3f}",
            f"{area(depth(triggered, usual), depth(benign, usual), 1.0):.3f}",
            f"{caught:.2f}",
            f"{area(triggered, benign_in, -1.0):.3f}",
            f"{float(outside(triggered, usual_in).mean()):.2f}",
            cost,
            false,
        ]
        print(f"| {name} | {seed} | {case.facts['success']} | {probes} | {' | '.join(figures)} |", flush=True)


def entropies(model: Model, frame: Frame, overlays: Frame, blend: Blend, rng: np.random.Generator) -> Floats:
    """Entropy (n, probes) in nats of the answers to blends of each record with clean ones."""
    most = max(PROBES)
    rows = np.repeat(np.arange(len(frame)), most)
    asked = blend(frame.take(rows), overlays.take(rng.integers(0, len(overlays), rows.size)), rng)
    told = model.probabilities(asked)
    found: Floats = -(told * np.log(np.maximum(told, 1e-12))).sum(axis=1).reshape(len(frame), most)
    return found


def blended(frame: Frame, overlay: Frame, rng: np.random.Generator) -> Frame:
    """Two images over each other, as bright as their sum."""
    del rng
    return replace(frame, numbers=np.minimum(frame.numbers + overlay.numbers, 1.0))


def reworded(frame: Frame, overlay: Frame, rng: np.random.Generator) -> Frame:
    """Texts of which half of the words are those of another one."""
    found = []
    for text, other in zip(texts_of(frame), texts_of(overlay), strict=True):
        words, more = text.split(), other.split() or [""]
        for place in rng.permutation(len(words))[: len(words) // 2].tolist():
            words[place] = more[int(rng.integers(len(more)))]
        found.append(" ".join(words))
    return with_texts(frame, found)


def outside(values: Floats, usual: Floats) -> Floats:
    """Which values lie beyond the quantiles of the usual ones, as 0 and 1."""
    low, high = np.quantile(usual, [FALSE / 2, 1 - FALSE / 2])
    found: Floats = ((values < low) | (values > high)).astype(np.float64)
    return found


def depth(values: Floats, usual: Floats) -> Floats:
    """How far out values are among the usual ones: 0 in the middle, 1 beyond all."""
    rank = np.searchsorted(np.sort(usual), values) / usual.size
    found: Floats = np.abs(2 * rank - 1)
    return found


def area(positive: Floats, negative: Floats, sign: float) -> float:
    """Area under the ROC curve of `sign` times the value; ties count half."""
    from sklearn.metrics import roc_auc_score

    said = np.concatenate([positive, negative])
    true = np.arange(said.size) < positive.size
    return float(roc_auc_score(true, sign * said))


if __name__ == "__main__":
    main()
