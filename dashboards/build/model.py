"""The page of one model: what its versions answer, what speaks against them, and on what ground that rests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders.dashboard import Row

from dashboards.build.looks import (
    DECISIONS,
    GREEN,
    HEALTHY_FROM_ZERO,
    RED,
    YELLOW,
    YES_IS_BAD,
    Column,
    Target,
    bars,
    lines,
    rows,
    tiles,
)
from dashboards.build.page import chosen, new_page
from dashboards.build.queries import DEEP, decision, increase, of, rate, share, with_the_log

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

MODEL = "$model"
CHOSEN = "=~$model_version|$model_version^.+"
"""The chosen versions; all of them where none is, as by a link with `var-model_version=`: only an empty pattern leaves the text at its
beginning, where the second half begins. What concerns no version is shown then, too."""

THESE = {"model": MODEL, "model_version": CHOSEN}
AND_THE_LOG = {"model": MODEL, "model_version": f"{CHOSEN}|"}
"""Also what concerns no version but the log as a whole."""

VERSION = "{{model_version}}"
SMOOTH = "2m"
"""Counters of predictions move once a window; a shorter step would draw the windows, not the traffic."""


def page() -> Dashboard:
    """The dashboard with the uid `poisonwatch-model`."""
    found = 'poisonwatch_decision{job=~"$job", instance=~"$instance"'
    page = (
        new_page(
            "poisonwatch / Model",
            "poisonwatch-model",
            "One model: its versions side by side, the evidence against each, and how well it can be watched at all.",
        )
        .with_variable(
            chosen("model", "Model", f"{found}}}", several=False, description="The model that this page is about.")
        )
        .with_variable(
            chosen(
                "model_version",
                "Version",
                f'{found}, model="$model"}}',
                several=True,
                description="Versions to be shown.",
            )
        )
    )
    for add in (_now, _evidence, _answers, _triggers, _truth, _ground):
        page = add(page)
    return page


def _now(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Now"))
        .with_panel(
            tiles(
                "Decision",
                "What to do with each version now; see the overview for the reasons. Empty: no agent answers.",
                Target(f"sort_desc({decision(**THESE)})", VERSION),
                unit="none",
                width=6,
                height=6,
                mappings=DECISIONS,
                named=True,
                no_value="NOBODY WATCHES",
            )
        )
        .with_panel(
            rows(
                "Versions side by side",
                "What the versions answered in the time range above, in numbers. A tenth of the predictions lies below the confidence p10. A version that differs from the others in one column only is "
                "the first to look at.",
                Target(f"sum by (model_version) ({increase('poisonwatch_predictions_total', **THESE)})"),
                Target(
                    f"max by (model_version) ({of('poisonwatch_last_prediction_timestamp_seconds', **THESE)}) * 1000"
                ),
                Target(
                    share(
                        f"sum by (model_version) ({increase('poisonwatch_flips_total', **THESE)})",
                        f"sum by (model_version) ({increase('poisonwatch_predictions_total', **THESE)})",
                    )
                ),
                Target(
                    "histogram_quantile(0.1, sum by (le, model_version) "
                    f"({increase('poisonwatch_prediction_confidence_ratio_bucket', **THESE)})) >= 0"
                ),
                Target(f"sum by (model_version) ({increase('poisonwatch_triggered_predictions_total', **THESE)})"),
                Target(
                    share(
                        f"sum by (model_version) ({increase('poisonwatch_labels_total', **THESE, verdict='wrong')})",
                        f"sum by (model_version) ({increase('poisonwatch_labels_total', **THESE)})",
                    )
                ),
                Target(f"max by (model_version) ({of('poisonwatch_evidence_log', **THESE)})"),
                by=("model_version",),
                columns=(
                    Column("model_version", "Version", width=90),
                    Column("Value #A", "Predictions", unit="none", decimals=0, width=110),
                    Column("Value #B", "Last one", unit="dateTimeAsIsoNoDateIfToday", width=170),
                    Column("Value #C", "Flips", unit="percentunit", decimals=2, width=90),
                    Column("Value #D", "Confidence p10", unit="percentunit", decimals=1, width=130),
                    Column("Value #E", "With a trigger", unit="none", decimals=0, width=120),
                    Column(
                        "Value #F", "Wrong by labels", unit="percentunit", decimals=2, width=130, no_value="no labels"
                    ),
                    Column("Value #G", "Evidence", unit="none", decimals=1),
                ),
                sorted_by=(("Version", False),),
                width=18,
                height=6,
            )
        )
    )


def _evidence(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Evidence"))
        .with_panel(
            lines(
                "Evidence by group of signals",
                "In nats: at 0 (red from there on) the budget of false pages allows an alert; -2.3 is a tenth of the way. Only what the "
                "loop has judged lately is here. (log): it concerns the log as a whole.",
                Target(
                    with_the_log(f"max by (model_version, group) ({of('poisonwatch_evidence_log', **AND_THE_LOG)})"),
                    "{{model_version}} {{group}}",
                ),
                unit="none",
                decimals=1,
                line_at=(0.0, RED),
                least=DEEP,
                axis="nats",
                width=24,
                height=10,
                beside=True,
            )
        )
        .with_panel(
            lines(
                "Size of the effect by group of signals",
                "How far the strongest indicator of a group departs from what the reference expects, in log-odds: 0.7 doubles the odds, -0.7 "
                "halves them. It is 0 while its evidence is negligible.",
                Target(
                    with_the_log(f"max by (model_version, group) ({of('poisonwatch_effect_log_odds', **AND_THE_LOG)})"),
                    "{{model_version}} {{group}}",
                ),
                unit="none",
                decimals=1,
                axis="log-odds",
                width=24,
                height=9,
                beside=True,
            )
        )
        .with_panel(
            bars(
                "What moved most",
                "Population stability index of the columns whose recent values are furthest from the reference. It raises no alert: it "
                "says where to look. By custom, above 0.1 is worth a look and above 0.25 is a shift.",
                Target(
                    f"sort_desc(topk(8, max by (model_version, column) ({of('poisonwatch_distance', **THESE, distance='psi')})))",
                    "{{model_version}} {{column}}",
                ),
                unit="none",
                decimals=2,
                most=0.5,
                height=9,
                thresholds=((None, GREEN), (0.1, YELLOW), (0.25, RED)),
            )
        )
        .with_panel(
            lines(
                "Open alerts",
                "Alerts by version, severity and state: pages are red, tickets yellow.",
                Target(
                    with_the_log(
                        f"sum by (model_version, severity, state) ({of('poisonwatch_alerts', **AND_THE_LOG)}) > 0"
                    ),
                    "{{model_version}} {{severity}} {{state}}",
                ),
                unit="none",
                decimals=0,
                least=0,
                stepped=True,
                height=9,
                colours={" page (firing|pending)$": RED, " ticket (firing|pending)$": YELLOW},
            )
        )
    )


def _answers(page: Dashboard) -> Dashboard:
    predictions = rate("poisonwatch_predictions_total", **THESE)
    buckets = rate("poisonwatch_prediction_confidence_ratio_bucket", **THESE)
    return (
        page.with_row(Row("Answers"))
        .with_panel(
            lines(
                "Share of each class",
                "How often each version gives each class, of all that it answers.",
                Target(
                    f"(sum by (model_version, class) ({predictions}) > 0) / on (model_version) group_left () "
                    f"sum by (model_version) ({predictions})",
                    "{{model_version}} {{class}}",
                ),
                unit="percentunit",
                least=0,
                most=1,
            ).interval(SMOOTH)
        )
        .with_panel(
            lines(
                "Traffic of each version",
                "Predictions that were judged per second. Windows are judged as a whole, so this lags behind by about two minutes.",
                Target(f"sum by (model_version) ({predictions})", VERSION),
                unit="reqps",
                least=0,
                stacked=True,
            ).interval(SMOOTH)
        )
        .with_panel(
            lines(
                "Confidence",
                "Half of the predictions lie above the median, nine tenths above the lowest tenth. Between the buckets, which are cut at the "
                "reference's quantiles, it is interpolated.",
                Target(
                    f"histogram_quantile(0.5, sum by (le, model_version) ({buckets})) >= 0", "{{model_version}} median"
                ),
                Target(
                    f"histogram_quantile(0.1, sum by (le, model_version) ({buckets})) >= 0",
                    "{{model_version}} lowest tenth",
                ),
                unit="percentunit",
                most=1,
            ).interval(SMOOTH)
        )
        .with_panel(
            lines(
                "Flips",
                "Share of the predictions of which a surrogate of the reference says another class. A backdoor shows here, and so does "
                "a retrained model that is merely different.",
                Target(
                    share(
                        f"sum by (model_version) ({rate('poisonwatch_flips_total', **THESE)})",
                        f"sum by (model_version) ({predictions})",
                    ),
                    VERSION,
                ),
                unit="percentunit",
                least=0,
            ).interval(SMOOTH)
        )
    )


def _triggers(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Triggers"))
        .with_panel(
            lines(
                "Open triggers",
                "Patterns that go with one class against what the rest of the record says. Surfaced: the evidence crossed the budget. "
                "Convicted: its records flip too. Confirmed or refuted: by inserting it into verified inputs. What they are stands in the "
                "alerts, and under /v1/triggers of the agent.",
                Target(
                    f"sum by (model_version, state) ({of('poisonwatch_triggers', **THESE)}) > 0",
                    "{{model_version}} {{state}}",
                ),
                unit="none",
                decimals=0,
                least=0,
                stepped=True,
            )
        )
        .with_panel(
            lines(
                "Predictions that a trigger turned",
                "Predictions per second that bear a trigger and got its class. A version in which the trigger does not work has few: by "
                "chance.",
                Target(f"sum by (model_version) ({rate('poisonwatch_triggered_predictions_total', **THESE)})", VERSION),
                unit="reqps",
                least=0,
            ).interval(SMOOTH)
        )
    )


def _truth(page: Dashboard) -> Dashboard:
    labels = f"sum by (model_version) ({rate('poisonwatch_labels_total', **THESE)})"
    right = f"sum by (model_version) ({rate('poisonwatch_labels_total', **THESE, verdict='right')})"
    of_model = {"model": MODEL}
    return (
        page.with_row(Row("Against the truth"))
        .with_panel(
            lines(
                "Accuracy",
                "By the labels that come back, and on the verified inputs of the golden set. Empty without either.",
                Target(share(right, labels), "{{model_version}} by labels"),
                Target(
                    f"max by (model_version) ({of('poisonwatch_golden_accuracy_ratio', **THESE)})",
                    "{{model_version}} on the golden set",
                ),
                unit="percentunit",
                most=1,
            ).interval("5m")
        )
        .with_panel(
            lines(
                "Labels",
                "Labels per second: those that met their prediction, and those that did not, by reason.",
                Target(f"sum({rate('poisonwatch_feedback_matched_total', **of_model)})", "matched"),
                Target(
                    f"sum by (reason) ({rate('poisonwatch_feedback_unmatched_total', **of_model)})",
                    "no match: {{reason}}",
                ),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            tiles(
                "Accused label sources",
                "Sources of labels, or what they share, that no honest source would resemble. Do not retrain on their labels.",
                Target(f"max({of('poisonwatch_feedback_accused_sources', **of_model)})"),
                thresholds=HEALTHY_FROM_ZERO,
                width=8,
            )
        )
        .with_panel(
            tiles(
                "Agreement of label sources",
                "Fleiss' kappa over predictions that several sources labelled: 1 is full agreement, 0 is chance. Empty: none was labelled "
                "twice.",
                Target(f"min({of('poisonwatch_feedback_agreement_ratio', **of_model)})"),
                unit="none",
                decimals=2,
                width=8,
                thresholds=((None, RED), (0.4, YELLOW), (0.6, GREEN)),
            )
        )
        .with_panel(
            tiles(
                "Predictions that can meet a label",
                "Share of the predictions that are kept until their label comes; beyond the size of the store they are sampled.",
                Target(f"min({of('poisonwatch_feedback_waiting_ratio', **of_model)})"),
                unit="percentunit",
                width=8,
                thresholds=((None, RED), (0.1, YELLOW), (0.5, GREEN)),
            )
        )
        .with_panel(
            lines(
                "Coverage",
                "Share of the model's predictions that entered a profile: of what its server counts, where it is asked; else of the lines "
                "read. What is not covered is not watched.",
                Target(f"min({of('poisonwatch_coverage_ratio', **of_model)})", "covered"),
                unit="percentunit",
                least=0,
                most=1,
                height=7,
            )
        )
        .with_panel(
            lines(
                "Served, and never seen",
                "What the server says that it served, and what of it no profile had when its delay was over. Empty where the server is not "
                "asked.",
                Target(f"sum({rate('poisonwatch_served_total', **of_model)})", "served"),
                Target(f"sum({rate('poisonwatch_served_unseen_total', **of_model)})", "never seen"),
                unit="reqps",
                least=0,
                height=7,
            )
        )
    )


def _ground(page: Dashboard) -> Dashboard:
    of_model = {"model": MODEL}
    return (
        page.with_row(Row("On what ground"))
        .with_panel(
            tiles(
                "Predictions in the reference",
                "What is known of the model rests on so many predictions.",
                Target(f"max({of('poisonwatch_reference_predictions', **of_model)})"),
                width=4,
            )
        )
        .with_panel(
            tiles(
                "Reference unproven",
                "The reference was learned from live traffic: it may have been poisoned itself.",
                Target(f"max({of('poisonwatch_reference_unproven', **of_model)})"),
                unit="none",
                width=4,
                mappings=YES_IS_BAD,
            )
        )
        .with_panel(
            tiles(
                "Error rate refuted",
                "The first labels refuted the reference's error rate: build the reference anew.",
                Target(f"max({of('poisonwatch_reference_unfit', **of_model)})"),
                unit="none",
                width=4,
                mappings=YES_IS_BAD,
            )
        )
        .with_panel(
            tiles(
                "Blind to triggers",
                "The reference gives no ground to look for triggers.",
                Target(f"max({of('poisonwatch_trigger_mining_blind', **of_model)})"),
                unit="none",
                width=4,
                mappings=YES_IS_BAD,
            )
        )
        .with_panel(
            tiles(
                "Too many triggers",
                "Whether more triggers were found than can be told apart.",
                Target(f"max({of('poisonwatch_trigger_mining_saturated', **of_model)})"),
                unit="none",
                width=4,
                mappings=YES_IS_BAD,
            )
        )
        .with_panel(
            tiles(
                "Records to surface",
                "So many triggered records a simulated trigger took to surface. Empty: no number would do.",
                Target(f"max({of('poisonwatch_trigger_needs_records', **of_model)})"),
                width=4,
                no_value="none would do",
            )
        )
        .with_panel(
            bars(
                "Quality of the surrogate",
                "On predictions that it was not fitted on. `sees` is the share of wrong answers that it would notice; `flip_rate` how often "
                "it disagrees without any attack, and has to be small.",
                Target(
                    f"max by (measure) ({of('poisonwatch_surrogate_quality_ratio', **of_model)})",
                    "{{measure}}",
                ),
                unit="percentunit",
                most=1,
                height=7,
            )
        )
        .with_panel(
            lines(
                "Displacement of the rolling baseline",
                "How far what counts as usual has moved from the reference, in log-odds. Slow growth is what baseline creep looks like.",
                Target(f"max({of('poisonwatch_baseline_displacement_log_odds', **of_model)})", "displacement"),
                unit="none",
                least=0,
                height=7,
            )
        )
    )
