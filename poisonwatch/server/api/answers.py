"""The shapes of what is asked and answered over HTTP; the OpenAPI document is made from them.

Instants are RFC 3339 in UTC. A number that JSON has not (an infinity) is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.responses import Response

from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.types import Action, AlertState, Cause, Reason, Severity, Sign, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

_HIDDEN = r"\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""Control characters, ends of lines, and what turns or hides what stands beside it."""

PRINTABLE = rf"^[^{_HIDDEN}]*[^\s{_HIDDEN}][^{_HIDDEN}]*$(?!\n)"
"""Text on one line with something on it."""

SHORTEST, LONGEST = 60.0, 30 * 86400.0
"""Seconds for which an override may stand."""

Instant = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-05T09:55:00.250Z"])]
Author = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=200, extra_json_schema={"pattern": PRINTABLE}, description="Who says so: a person."
    ),
]
Why = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=1000, extra_json_schema={"pattern": PRINTABLE}, description="Why."),
]


class Problem(msgspec.Struct, kw_only=True):
    """Why there is no answer, and what to do."""

    error: str


class Wish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a person decides instead of the agent. `target` is where a rollback leads, where that is not the version that the agent names."""

    decision: Action
    author: Author
    reason: Why
    expires_in_seconds: Annotated[float, msgspec.Meta(ge=SHORTEST, le=LONGEST)]
    target: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None


class OverrideAnswer(msgspec.Struct, kw_only=True):
    """A person's decision that stands until `expires`. `user` is who the server knows the author as, empty where it asks for no password."""

    model: str
    model_version: str
    decision: Action
    author: str
    reason: str
    made: Instant
    expires: Instant
    target: str | None
    user: str


class Withdrawn(msgspec.Struct, kw_only=True):
    """The override is gone: what the agent itself decides holds again."""

    model: str
    model_version: str
    override: None = None


class RollbackAnswer(msgspec.Struct, kw_only=True):
    """A rollback that was decided and is being watched; `traffic_share` is what the bad version still gets, `receiver` who took the rest."""

    state: RollbackState
    target: str | None
    receiver: str | None
    decided: Instant
    since: Instant
    traffic_share: float
    summary: str


class Affected(msgspec.Struct, kw_only=True):
    """How much of the version's traffic is touched since the onset: as a share, and in predictions."""

    share: float | None
    predictions: int | None


class Agent(msgspec.Struct, kw_only=True):
    """Who answers."""

    version: str


class DecisionAnswer(msgspec.Struct, kw_only=True):
    """What to do with a version, and why. `code` is 0 keep, 1 hold, 2 rollback; `evaluated_at` is when the agent last looked.

    `alerts` are fingerprints. `next` is what a person does now, the first thing first.
    """

    model: str
    model_version: str
    decision: Action
    code: Annotated[int, msgspec.Meta(ge=0, le=2)]
    reason: Reason
    cause: Cause | None
    since: Instant
    summary: str
    onset: Instant | None
    affected: Affected
    speaks_for: list[str] = msgspec.field(name="for")
    against: list[str]
    ruled_out: list[str]
    would_change: list[str]
    target: str | None
    target_because: str | None
    alerts: list[str]
    next: list[str]
    override: OverrideAnswer | None
    rollback: RollbackAnswer | None
    evaluated_at: Instant
    agent: Agent


class AlertAnswer(msgspec.Struct, kw_only=True):
    """An alert that is open; `model_version` is null where it concerns the log or the labels as a whole.

    `runbook` is the page in docs/runbooks that says what to do. `log_e` is the evidence in nats: from 0 on the budget of false pages allows a page.
    """

    fingerprint: str
    model: str
    model_version: str | None
    state: AlertState
    severity: Severity
    cause: Cause
    group: str
    signal: str
    subjects: list[Subject]
    log_e: float | None
    effect: float | None
    onset: Instant
    second_onset: Instant | None
    since: Instant
    predictions: int
    affected: float | None
    summary: str
    because: list[str]
    against: list[str]
    runbook: str


class AlertStory(msgspec.Struct, kw_only=True):
    """An alert with the decision for its version; where it concerns all versions, the decisions for all."""

    alert: AlertAnswer
    decisions: list[DecisionAnswer]
    next: list[str]


class VersionAnswer(msgspec.Struct, kw_only=True):
    """What is known of a version. `distances` from the reference by feature are for people to read: they decide nothing."""

    model: str
    model_version: str
    decision: Action | None
    predictions: int
    first_seen: Instant
    last_seen: Instant
    stable: bool
    elders: list[str]
    triggered: bool
    labels: int
    contradicted: int
    distances: dict[str, dict[str, float | None]]


class ModelAnswer(msgspec.Struct, kw_only=True):
    """What is known of a model. `unproven`: its reference was learned from traffic that nobody looked at; `blind` says what cannot be watched, and why."""

    model: str
    reference: str
    reference_predictions: int
    unproven: bool
    blind: dict[str, str]
    versions: list[str]
    decisions: dict[str, Action]
    alerts: list[str]


class EvidenceAnswer(msgspec.Struct, kw_only=True):
    """What was measured of one group of signals. It counts from `log_e` 0 on, where `effect` (log-odds) reaches `floor`."""

    model: str
    model_version: str | None
    group: str
    signal: str
    log_e: float | None
    effect: float | None
    floor: float | None
    n: int
    onset: Instant | None
    second_onset: Instant | None
    subjects: list[Subject]
    compared_with: str | None
    signs: list[Sign]
    told: str


class TriggerAnswer(msgspec.Struct, kw_only=True):
    """An open trigger with the fields of the journal; more of them are told than are named here."""

    trigger: str
    model: str
    model_version: str
    state: str
    label: str
    pattern: dict[str, Any]
    predictions: int
    share: float
    first_seen: Instant
    last_seen: Instant
    summary: str


class JournalEntry(msgspec.Struct, kw_only=True):
    """A line of the journal; what its kind has beside comes with it. `hash` is that of the line, `prev` that of the line before."""

    seq: int
    prev: str
    hash: str
    time: Instant
    kind: str
    model: str | None
    model_version: str | None


class FlaggerBody(msgspec.Struct, kw_only=True):
    """What Flagger sends with every webhook. Names of what is meant stand in `metadata`, or in the query."""

    name: str = ""
    namespace: str = ""
    phase: str = ""
    checksum: str = ""
    metadata: dict[str, str] | None = None


class FlaggerAnswer(msgspec.Struct, kw_only=True):
    """Yes: what was asked for is what the agent decides."""

    model: str
    model_version: str
    decision: Action
    summary: str


def as_json(content: object) -> Response:
    """An answer."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def refusal(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    """Why there is no answer."""
    content = msgspec.json.encode(Problem(error=error))
    return Response(content, status, headers, media_type="application/json")
