"""The reference: learned alike every time, written whole, and believed only when it is what was written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

import poisonwatch.demo
from poisonwatch.errors import BaselineError, LogError
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.formats.records import name_of
from poisonwatch.profile.indicators import unseen_code
from poisonwatch.reference.build import FEWEST_RECORDS, build, load_or_build
from poisonwatch.reference.file import in_words, load, save
from tests.streams import START, Record, batch, lines, predictions, reference, watched, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.reference.file import Reference
    from poisonwatch.types import Report

DEMO = Path(poisonwatch.demo.__file__).parent / "reference.ndjson.gz"


def same_baselines(first: Baseline, second: Baseline) -> bool:
    """Are two baselines the same, bit for bit?"""
    return first.questions.indicators == second.questions.indicators and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("counts", "rate", "low", "high", "design_effect", "day_noise")
    )


def test_built_alike_every_time(tmp_path: Path) -> None:
    """The same log gives the same reference with the same SHA-256, and another log another."""
    log = write(tmp_path / "log", predictions(500))
    other = write(tmp_path / "other", predictions(500, 1))
    assert build([log]) == build([log])
    assert build([log]).sha256 != build([other]).sha256


def test_compression_does_not_matter(tmp_path: Path) -> None:
    """A compressed log gives the same baseline as the plain one; only the origin differs."""
    log = write(tmp_path / "log", predictions(500))
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    plain, compressed = build([log]), build([packed])
    assert msgspec.structs.replace(plain, origins=[], sha256="") == msgspec.structs.replace(
        compressed, origins=[], sha256=""
    )


def test_round_trip(tmp_path: Path) -> None:
    """A saved reference is read as it was, and gives the same baselines, bit for bit."""
    built = build([DEMO])
    save(built, tmp_path / "r.json")
    read = load(tmp_path / "r.json")
    assert read == built
    for first, second in zip(built.baselines(), read.baselines(), strict=True):
        assert same_baselines(first, second)
    assert load_or_build(tmp_path / "r.json") == built
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


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
    """Whichever byte is changed, the file is refused, or says exactly what it said (space between values)."""
    built = reference(tmp_path, 200)
    path = tmp_path / "r.json"
    save(built, path)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    refused: list[str] = []
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            read = load(path)
        except BaselineError as error:
            refused.append(str(error))
        else:
            assert read == built
    assert len(refused) > len(content) / 3 * 0.5
    assert all(str(path) in text and "build" in text for text in refused)


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -20])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    """A file that was cut off is refused, wherever it was cut within its content."""
    path = tmp_path / "r.json"
    save(reference(tmp_path, 200), path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[:keep])
    with pytest.raises(BaselineError, match="build one with"):
        load(path)


def test_other_format_is_refused(tmp_path: Path) -> None:
    """A reference of a later format is refused with both numbers and the remedy."""
    path = tmp_path / "r.json"
    save(reference(tmp_path, 200), path)
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(BaselineError, match=r"r\.json: reference of format 99, this agent reads 1: build it again"):
        load(path)


def test_missing_files(tmp_path: Path) -> None:
    """A file that is not there is named, with the remedy."""
    with pytest.raises(BaselineError, match=r"none: the reference cannot be read \(No such file or directory\): build"):
        load(tmp_path / "none")
    with pytest.raises(LogError, match=r"none: the log cannot be read \(No such file or directory\)"):
        build([tmp_path / "none"])
    (tmp_path / "fake.gz").write_bytes(b"not compressed")
    with pytest.raises(LogError, match=r"fake\.gz: the log cannot be read"):
        build([tmp_path / "fake.gz"])


@pytest.mark.parametrize("count", [0, 1, FEWEST_RECORDS - 1])
def test_too_few_records(tmp_path: Path, count: int) -> None:
    """Too few records are refused, with how many there are and are needed."""
    log = write(tmp_path / "log", predictions(FEWEST_RECORDS)[:count])
    with pytest.raises(BaselineError, match=f"only {count} usable.*at least 100" if count else "no record"):
        build([log])


def test_enough_records(tmp_path: Path) -> None:
    """A hundred records are a reference, if a blunt one; bad lines among them are counted."""
    log = tmp_path / "log"
    log.write_bytes(b"bad\n" + lines(predictions(FEWEST_RECORDS)) + b"{}\n")
    built = build([log])
    assert (built.records, built.rejected) == (FEWEST_RECORDS, {"malformed": 1, "missing_prediction": 1})


def test_other_models_are_left_out(tmp_path: Path) -> None:
    """In a log that models share, another model's records are no rejected lines of this one."""
    other = [{**record, "model": "other"} for record in predictions(300, 1)]
    both = write(tmp_path / "both", [*predictions(300), *other])
    alone = write(tmp_path / "alone", predictions(300))
    shared, own = build([both], "mail"), build([alone], "mail")
    assert (shared.records, shared.rejected) == (300, {})
    assert same_baselines(shared.baselines()[0], own.baselines()[0])


