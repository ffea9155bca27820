"""The reference's file: it comes back as it was, or is refused by name."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from poisonwatch.errors import BaselineError
from poisonwatch.formats.records import name_of
from poisonwatch.reference.build import build, load_or_build
from poisonwatch.reference.file import Reference, digest, in_words, load, save
from tests.reference.baselines import all_baselines, demo, same_baselines
from tests.streams import (
    START,
    batch,
    predictions,
    rich_predictions,
    rich_reference,
    usual_reference,
    watched,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from poisonwatch.types import Report


@pytest.mark.parametrize("learned", [usual_reference, rich_reference, demo], ids=["usual", "rich", "demo"])
def test_round_trip(tmp_path: Path, learned: Callable[[], Reference]) -> None:
    """A saved reference is read as it was, and gives the same baselines and the same enrichment, bit for bit."""
    built = learned()
    save(built, tmp_path / "r.json")
    read = load(tmp_path / "r.json")
    assert read == built
    for first, second in zip(all_baselines(built), all_baselines(read), strict=True):
        assert same_baselines(first, second)
    assert load_or_build(tmp_path / "r.json") == built
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    live = rich_predictions(200, 5) if built.schema.model == "rich" else predictions(200, 5)
    decoded = batch(built, [{**record, "model": built.schema.model} for record in live])
    enriched, again = (of.enrichment().apply(decoded, np.ones(200, np.bool_)) for of in (built, read))
    assert np.array_equal(enriched.numbers, again.numbers, equal_nan=True)
    assert np.array_equal(enriched.marks, again.marks)


def test_hostile_names_survive(tmp_path: Path) -> None:
    """Names that are hard to write come back as they were, half a surrogate pair as a question mark."""
    odd = "\"<&'\\\u2028é\U0001f4a9"
    records = [
        {"prediction": odd if n % 2 else "\ud800", "features": {"é`": n, "c": odd}, "model": "m<"} for n in range(150)
    ]
    built = build([write(tmp_path / "log", records)])
    save(built, tmp_path / "r.json")
    read = load(tmp_path / "r.json")
    assert read == built
    assert sorted(read.schema.outcome.values) == sorted([name_of(odd), "?"])
    in_words(read).encode()


def test_no_changed_byte_is_believed(tmp_path: Path) -> None:
    """Whichever byte is changed, the file is refused, or says exactly what it said (space between values).

    A sample of 500: that of a file in which one byte in 100 could be changed at will none is hit has a chance of 0.7 %.
    """
    path = tmp_path / "r.json"
    built = rich_reference()
    save(built, path)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    refused: list[str] = []
    for place in rng.integers(0, len(content), 500).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            read = load(path)
        except BaselineError as error:
            refused.append(str(error))
        else:
            assert read == built
    assert len(refused) > 500 * 0.5
    assert all(str(path) in text and "build" in text for text in refused)


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -20])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    """A file that was cut off is refused, wherever it was cut within its content."""
    path = tmp_path / "r.json"
    save(usual_reference(), path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[:keep])
    with pytest.raises(BaselineError, match="build one with"):
        load(path)


def test_other_format_is_refused(tmp_path: Path) -> None:
    """A reference of a later format is refused with both numbers and the remedy."""
    path = tmp_path / "r.json"
    save(usual_reference(), path)
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(BaselineError, match=r"r\.json: reference of format 99, this agent reads 3: build it again"):
        load(path)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "shorter": lambda value: value[:-1],
    "longer": lambda value: [*value, value[-1]],
    "huge": lambda _: 10**30,
    "negative": lambda _: -1,
    "bytes": lambda value: base64.b64encode(base64.b64decode(value)[:-8]).decode(),
    "zero": lambda value: base64.b64encode(bytes(len(base64.b64decode(value)))).decode(),
    "empty": lambda value: type(value)(),
}


def damaged(told: Any, what: str) -> None:
    """Change a reference's content at a path, so that it stays well-formed."""
    where, how = what.split()
    *path, last = [int(name) if name.isdigit() else name for name in where.split(".")]
    for name in path:
        told = told[name]
    if how == "drop":
        del told[last]
    else:
        told[last] = CHANGES[how](told[last])


