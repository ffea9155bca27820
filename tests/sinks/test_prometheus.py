"""The metrics: every family always, every decision once, no NaN, and no more series than the caps allow."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from poisonwatch.config import LimitsConfig
from poisonwatch.formats.infer import MOST_CLASSES
from poisonwatch.judge.aftermath import Rollback, RollbackState
from poisonwatch.monitor.coverage import CoverageView, VersionCoverage
from poisonwatch.profile.indicators import FLIPPED, OUTCOME
from poisonwatch.reference.file import save
from poisonwatch.sinks.prometheus import CATALOGUE, MINED, MOST_DISTANT, registry_of
from poisonwatch.sinks.snapshot import MiningSnapshot, Published
from poisonwatch.types import OTHER_VERSIONS, Phrase, TriggerState
from tests.server.snapshots import demo, small, snapshot_of, together
from tests.streams import START, batch, merged, predictions, rich_predictions, rich_reference, write
from tests.system.programs import promtool_check
from tests.triggers import trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

    from poisonwatch.sinks.snapshot import Snapshot
    from tests.streams import Record

TOLD = ("poisonwatch_alert_info", "poisonwatch_decision_info")
"""What tells a finding in words: a page has to name the trigger."""


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
    targets = {s.labels["model_version"]: s.labels["target"] for s in samples(demo(), "poisonwatch_decision_info")}
    assert targets == {"v1": "", "v2": "v1"}
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
    late = [{**record, "prediction_id": f"late-{n}"} for n, record in enumerate(good[:9])]
    live = [*good, {"timestamp": 5, "prediction": "ham"}, *late, {**good[-1], "confidence": 7, "zz": 1}]
    snapshot = small(tmp_path, live)
    assert_sound(snapshot)
    reasons = {s.labels["reason"]: s.value for s in samples(snapshot, "poisonwatch_records_rejected")}
    assert reasons["absurd_timestamp"] == 1
    assert reasons["malformed"] == 0
    faults = {s.labels["reason"]: s.value for s in samples(snapshot, "poisonwatch_faults")}
    assert faults == {"confidence_out_of_range": 1, "unknown_field": 1}
    assert one(snapshot, "poisonwatch_predictions_late") == 9
    again = one(snapshot, "poisonwatch_duplicates")
    assert again <= 1
    entered = 301 - again
    assert one(snapshot, "poisonwatch_coverage_ratio") == pytest.approx(entered / (entered + 1 + 9))


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


# Labels, flips and what cannot be watched


def opinions(
    records: Sequence[Record], source: str, wrong: Callable[[int], bool], *, after: float = 3600.0, every: float = 0.0
) -> list[Record]:
    """Labels of one source, some seconds later and each the later by some more; the `wrong` ones say the other class."""
    other = {"ham": "spam", "spam": "ham"}
    return [
        {
            "timestamp": record["timestamp"] + after + number * every,
            "prediction_id": record["prediction_id"],
            "source": source,
            "label": other[record["prediction"]] if wrong(number) else record["prediction"],
        }
        for number, record in enumerate(records)
    ]


def unlabelled(records: Iterable[Record]) -> list[Record]:
    """The records without the labels that they carry."""
    return [{name: said for name, said in record.items() if name != "label"} for record in records]


def one(snapshot: Snapshot, name: str, **labels: str) -> float:
    """The value of one series."""
    (found,) = [s.value for s in samples(snapshot, name) if labels.items() <= s.labels.items()]
    return found


@cache
def labelled_story() -> tuple[Snapshot, list[Record]]:
    """A healthy version whose 1,500 predictions two honest sources label over four days, then a liar 100; 7 meet nothing."""
    live = unlabelled(rich_predictions(1500, 1))
    given = [
        *opinions(live[:1000], "ann", lambda n: n % 20 == 0, every=350.0),
        *opinions(live[500:], "bob", lambda n: n % 20 == 10, every=350.0),
        *opinions(live[:100], "liar", lambda _: True, after=4 * 86400.0),
        *({**label, "prediction_id": f"none{n}"} for n, label in enumerate(opinions(live[:7], "ann", lambda _: False))),
    ]
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(rich_reference(), folder / "r.json")
        log, labels = write(folder / "log", live), write(folder / "labels", merged(given))
        return snapshot_of(folder / "r.json", [log], [labels]), live


def test_labels_are_counted_by_what_they_met() -> None:
    """Labels that met a prediction, that met none and why, and which sources are accused, are as they were given."""
    snapshot, _ = labelled_story()
    assert_sound(snapshot)
    assert one(snapshot, "poisonwatch_feedback_matched") == 1000 + 1000 + 100
    assert one(snapshot, "poisonwatch_feedback_unmatched", reason="unknown_prediction") == 7
    assert one(snapshot, "poisonwatch_feedback_unmatched", reason="outside_sample") == 0
    assert one(snapshot, "poisonwatch_feedback_waiting_ratio") == 1
    # The liar, and what it shares with others: the day on which it was first seen.
    assert one(snapshot, "poisonwatch_feedback_accused_sources") == 2
    assert 0 < one(snapshot, "poisonwatch_feedback_agreement_ratio") < 1
    right, wrong = (one(snapshot, "poisonwatch_labels", model_version="v1", verdict=v) for v in ("right", "wrong"))
    # Of every prediction the first label counts: bob's of all that he saw, ann's of the 500 before.
    assert right + wrong == 1500
    assert wrong == sum(n % 20 == 0 for n in range(500)) + sum(n % 20 == 10 for n in range(1000))


def test_flips_are_those_of_the_surrogate() -> None:
    """As many flips as the surrogate of the reference says of the whole log, and its quality as the reference has it."""
    snapshot, live = labelled_story()
    enrichment = rich_reference().enrichment()
    enriched = enrichment.apply(batch(rich_reference(), live), np.zeros(len(live), np.bool_))
    flips = int(enriched.marks[enrichment.marks.index(FLIPPED)].sum())
    assert one(snapshot, "poisonwatch_flips", model_version="v1") == flips > 0
    shown = {s.labels["measure"]: s.value for s in samples(snapshot, "poisonwatch_surrogate_quality_ratio")}
    needs = one(snapshot, "poisonwatch_trigger_needs_records")
    assert shown | {"needs": needs} == rich_reference().measures()
    assert set(shown) == {"agreement", "sees", "flip_rate", "correlation"}
    assert one(snapshot, "poisonwatch_reference_unproven") == 0
    assert one(snapshot, "poisonwatch_reference_unfit") == 0
    assert one(snapshot, "poisonwatch_baseline_displacement_log_odds") >= 0


def test_what_cannot_be_watched_is_shown(tmp_path: Path) -> None:
    """A reference without labels and without a surrogate is blind to errors, flips and triggers and cannot be audited, and no series says zero of them."""
    snapshot = small(tmp_path, predictions(300))
    assert {s.labels["what"] for s in samples(snapshot, "poisonwatch_blind_info")} == {
        "audit",
        "errors",
        "flips",
        "triggers",
    }
    assert all(s.value == 1 for s in samples(snapshot, "poisonwatch_blind_info"))
    for name in ("poisonwatch_flips", "poisonwatch_feedback_agreement_ratio", "poisonwatch_trigger_needs_records"):
        assert samples(snapshot, name) == []
    # How bad the surrogate was that is not used, is shown: it says why.
    assert one(snapshot, "poisonwatch_surrogate_quality_ratio", measure="sees") < 0.5
    assert {s.labels["what"] for s in samples(labelled_story()[0], "poisonwatch_blind_info")} == set(
        rich_reference().blind
    )


def test_reference_that_its_first_labels_refute(tmp_path: Path) -> None:
    """Where the first live labels contradict the reference's error rate by far, the reference is shown as unfit."""
    live = unlabelled(rich_predictions(1500, 1))
    save(rich_reference(), tmp_path / "r.json")
    labels = write(tmp_path / "labels", opinions(live, "ann", lambda n: n % 5 < 2))
    snapshot = snapshot_of(tmp_path / "r.json", [write(tmp_path / "log", live)], [labels])
    assert_sound(snapshot)
    assert one(snapshot, "poisonwatch_reference_unfit") == 1


