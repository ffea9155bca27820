"""The table of causes, row by row, and the sentence that people read."""

from __future__ import annotations

import pytest

from poisonwatch.judge.cause import cause_of, summarise
from poisonwatch.profile.indicators import CANARY_CLASS, CANARY_CONFIDENCE, INPUTS, OUTPUTS, QUALITY
from poisonwatch.types import Cause, Severity
from tests.judge.findings import GONE, GROUPS, PAGE, finding

TABLE = [
    (CANARY_CLASS, False, Cause.DEGRADATION, Severity.PAGE),
    (CANARY_CLASS, True, Cause.DEGRADATION, Severity.PAGE),
    (CANARY_CONFIDENCE, False, Cause.OUTPUT_CHANGE, Severity.TICKET),
    (CANARY_CONFIDENCE, True, Cause.OUTPUT_CHANGE, Severity.TICKET),
    (OUTPUTS, True, Cause.INPUT_DRIFT, Severity.TICKET),
    (OUTPUTS, False, Cause.OUTPUT_CHANGE, Severity.TICKET),
    (INPUTS, True, Cause.INPUT_DRIFT, Severity.TICKET),
    (QUALITY, False, Cause.DATA_QUALITY, Severity.TICKET),
    (QUALITY, True, Cause.DATA_QUALITY, Severity.TICKET),
]


@pytest.mark.parametrize(("group", "inputs_moved", "cause", "severity"), TABLE)
def test_every_row_of_the_table(group: str, inputs_moved: bool, cause: Cause, severity: Severity) -> None:
    """Each group's marks lead to the cause and severity that the module documents."""
    assert cause_of(finding(group, PAGE), inputs_moved=inputs_moved) == (cause, severity)


def test_the_table_is_complete() -> None:
    """Every cause, every severity and every group is in it."""
    assert {row[0] for row in TABLE} == set(GROUPS)
    assert {row[2] for row in TABLE} == set(Cause)
    assert {row[3] for row in TABLE} == set(Severity)


def test_an_unknown_group_is_a_defect() -> None:
    """Evidence that nobody gave a cause is not passed over in silence."""
    with pytest.raises(KeyError, match="surprise"):
        cause_of(finding("surprise", PAGE), inputs_moved=False)


@pytest.mark.parametrize(
    ("group", "version", "words"),
    [
        (CANARY_CLASS, "v2", ["mail v2", "prediction = spam", "40.0%", "v1 in 20.0%", "1000 predictions"]),
        (OUTPUTS, "v2", ["mail v2", "prediction = spam", "40.0%", "20.0%", "nothing yet says that it does harm"]),
        (QUALITY, None, ["The log of mail", "40.0%", "changed in kind"]),
    ],
)
def test_the_sentence_says_who_what_and_how_much(group: str, version: str | None, words: list[str]) -> None:
    """On-call reads the model, the version, the indicator, both rates and over how many predictions."""
    evidence = finding(group, PAGE, version)
    sentence = summarise(evidence, cause_of(evidence, inputs_moved=False)[0])
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def test_what_is_over_is_said_to_be_over() -> None:
    """Evidence without subjects says that there is nothing to see any more."""
    assert "too small to matter" in summarise(finding(OUTPUTS, GONE), Cause.OUTPUT_CHANGE)
