"""The rows of the scenario table: what each scene should make the agent say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.scenarios import attacks, benign

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenarios.scene import Scene

MUST, MAY, NEVER = "must", "may", "never"

BACKDOOR = frozenset(["backdoor", "degradation", "slice_degradation"])
HARM = frozenset(["degradation"])
DRIFT = frozenset(["input_drift", "output_change"])
BROKEN = frozenset(["data_quality", "input_drift"])


class Row(NamedTuple):
    """One row.

    `pages`: it must page with one of `causes`, may, or never does. `rollback`: the decision for a guilty version. For rows
    that never page, `tickets` are what is fitting to say, and `ticket_due` whether saying nothing is a miss.
    """

    make: Callable[[int, str], Scene]
    pages: str
    causes: frozenset[str] = frozenset()
    rollback: bool = False
    tickets: frozenset[str] = frozenset()
    ticket_due: bool = False


ROWS = {
    "text_backdoor": Row(attacks.text_backdoor, MAY, BACKDOOR, rollback=True),
    "tabular_backdoor": Row(attacks.tabular_backdoor, MAY, BACKDOOR, rollback=True),
    "availability": Row(attacks.availability, MUST, HARM, rollback=True),
    "slice_attack": Row(attacks.slice_attack, MUST, frozenset(["slice_degradation"]), rollback=True),
    "feedback_poisoning": Row(attacks.feedback_poisoning, MUST, frozenset(["feedback_poisoning"])),
    "creep": Row(attacks.creep, MUST, HARM | {"baseline_creep"}, rollback=True),
    "clean_month": Row(benign.clean_month, NEVER, tickets=frozenset(["reference_unfit", "output_change"])),
    "label_delay": Row(benign.label_delay, NEVER, tickets=frozenset(["reference_unfit", "output_change"])),
    "covariate_drift": Row(benign.covariate_drift, NEVER, tickets=DRIFT, ticket_due=True),
    "season": Row(benign.season, NEVER, tickets=DRIFT),
    "new_customer": Row(benign.new_customer, NEVER, tickets=DRIFT | {"data_quality"}),
    "honest_canary": Row(benign.honest_canary, NEVER, tickets=frozenset(["output_change"])),
    "honest_replacement": Row(benign.honest_replacement, NEVER, tickets=frozenset(["output_change"])),
    "upstream_null": Row(benign.upstream_null, NEVER, tickets=BROKEN | {"output_change"}, ticket_due=True),
    "upstream_unit": Row(benign.upstream_unit, NEVER, tickets=BROKEN | {"output_change"}, ticket_due=True),
    "duplicates": Row(benign.duplicates, NEVER, tickets=DRIFT),
    "new_topic": Row(benign.new_topic, NEVER, tickets=DRIFT),
}
