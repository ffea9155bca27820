"""Learning a reference: alike every time, honest about its own records, counted as by hand."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from poisonwatch.errors import BaselineError, LogError
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.profile.baseline import LABELS_PRIOR
from poisonwatch.profile.indicators import WRONG_OF_FLIPPED, unseen_code
from poisonwatch.reference.build import FEWEST_RECORDS, build
from poisonwatch.reference.file import in_words, load, save
from tests.reference.baselines import demo, same_baselines
from tests.streams import (
    START,
    Record,
    batch,
    lines,
    predictions,
    rich_predictions,
    rich_reference,
    usual_reference,
    watched,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def test_built_alike_every_time(tmp_path: Path) -> None:
    """The same log gives the same reference with the same SHA-256, and another log another."""
    log = write(tmp_path / "log", rich_predictions(300))
    other = write(tmp_path / "other", rich_predictions(300, 1))
    assert build([log]) == build([log])
    assert build([log]).sha256 != build([other]).sha256


def test_compression_does_not_matter(tmp_path: Path) -> None:
    """A compressed log gives the same baseline as the plain one; only the origin differs."""
    log = write(tmp_path / "log", predictions(200))
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    plain, compressed = build([log]), build([packed])
    assert msgspec.structs.replace(plain, origins=[], sha256="") == msgspec.structs.replace(
        compressed, origins=[], sha256=""
    )


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
    assert same_baselines(shared.baseline(), own.baseline())


def test_several_logs_are_one(tmp_path: Path) -> None:
    """A reference learned from pieces of a log is that of the whole log; every piece is named as an origin."""
    records = predictions(600)
    whole = build([write(tmp_path / "whole", records)])
    pieces = build([write(tmp_path / "a", records[:200]), write(tmp_path / "b", records[200:])])
    assert same_baselines(whole.baseline(), pieces.baseline())
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


def test_errors_are_counted_as_by_hand() -> None:
    """Wrong labels overall, by class and by slice, and who was taken for whom, are those of a count record by record."""
    learned = rich_reference()
    labelled = [r for r in rich_predictions(1500, 99, start=START - 86400.0) if "label" in r]
    baseline = learned.errors_baseline()
    place = {
        "prediction": lambda record: record["prediction"],
        "segment": lambda record: record["segment"],
        "features.country": lambda record: record["features"]["country"],
    }
    told: dict[str, tuple[int, int]] = {}
    for indicator in baseline.questions.indicators:
        if indicator.text == WRONG_OF_FLIPPED:
            told[indicator.text] = int(baseline.counts[indicator.asked]), int(baseline.counts[indicator.yes])
            continue
        mark, _, where = indicator.text.partition(" where ")
        name, _, value = where.partition(" = ")
        among = [record for record in labelled if not where or place[name](record) == value]
        wrong = sum(record["label"] != record["prediction"] for record in among)
        asked, yes = (int(baseline.counts[at]) for at in (indicator.asked, indicator.yes))
        assert asked == len(among)
        # Which of them were flipped only the fit can say.
        assert yes == wrong if mark == "wrong" else 0 <= yes <= wrong
        told[indicator.text] = (asked, yes)
    assert len(told) == 2 * (1 + 2 + 2 + 3) + 1
    flipped, of_them_wrong = told[WRONG_OF_FLIPPED]
    assert of_them_wrong == told["flipped and wrong"][1] <= flipped
    assert 0 < flipped < len(labelled)
    assert told["flipped and wrong"][1] == sum(told[f"flipped and wrong where segment = {s}"][1] for s in ("eu", "us"))
    classes = (*learned.schema.outcome.values, "rare", "unseen")
    assert learned.confusion == [
        [sum((r["prediction"], r["label"]) == (said, true) for r in labelled) for true in classes] for said in classes
    ]


def test_labels_of_no_class_are_wrong(tmp_path: Path) -> None:
    """A label that names no class is wrong and counted apart; an empty one is none; without labels there is no rate."""
    records = predictions(200)
    for number, label in enumerate([" ", "eggs", "", None, True, "ham", "spam", 5]):
        records[number] |= {"label": label, "prediction": "ham"}
    built = build([write(tmp_path / "log", records)])
    ham, spam = (built.schema.outcome.values.index(name) for name in ("ham", "spam"))
    row = built.confusion[ham]
    assert (row[ham], row[spam], row[2], row[3]) == (1, 1, 0, 4)
    assert sum(map(sum, built.confusion)) == 6
    errors = built.errors_baseline()
    assert errors.counts[0] == 6
    without = usual_reference().errors_baseline()
    assert not without.counts.any()
    assert np.isfinite(without.low).all()
    assert np.isfinite(without.high).all()


def test_a_slice_without_labels_is_expected_to_be_like_the_others(tmp_path: Path) -> None:
    """It is expected to be wrong as often as a few labels at the overall rate say, not half the time, also after the reference was written and read."""
    records = rich_predictions(400)
    for record in records:
        if record["segment"] == "us":
            record.pop("label", None)
    built = build([write(tmp_path / "log", records)])
    save(built, tmp_path / "r.json")
    baseline = load(tmp_path / "r.json").errors_baseline()
    rate = dict(zip([i.text for i in baseline.questions.indicators], baseline.rate.tolist(), strict=True))
    overall = baseline.questions.indicators[[i.text for i in baseline.questions.indicators].index("wrong")]
    n, wrong = baseline.counts[overall.asked], baseline.counts[overall.yes]
    assert rate["wrong"] == pytest.approx((wrong + 0.5) / (n + 1))
    prior = LABELS_PRIOR * rate["wrong"]
    assert rate["wrong where segment = us"] == pytest.approx((prior + 0.5) / (LABELS_PRIOR + 1.0), abs=1e-6)


def test_fresh_records_are_as_the_reference_expects() -> None:
    """Records that no fit has seen are flipped, surprising, odd and far as often as the baseline says.

    Every indicator's share in 6,000 new records is compared with that in the 1,500 of the reference. Were the reference's own
    records judged by what was fitted on them, flips and unseen words would be rarer there. About 120 comparisons pass 4.3
    standard errors by chance with a probability of 0.2 %.
    """
    learned = rich_reference()
    baseline, live = learned.baseline(), batch(rich_reference(), rich_predictions(6000, 5))
    questions = baseline.questions
    enriched = learned.enrichment().apply(live, np.ones(6000, np.bool_))
    counts = questions.count(enriched.numbers, enriched.codes, enriched.marks)
    asked, yes = counts[questions.asked], counts[questions.yes]
    own_asked, own_yes = baseline.counts[questions.asked], baseline.counts[questions.yes]
    share = (yes + own_yes) / np.maximum(asked + own_asked, 1)
    error = np.sqrt(share * (1 - share) * (1 / np.maximum(asked, 1) + 1 / np.maximum(own_asked, 1)))
    apart = np.abs(yes / np.maximum(asked, 1) - own_yes / np.maximum(own_asked, 1))
    told = {i.text: (a, e) for i, a, e in zip(questions.indicators, apart, error, strict=True)}
    assert {text: pair for text, pair in told.items() if pair[0] > 4.3 * pair[1]} == {}
    assert {"flipped", "flipped where segment = us", "unsure where segment = eu"} <= told.keys()
    names = {name.signal.name for name in questions.indicators}
    assert {"surprise", "text.unseen", "embedding.distance", "outlier"} <= names


def test_without_features_nothing_is_fitted(tmp_path: Path) -> None:
    """A log of bare answers makes a reference; what cannot be watched is said."""
    bare = [{"timestamp": r["timestamp"], "prediction": r["prediction"]} for r in predictions(300)]
    built = build([write(tmp_path / "log", bare)])
    found = built.enrichment()
    assert (found.derived, found.marks, built.quality) == ((), (), None)
    assert built.blind.keys() == {"flips", "triggers", "errors", "audit"}
    assert "blind           flips: the reference has no features or text" in in_words(built)


@pytest.mark.parametrize(("days", "cells"), [(1.0, None), (4.0, 24), (15.0, 48)])
@pytest.mark.parametrize("a_day", [100, 300])
def test_long_references_have_seasons(tmp_path: Path, days: float, cells: int | None, a_day: int) -> None:
    """From three whole days on the hours are known, from fourteen those of weekends too; then the volume is as well."""
    records = predictions(int(days * a_day), 3, start=START - days * 86400.0, rate=a_day / 86400.0)
    for record in records:
        del record["features"]
    log = write(tmp_path / "log", records)
    save(build([log]), tmp_path / "r.json")
    read = load(tmp_path / "r.json")
    season, volume = read.baseline().season, read.usual_volume()
    assert (None if season is None else season.rate.shape[0]) == cells
    assert (None if volume is None else volume.limits.shape) == (None if cells is None else (cells, 6))
    if season is not None:
        assert np.isfinite(season.low).all()
        assert np.isfinite(season.high).all()


def test_seasons_stay_finite_where_chance_is_taken_back(tmp_path: Path) -> None:
    """Also the rare values of many, met in few hours and flipped or unsure there, have bounds in every hour."""
    rng = np.random.default_rng(4)
    records = predictions(1200, 3, start=START - 4 * 86400.0, rate=300 / 86400.0)
    many = with_feature(records, "many", drawn("uniform 300", rng, 1200))
    save(build([write(tmp_path / "log", many)]), tmp_path / "r.json")
    season = load(tmp_path / "r.json").baseline().season
    assert season is not None
    assert all(np.isfinite(values).all() for values in (season.rate, season.low, season.high))
    assert (season.low <= season.high).all()


def test_regression_and_list_features(tmp_path: Path) -> None:
    """A model that predicts a number from a list of numbers needs no configuration either."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 4))
    records = [
        {"timestamp": START + n, "prediction": float(row.sum()), "features": row.tolist()} for n, row in enumerate(rows)
    ]
    built = build([write(tmp_path / "log", records)])
    assert (built.schema.outcome.kind, built.schema.layout, built.records) == ("numerical", "list", 400)
    baseline = built.baseline()
    assert baseline.questions.numbers == ("prediction", *(f"features[{n}]" for n in range(4)), "outlier")
    assert built.blind["flips"] == "the model predicts numbers, not classes"
    assert [len(built.cuts[name]) > 0 for name in baseline.questions.numbers] == [True] * 6


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
    for seed in range(2):
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
    baseline = learned.baseline()
    questions = baseline.questions
    once = sum(values.count(value) == 1 for value in set(values))
    assert all(np.isfinite(bound).all() for bound in (baseline.low, baseline.high))
    for row, column in enumerate(questions.code_columns):
        counts = baseline.counts[questions.code_place(row)]
        assert counts.min() >= 0
        assert counts.sum() == 3000
        for mark in range(len(questions.marks)):
            marked = baseline.counts[questions.marked_place(mark, row)]
            assert (marked <= counts).all()
        if column.name == "features.many":
            assert column.kind == "categorical"
            assert counts[unseen_code(column)] == once


def test_a_value_met_once_would_be_unseen_without_itself(tmp_path: Path) -> None:
    """A value met once counts as unseen and not as itself; a rejected record takes nothing away."""
    values = ["a"] * 120 + ["b"]
    log = with_feature(predictions(121), "tiny", values)
    baseline = build([write(tmp_path / "log", log)]).baseline()
    row = [column.name for column in baseline.questions.code_columns].index("features.tiny")
    assert baseline.counts[baseline.questions.code_place(row)].tolist() == [0, 120, 0, 0, 1]
    log[-1]["timestamp"] = 1
    baseline = build([write(tmp_path / "log", log)]).baseline()
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
    text = in_words(demo())
    for expected in ("sms-spam", "prediction = spam", "design effect", "learned from"):
        assert expected in text