def test_several_logs_are_one(tmp_path: Path) -> None:
    """A reference learned from pieces of a log is that of the whole log; every piece is named as an origin."""
    records = predictions(600)
    whole = build([write(tmp_path / "whole", records)])
    pieces = build([write(tmp_path / "a", records[:200]), write(tmp_path / "b", records[200:])])
    assert same_baselines(whole.baselines()[0], pieces.baselines()[0])
    assert [(origin.name, origin.bytes) for origin in pieces.origins] == [
        (name, (tmp_path / name).stat().st_size) for name in ("a", "b")
    ]


def without_time(record: Record) -> Record:
    """The record as a log without times has it."""
    return {name: value for name, value in record.items() if name != "timestamp"}


def test_without_times(tmp_path: Path) -> None:
    """Records without times are exchangeable: no blocks, no days, the noise between days is the stated default."""
    records = predictions(6000, rate=0.005)
    timed = build([write(tmp_path / "timed", records)])
    exchangeable = build([write(tmp_path / "plain", [without_time(record) for record in records])])
    assert (timed.timed, timed.first, timed.last) == (True, records[0]["timestamp"], records[-1]["timestamp"])
    assert (exchangeable.timed, exchangeable.first, exchangeable.last) == (False, None, None)
    assert np.array_equal(timed.outcome.counts, exchangeable.outcome.counts)
    assert set(exchangeable.outcome.design_effect) == {1.0}
    assert len(set(exchangeable.outcome.day_noise)) == 1
    assert exchangeable.outcome.day_noise[0] > 0
    assert len(set(timed.outcome.day_noise)) > 1
    assert "taken as exchangeable" in in_words(exchangeable)


def test_one_record_without_time_makes_all_exchangeable(tmp_path: Path) -> None:
    """Times are used only where every record has one: half of a clock is none."""
    records = predictions(300)
    assert not build([write(tmp_path / "log", [*records, without_time(records[0])])]).timed


def test_labels_give_error_counts(tmp_path: Path) -> None:
    """Known truth in the reference gives per class how many labels there were and how many disagreed."""
    records = predictions(200)
    for number, record in enumerate(records):
        if number % 2:
            record["label"] = "ham"
    expected = {
        "ham": (sum(r["prediction"] == "ham" for r in records[1::2]), 0),
        "spam": (sum(r["prediction"] == "spam" for r in records[1::2]),) * 2,
    }
    built = build([write(tmp_path / "log", records)])
    assert built.labels == expected
    assert f"spam {expected['spam'][1]}/{expected['spam'][0]}" in in_words(built)


def test_versions(tmp_path: Path) -> None:
    """A reference says which model versions its predictions carried, in the file and to a person."""
    log = write(tmp_path / "log", [*predictions(200), *predictions(100, 1, version="v2")])
    save(build([log]), tmp_path / "r.json")
    read = load(tmp_path / "r.json")
    assert read.versions == {"v1": 200, "v2": 100}
    assert "v1 (200), v2 (100)" in in_words(read)
    unnamed = [{name: said for name, said in record.items() if name != "model_version"} for record in predictions(200)]
    assert build([write(tmp_path / "unnamed", unnamed)]).versions == {}


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