HOSTILE = [
    *(
        f"{part}.{name} {how}"
        for part in ("outcome", "errors", "lines")
        for name in ("counts", "low", "high", "rate")
        for how in ("shorter", "longer", "empty")
    ),
    *("outcome.design_effect shorter", "outcome.day_noise longer", "outcome.counts.3 huge", "errors.counts.0 negative"),
    *("confusion shorter", "confusion.0 longer", "confusion.0.0 negative", "confusion.0.0 huge", "confusion empty"),
    *("cuts.outlier drop", "cuts.confidence empty", "cuts.surprise shorter", "cuts empty"),
    *("schema.features.0 drop", "schema.features.3 drop", "schema.features.4 drop", "schema.features.5 drop"),
    *("schema.outcome.values longer", "schema.features.5.width huge", "schema.features.5.width negative"),
    *("fitted.surrogate.margin negative", "fitted.surrogate.classes longer", "fitted.surrogate.residuals shorter"),
    *(
        "fitted.surrogate.class_count huge",
        "fitted.surrogate.class_count negative",
        "fitted.surrogate.residuals.0.value bytes",
    ),
    *("fitted.surrogate.model.start bytes", "fitted.surrogate.model.width huge", "fitted.surrogate.model.weight bytes"),
    *(
        "fitted.surrogate.model.beside.slope bytes",
        "fitted.surrogate.model.beside.numbers huge",
        "fitted.surrogate.model.beside.codes shorter",
        "fitted.surrogate.model.beside.bits huge",
        "fitted.counts_flips drop",
    ),
    *("fitted.vocabulary.words zero", "fitted.centroids.means bytes"),
    *("fitted.centroids.width huge", "fitted.centroids.classes longer", "fitted.centroids.whitening bytes"),
    "fitted.centroids.limits bytes",
    *(
        "fitted.forest.knots bytes",
        "fitted.forest.mass zero",
        "fitted.forest.features huge",
        "fitted.forest.height huge",
    ),
    *(
        "fitted.surrogate drop",
        "fitted.vocabulary drop",
        "fitted.centroids drop",
        "fitted.forest drop",
        "fitted.unsure drop",
    ),
]


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_content_is_refused(tmp_path: Path, what: str) -> None:
    """A file whose SHA-256 is right and whose parts do not fit together is refused by name, before anything is watched."""
    told = json.loads(msgspec.json.encode(rich_reference()))
    damaged(told, what)
    path = tmp_path / "r.json"
    try:
        changed = msgspec.convert(told, Reference)
    except msgspec.ValidationError:
        path.write_text(json.dumps(told))
    else:
        save(msgspec.structs.replace(changed, sha256=digest(changed)), path)
    with pytest.raises(BaselineError, match=r"r\.json: .*build"):
        load(path)


def reports(learned: Reference) -> list[Report]:
    """What a monitor with this reference says of a stream that moves."""
    monitor = watched(learned).monitor
    moved = [*predictions(600, 5), *predictions(600, 6, start=START + 700, spam=0.6, shift=1.0)]
    return list(monitor.absorb(batch(learned, moved)))


def test_log_and_built_reference_are_the_same(tmp_path: Path) -> None:
    """A monitor learns the same from a trusted log as from the reference that was built of it, bit for bit."""
    log = write(tmp_path / "log", predictions(2000, 99, start=START - 86400))
    save(build([log]), tmp_path / "r.json")
    from_log, from_file = reports(load_or_build(log)), reports(load_or_build(tmp_path / "r.json"))
    assert from_log == from_file
    assert any(evidence.log_e > 0 for report in from_log for evidence in report.evidence)
