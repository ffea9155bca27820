"""The metrics: every family always, every decision once, no NaN, and no more series than the caps allow."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from poisonwatch.config import LimitsConfig
from poisonwatch.formats.infer import MOST_CLASSES
from poisonwatch.profile.indicators import OUTCOME
from poisonwatch.sinks.prometheus import CATALOGUE, MOST_DISTANT, registry_of
from poisonwatch.sinks.snapshot import Published
from poisonwatch.types import OTHER_VERSIONS
from tests.server.snapshots import demo, small, together
from tests.streams import START, predictions

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

    from poisonwatch.sinks.snapshot import Snapshot


def rendered(snapshot: Snapshot | None) -> dict[str, Metric]:
    """The page of a snapshot, read as a scraper does."""
    page = generate_latest(registry_of(Published(snapshot))).decode()
    return {family.name: family for family in text_string_to_metric_families(page)}


def samples(snapshot: Snapshot, name: str) -> list[Sample]:
    """The samples of a family."""
    return list(rendered(snapshot)[name].samples)


def assert_sound(snapshot: Snapshot) -> None:
    """No series twice, no NaN, exactly one decision a version, and a page that OpenMetrics takes too."""
    families = rendered(snapshot)
    assert set(families) == set(CATALOGUE)
    series = [(sample.name, tuple(sorted(sample.labels.items()))) for f in families.values() for sample in f.samples]
    assert [name for name, count in Counter(series).items() if count > 1] == []
    assert not any(math.isnan(sample.value) for family in families.values() for sample in family.samples)
    decided: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    for sample in families["poisonwatch_decision"].samples:
        version = sample.labels["model"], sample.labels["model_version"]
        decided[version] += int(sample.value)
        asked[version] += 1
    assert set(asked) == {(model.model, name) for model in snapshot.models for name in model.versions}
    assert set(decided.values()) == {1}
    assert set(asked.values()) == {3}
    list(openmetrics_families(generate_openmetrics(registry_of(Published(snapshot))).decode()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("published", [False, True], ids=["before the first turn", "demo"])
def test_whole_catalogue(*, published: bool) -> None:
    """Every family of the catalogue has its HELP and TYPE on the page, from the start."""
    page = generate_latest(registry_of(Published(demo() if published else None))).decode().splitlines()
    for name, described in CATALOGUE.items():
        kind = {"GaugeMetricFamily": "gauge", "CounterMetricFamily": "counter", "HistogramMetricFamily": "histogram"}[
            getattr(described.kind, "__name__", "")
        ]
        shown = f"{name}_total" if kind == "counter" else name
        assert f"# HELP {shown} {described.help}" in page
        assert f"# TYPE {shown} {kind}" in page
        assert described.help.endswith(".")


def test_demo_is_sound() -> None:
    """The page of the demo's end is sound, and has only the labels that the catalogue names."""
    assert_sound(demo())
    for name, family in rendered(demo()).items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(CATALOGUE[name].labels), name