def mined() -> Snapshot:
    """The demo's end as if two triggers were open in v2 and one in a version that is gone, found with hostile text in them."""
    (model,) = demo().models
    hostile = trigger(text='"} 1\n# HELP', pattern=Phrase(words=("x" * 1000,)), model_version="v\n9", label="\u202e")
    return dataclasses.replace(
        demo(),
        models=(
            dataclasses.replace(
                model,
                triggers=(trigger(), trigger(state=TriggerState.CONFIRMED), hostile),
                blind={MINED: "the surrogate could not learn what the model answers to"},
                mining=MiningSnapshot(
                    triggered={"v2": 21},
                    saturated=True,
                    probes=57,
                    probe_failures={"endpoint": 3},
                    echoes=56,
                    golden={"v1": 0.985, "v2": 0.93},
                ),
            ),
        ),
    )


def test_triggers_are_counted_and_never_named() -> None:
    """Triggers by version and state, all states from the start; a pattern is told where a summary is, a source or an example nowhere."""
    assert_sound(mined())
    shown = {(s.labels["model_version"], s.labels["state"]): s.value for s in samples(mined(), "poisonwatch_triggers")}
    states = {"surfaced", "convicted", "confirmed", "refuted"}
    assert set(shown) == {(version, state) for version in ("v1", "v2", "v\n9") for state in states}
    found = {key: value for key, value in shown.items() if value}
    assert found == {("v2", "convicted"): 1, ("v2", "confirmed"): 1, ("v\n9", "convicted"): 1}
    lines = generate_latest(registry_of(Published(mined()))).decode().splitlines()
    page = "\n".join(line for line in lines if not line.startswith(TOLD))
    for text in ("special", "client-7", "p1-17", "x" * 50, "0123456789abcdef"):
        assert text not in page
    triggered = {s.labels["model_version"]: s.value for s in samples(mined(), "poisonwatch_triggered_predictions")}
    assert triggered == {"v1": 0, "v2": 21, "v\n9": 0}