def test_regression_and_list_features(tmp_path: Path) -> None:
    """A model that predicts a number from a list of numbers needs no configuration either."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 4))
    records = [
        {"timestamp": START + n, "prediction": float(row.sum()), "features": row.tolist()} for n, row in enumerate(rows)
    ]
    built = build([write(tmp_path / "log", records)])
    assert (built.schema.outcome.kind, built.schema.layout, built.records) == ("numerical", "list", 400)
    baseline, _ = built.baselines()
    assert baseline.questions.numbers == ("prediction", *(f"features[{n}]" for n in range(4)))
    assert [len(built.cuts[name]) > 0 for name in baseline.questions.numbers] == [True] * 5


def with_feature(records: list[Record], name: str, values: Iterable[object]) -> list[Record]:
    """The records with one more feature."""
    return [
        {**record, "features": {**record["features"], name: value}}
        for record, value in zip(records, values, strict=False)
    ]


def drawn(what: str, rng: np.random.Generator, n: int) -> list[str]:
    """Values (n,) of a feature of many values that never changes."""
    if what == "unique":
        return [f"{number:08x}" for number in rng.permutation(1 << 20)[:n].tolist()]
    shape, size = what.split()
    weight = np.arange(1, int(size) + 1) ** (-1.0 if shape == "zipf" else 0.0)
    return [f"{shape}{number}" for number in rng.choice(weight.size, n, p=weight / weight.sum()).tolist()]


@pytest.mark.parametrize("what", ["unique", "uniform 3000", "zipf 400", "uniform 300", "uniform 1000"])
def test_many_values_are_no_drift(tmp_path: Path, what: str) -> None:
    """A clean feature of many values never passes the budget: the reference does not expect what only chance gave it.

    The budget of one false page in 30 days allows one in these 5.6 hours with a probability of at most 0.8 %.
    """
    for seed in range(3):
        rng = np.random.default_rng(seed)
        trusted = [without_time(record) for record in predictions(3000, 100 + seed)]
        learned = build([write(tmp_path / "log", with_feature(trusted, "many", drawn(what, rng, 3000)))])
        live = with_feature(predictions(20_000, 200 + seed), "many", drawn(what, rng, 20_000))
        found = list(watched(learned).monitor.absorb(batch(learned, live)))
        assert found
        alerts = [e for report in found for e in report.evidence if e.group in {"inputs", "quality"} and e.log_e > 0]
        assert alerts == []


@pytest.mark.parametrize("what", ["uniform 100", "zipf 30", "zipf 400", "uniform 700"])
def test_counts_of_codes_stay_consistent(tmp_path: Path, what: str) -> None:
    """Leaving one out moves counts between the codes of a column, and neither makes nor loses any."""
    values = drawn(what, np.random.default_rng(1), 3000)
    learned = build([write(tmp_path / "log", with_feature(predictions(3000), "many", values))])
    baseline, _ = learned.baselines()
    questions = baseline.questions
    once = sum(values.count(value) == 1 for value in set(values))
    for row, column in enumerate(questions.code_columns):
        counts = baseline.counts[questions.code_place(row)]
        assert counts.min() >= 0
        assert counts.sum() == 3000
        if column.name == "features.many":
            assert column.kind == "categorical"
            assert counts[unseen_code(column)] == once


def test_a_value_met_once_would_be_unseen_without_itself(tmp_path: Path) -> None:
    """A value met once counts as unseen and not as itself; a rejected record takes nothing away."""
    values = ["a"] * 120 + ["b"]
    log = with_feature(predictions(121), "tiny", values)
    baseline, _ = build([write(tmp_path / "log", log)]).baselines()
    row = [column.name for column in baseline.questions.code_columns].index("features.tiny")
    assert baseline.counts[baseline.questions.code_place(row)].tolist() == [0, 120, 0, 0, 1]
    log[-1]["timestamp"] = 1
    baseline, _ = build([write(tmp_path / "log", log)]).baselines()
    assert baseline.counts[baseline.questions.code_place(row)].tolist() == [0, 120, 0, 0, 0]


@pytest.mark.parametrize("value", [7, "x", True, [1.0]])
def test_always_null_is_known(tmp_path: Path, value: object) -> None:
    """A feature that is null throughout is no unknown one; that it is filled one day shows as missing no longer."""
    learned = build([write(tmp_path / "log", with_feature(predictions(3000), "later", [None] * 3000))])
    live = with_feature(predictions(2000, 5), "later", [None] * 1000 + [value] * 1000)
    (name,) = {learned.schema.model or ""}
    decoded = JsonlPredictions({name: learned.schema}, 1 << 20).decode(lines(live))
    assert (decoded.predictions, decoded.faults) == (2000, {})
    found = list(watched(learned).monitor.absorb(decoded.batches[0]))
    told = [e for report in found for e in report.evidence if e.log_e > 0]
    assert {e.signal for e in told} == {"missing:features.later"}
    assert all(e.onset >= START + 600 for e in told)


def test_in_words_of_the_demo() -> None:
    """What a person is shown names the model, the span, the size and the indicators."""
    text = in_words(build([DEMO]))
    for expected in ("sms-spam", "prediction = spam", "design effect", "learned from"):
        assert expected in text