def test_demo_says_what_happened() -> None:
    """The numbers on the page are those of the log."""
    decisions = {
        (sample.labels["model_version"], sample.labels["decision"])
        for sample in samples(demo(), "poisonwatch_decision")
        if sample.value
    }
    assert decisions == {("v1", "keep"), ("v2", "rollback")}
    assert [sample.labels["target"] for sample in samples(demo(), "poisonwatch_rollback_target_info")] == ["v1"]
    (model,) = demo().models
    classes = samples(demo(), "poisonwatch_predictions")
    lines = sum(sample.value for sample in samples(demo(), "poisonwatch_lines"))
    assert (
        sum(sample.value for sample in classes)
        == lines
        == sum(view.facts.predictions for view in model.versions.values())
    )
    firing = sum(
        sample.value
        for sample in samples(demo(), "poisonwatch_alerts")
        if (sample.labels["severity"], sample.labels["state"]) == ("page", "firing")
    )
    assert firing == sum(alert.state == "firing" and alert.severity == "page" for alert in model.alerts) > 0
    assert samples(demo(), "poisonwatch_coverage_ratio")[0].value == 1
    for version in model.versions:
        buckets = [
            sample.value
            for sample in samples(demo(), "poisonwatch_prediction_confidence_ratio")
            if sample.labels["model_version"] == version and sample.name.endswith("_bucket")
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == model.versions[version].facts.predictions


def test_many_classes_and_versions(tmp_path: Path) -> None:
    """A log with a new class, version and category in every record makes no more series than the caps allow."""
    reference = [{**record, "prediction": f"c{n % 200}"} for n, record in enumerate(predictions(1000, 99))]
    live = [
        {**record, "prediction": f"z{n}", "model_version": f"v{n}", "features": {"country": f"x{n}"}}
        for n, record in enumerate(predictions(900, 1, start=START + 86400))
    ]
    snapshot = small(tmp_path, live, reference)
    assert_sound(snapshot)
    versions = {sample.labels["model_version"] for sample in samples(snapshot, "poisonwatch_decision")}
    assert OTHER_VERSIONS in versions
    # As many as the cap says, and the one that holds the rest.
    assert len(versions) <= LimitsConfig().versions + 1
    by_version = Counter(sample.labels["model_version"] for sample in samples(snapshot, "poisonwatch_predictions"))
    assert set(by_version.values()) == {MOST_CLASSES + 2}
    assert sum(sample.value for sample in samples(snapshot, "poisonwatch_predictions")) == 900


def test_many_features(tmp_path: Path) -> None:
    """Distances are shown of the columns that moved most, not of all."""
    wide = [
        {**record, "features": {f"f{m}": (n * (m + 7)) % 11 for m in range(60)}}
        for n, record in enumerate(predictions(1200, 3))
    ]
    snapshot = small(tmp_path, wide, wide)
    assert_sound(snapshot)
    columns = {sample.labels["column"] for sample in samples(snapshot, "poisonwatch_distance")}
    assert len(columns) == MOST_DISTANT


def test_rejected_lines_and_faults(tmp_path: Path) -> None:
    """What was rejected and what was wrong is counted by source and reason; coverage is the share that was judged."""
    good = predictions(300, 4)
    live = [*good, {"timestamp": 5, "prediction": "ham"}, *good[:9], {**good[-1], "confidence": 7, "zz": 1}]
    snapshot = small(tmp_path, live)
    assert_sound(snapshot)
    reasons = {s.labels["reason"]: s.value for s in samples(snapshot, "poisonwatch_records_rejected")}
    assert reasons["absurd_timestamp"] == 1
    assert reasons["malformed"] == 0
    faults = {s.labels["reason"]: s.value for s in samples(snapshot, "poisonwatch_faults")}
    assert faults == {"confidence_out_of_range": 1, "unknown_field": 1}
    late = samples(snapshot, "poisonwatch_predictions_late")[0].value
    assert late == 9
    assert samples(snapshot, "poisonwatch_coverage_ratio")[0].value == pytest.approx((311 - 1 - late) / 311)


@pytest.mark.parametrize(
    "name", ["", " ", '"', "\\", "\n", "a\r\nb", "é\u2028", "{}", 'a="b",', "x" * 500, "\x00", "\u202e"]
)
def test_hostile_label_values(tmp_path: Path, name: str) -> None:
    """Whatever a version, class or feature is called, the page can be read and has every series once."""
    records = [
        {**record, "model_version": name, "prediction": name if n % 3 else "ham", "features": {name: n % 7, "x": name}}
        for n, record in enumerate(predictions(800, 5))
    ]
    assert_sound(small(tmp_path, records, records))


@pytest.mark.parametrize("name", ["(rare)", "(unseen)", "(number)"])
def test_class_called_as_we_call_the_rest(tmp_path: Path, name: str) -> None:
    """A class that is called as the rest is does not make a series twice."""
    records = [{**record, "prediction": name if n % 3 else "ham"} for n, record in enumerate(predictions(300, 5))]
    snapshot = small(tmp_path, records, records)
    assert_sound(snapshot)
    counted = {sample.labels["class"]: sample.value for sample in samples(snapshot, "poisonwatch_predictions")}
    assert (counted["ham"], counted[name]) == (100, 200)


def test_number_as_prediction(tmp_path: Path) -> None:
    """A model that predicts a number has its predictions counted as one class."""
    records = [{**record, "prediction": n / 7} for n, record in enumerate(predictions(600, 5))]
    snapshot = small(tmp_path, records, records)
    assert_sound(snapshot)
    assert [(s.labels["class"], s.value) for s in samples(snapshot, "poisonwatch_predictions")] == [("(number)", 600)]
    assert OUTCOME in {sample.labels["column"] for sample in samples(snapshot, "poisonwatch_distance")}


def test_several_models(tmp_path: Path) -> None:
    """Models on one page do not mix."""
    assert_sound(together(demo(), small(tmp_path, predictions(300))))


def test_source_that_told_nothing(tmp_path: Path) -> None:
    """Before its first record a source is shown with zeros, not with minus infinity."""
    snapshot = small(tmp_path, [])
    (source,) = snapshot.sources
    assert source.newest == -math.inf
    assert samples(snapshot, "poisonwatch_source_last_record_timestamp_seconds")[0].value == 0
    assert samples(snapshot, "poisonwatch_coverage_ratio")[0].value == 1
    assert dataclasses.asdict(source)["found"] is True
