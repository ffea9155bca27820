"""A million of everything that a sender chooses: hostile lines, each of which is new."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.system.hostile import HONEST, SERVICE, Besieged, Peak, by_label, honest_classes, mixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.system.programs import Series

LOG = "hostile.ndjson"
NATIVE = {"path": LOG}
LABELS = {"path": LOG, "content": "feedback"}
KSERVE = {"path": LOG, "format": {"kind": "kserve", "features": ["amount", "age", "country"]}}
HONEST_LOG = {"path": "honest.ndjson"}


@dataclass(frozen=True)
class Flood:
    """Lines that a number and a time make, for agents of so many models, and what becomes of all of them."""

    line: Callable[[int, str], bytes]
    rejected: frozenset[str] = frozenset()
    fault: str = ""
    models: int = 1
    source: Mapping[str, Any] = field(default_factory=lambda: NATIVE)


def _native(number: int, at: str, **changed: Any) -> bytes:
    record = {
        "timestamp": float(at),
        "prediction_id": f"h{number}",
        "model": "mail",
        "model_version": "evil",
        "features": {"amount": 0.5, "age": 30, "country": "de"},
        "prediction": "ham",
        "confidence": 0.9,
        **changed,
    }
    return json.dumps(record).encode() + b"\n"


def _features(**changed: Any) -> dict[str, Any]:
    return {"amount": 0.5, "age": 30, "country": "de", **changed}


def _label(number: int, at: str) -> bytes:
    label = {
        "timestamp": float(at),
        "prediction_id": f"p5-{number % HONEST}" if number % 2 else f"h{number}",
        "label": f"label-{number}",
        "source": f"s{number}",
        "attributes": {f"a{number}": f"v{number}", "ip": f"{number}"},
    }
    return json.dumps(label).encode() + b"\n"


def _asked(number: int, at: str) -> bytes:
    event = {
        "specversion": "1.0",
        "type": f"{SERVICE}.request",
        "id": f"r{number}",
        "time": float(at) // 3600 * 3600,
        "inferenceservicename": "mail",
        "annotations": {f"a{number}": "x"},
        "data": {"instances": [[0.5, 30, "de"]]},
    }
    return json.dumps(event).encode() + b"\n"


FLOODS = {
    "classes": Flood(lambda n, at: _native(n, at, prediction=f"class-{n}")),
    "versions": Flood(lambda n, at: _native(n, at, model_version=f"v-{n}")),
    "versions, two models": Flood(lambda n, at: _native(n, at, model_version=f"v-{n}"), models=2),
    "models": Flood(lambda n, at: _native(n, at, model=f"m-{n}"), frozenset(["other_model"])),
    "models, two configured": Flood(lambda n, at: _native(n, at, model=f"m-{n}"), frozenset(["other_model"]), models=2),
    "feature names": Flood(lambda n, at: _native(n, at, features=_features(**{f"f{n}": n})), fault="unknown_feature"),
    "field names": Flood(lambda n, at: _native(n, at, **{f"field-{n}": n}), fault="unknown_field"),
    "categories": Flood(lambda n, at: _native(n, at, features=_features(country=f"c{n}"))),
    "sources": Flood(lambda n, at: _native(n, at, source=f"s{n}")),
    "segments, texts, classes in probabilities": Flood(
        lambda n, at: _native(n, at, segment=f"s{n}", text=f"t{n} u{n}", probabilities={f"c{n}": 0.5, "ham": 0.5})
    ),
    "labels and their sources": Flood(_label, source=LABELS),
    "requests without a response": Flood(_asked, frozenset(["crowded_out", "unpaired_request"]), source=KSERVE),
}


def flood(name: str, count: int, folder: Path, references: Mapping[str, Path], start: float) -> Peak:
    """Let `count` hostile lines with honest ones among them be read, check every count, and say what it took."""
    what = FLOODS[name]
    span = HONEST / count

    def hostile() -> Iterator[bytes]:
        return (what.line(number, f"{start + number * span:.3f}") for number in range(count))

    source = dict(what.source)
    alone = source == NATIVE
    sources = [source] if alone else [source, HONEST_LOG]
    if alone:
        mixed(folder / LOG, start, hostile(), count)
    else:
        with (folder / LOG).open("wb") as file:
            file.writelines(hostile())
        mixed(folder / "honest.ndjson", start, (), 0)
    models = dict(list(references.items())[: what.models])
    with Besieged(folder, models, sources) as agent:
        found = agent.has_read(count + HONEST)
        _check(what, found, count, agent.told())
        return agent.bounded()


def _check(what: Flood, found: Series, count: int, told: str) -> None:
    """Every hostile line is counted under its reason, and all that was honest as what it was."""
    rejected = by_label(found, "poisonwatch_records_rejected_total", "reason")
    waiting = by_label(found, "poisonwatch_source_waiting", "source").total()
    assert set(rejected) <= what.rejected, told
    assert rejected.total() == (count - waiting if what.rejected else 0), told
    faults = by_label(found, "poisonwatch_faults_total", "reason")
    assert set(faults) == ({what.fault} if what.fault else set()), told
    taken = sum(by_label(found, f"poisonwatch_{name}_total", "source").total() for name in ("records", "feedback"))
    assert taken == HONEST + (0 if what.rejected else count), told
    assert (
        by_label(found, "poisonwatch_predictions_total", "class", model="mail", model_version="v1") == honest_classes()
    ), told
    assert not by_label(found, "poisonwatch_predictions_late_total", "model"), told
    assert not by_label(found, "poisonwatch_duplicates_total", "model"), told