def test_how_the_miner_and_the_probes_do() -> None:
    """Blind and saturated are 0 or 1 of every model; probes, their failures by reason and their echoes; the accuracy on verified inputs by version."""
    for snapshot, value in ((demo(), 0), (mined(), 1)):
        assert one(snapshot, "poisonwatch_trigger_mining_blind") == value
        assert one(snapshot, "poisonwatch_trigger_mining_saturated") == value
    for snapshot, answered, echoes, failed in ((demo(), 0, 0, 0), (mined(), 57, 56, 3)):
        assert (one(snapshot, "poisonwatch_probes"), one(snapshot, "poisonwatch_probe_echoes")) == (answered, echoes)
        failures = {s.labels["reason"]: s.value for s in samples(snapshot, "poisonwatch_probe_failures")}
        assert failures == {"endpoint": failed, "incomplete": 0, "defect": 0}
    assert samples(demo(), "poisonwatch_golden_accuracy_ratio") == []
    accuracy = {s.labels["model_version"]: s.value for s in samples(mined(), "poisonwatch_golden_accuracy_ratio")}
    assert accuracy == {"v1": 0.985, "v2": 0.93}


def asked(*, usable: bool = True, ratio: float | None = 0.93) -> Snapshot:
    """The demo beside a server that is asked, with a version that no record has."""
    versions = {"v1": VersionCoverage(1000.0, 70.0), "v3": VersionCoverage(5.0, 5.0)}
    coverage = CoverageView(usable=usable, ready=False, ratio=ratio, versions=versions)
    return dataclasses.replace(demo(), models=(dataclasses.replace(demo().models[0], coverage=coverage),))


def test_what_the_server_says_it_served() -> None:
    """What was served and never seen, by version; the ratio is absent while it is unknown, and all of it where no server is asked."""
    assert_sound(asked())
    assert one(asked(), "poisonwatch_coverage_ratio") == 0.93
    for name, counts in (("served", (1000, 5)), ("served_unseen", (70, 5))):
        shown = {s.labels["model_version"]: s.value for s in samples(asked(), f"poisonwatch_{name}")}
        assert shown == dict(zip(("v1", "v3"), counts, strict=True))
    assert (one(asked(), "poisonwatch_served_up"), one(asked(), "poisonwatch_served_learned")) == (1, 0)
    unknown = asked(usable=False)
    assert (
        samples(unknown, "poisonwatch_coverage_ratio") == samples(asked(ratio=None), "poisonwatch_coverage_ratio") == []
    )
    assert one(unknown, "poisonwatch_served_up") == 0
    for name in ("served", "served_unseen", "served_up", "served_learned"):
        assert samples(demo(), f"poisonwatch_{name}") == []


def test_what_was_refused_came_again_or_waits() -> None:
    """By source and reason, by model, by source; duplicates and waiting from the start."""
    (name,) = (source.name for source in demo().sources)
    (model,) = demo().models
    assert one(demo(), "poisonwatch_duplicates") == one(demo(), "poisonwatch_source_waiting") == 0
    assert samples(demo(), "poisonwatch_records_refused") == []
    counters = demo().counters.copy()
    counters.refused = Counter({(name, "full"): 3, (name, "too_large"): 1})
    counters.duplicates = Counter({model.model: 7})
    counters.waiting = Counter({name: 2})
    snapshot = dataclasses.replace(demo(), counters=counters)
    assert_sound(snapshot)
    assert {s.labels["reason"]: s.value for s in samples(snapshot, "poisonwatch_records_refused")} == {
        "full": 3,
        "too_large": 1,
    }
    assert (one(snapshot, "poisonwatch_duplicates"), one(snapshot, "poisonwatch_source_waiting")) == (7, 2)


@pytest.mark.parametrize("state", RollbackState)
@pytest.mark.parametrize(("target", "receiver"), [("v1", None), ("v1", "v1"), ("v1", "v3"), (None, "v3")])
def test_a_rollback_says_who_took_the_traffic(state: RollbackState, target: str | None, receiver: str | None) -> None:
    """All states under the same labels, one of them 1; where nobody took the traffic or no target is known the label is empty."""
    watched = Rollback(
        model=demo().models[0].model,
        model_version="v2",
        target=target,
        state=state,
        decided=START,
        time=START,
        traffic=0.25,
        summary="",
        receiver=receiver,
    )
    snapshot = dataclasses.replace(demo(), models=(dataclasses.replace(demo().models[0], rollbacks=(watched,)),))
    assert_sound(snapshot)
    shown = samples(snapshot, "poisonwatch_rollback")
    assert {(s.labels["target"], s.labels["receiver"]) for s in shown} == {(target or "", receiver or "")}
    assert {s.labels["state"]: s.value for s in shown} == {one.value: one is state for one in RollbackState}


@pytest.mark.system
def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    """The page with every family filled passes `promtool check metrics`."""
    snapshot = together(labelled_story()[0], small(tmp_path, predictions(300)), mined())
    assert promtool_check(generate_latest(registry_of(Published(snapshot))).decode()) == (0, "")
