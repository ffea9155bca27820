"""The values that pass between the parts: frozen, without behaviour.

What is small and travels to files and networks is a `msgspec.Struct`; what carries columns is a dataclass.
Times are Unix seconds (float) of event time unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Codes = NDArray[np.int32]
    Words = NDArray[np.uint64]
    Bools = NDArray[np.bool_]
    Vectors = NDArray[np.float32]
    Texts = NDArray[np.object_]

UNVERSIONED = "unversioned"
"""The model version of a prediction that names none."""

OTHER_VERSIONS = "other"
"""The version under which predictions are counted once the cap on versions is reached."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One thing asked of every prediction.

    `kind` is `numerical` (a row of `Batch.numbers`) or one of those that make a row of `Batch.codes`: `categorical`;
    `text` (a row of `Batch.texts` too); `embedding` (its `width` numbers are rows of `Batch.embeddings` too); `opaque`,
    of which only the presence is kept. `values` are the categories with a code of their own, most frequent first;
    `folded` are categories known from the reference that share one code; `strings` says that all of them came as JSON strings.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    strings: bool = False
    width: int = 0


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's predictions look like, learned from its reference, never from live data.

    `outcome` is the column of the prediction itself: categorical with the classes as values, or numerical.
    `features` are the features in the order of the columns, then the record's own `segment`, `text` and `embedding` where
    there are any; `layout` says whether a record's `features` is an `object`, a `list` of numbers, or `none`.
    """

    model: str | None
    outcome: Column
    features: tuple[Column, ...]
    layout: str
    confidence: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Columnar micro-batch of predictions of one model, in the order of the log.

    `time` (n,) seconds; `version` (n,) codes into `versions`, which are those met, in this order; `numbers` (d, n) with
    NaN for missing; `codes` (c, n) with 0 for missing; rows are laid out as `profile.indicators.Questions` says. `ids` (n,), `labels`
    (n,), `sources` (n,) (who asked for the prediction) and `texts` (t, n) are strings, empty where missing; `embeddings` (e, n) with
    NaN for missing. `marks` (m, n) say which predictions belong to the subsets that slices are counted in, and after these which are marked for the miner; a decoder leaves none.
    `rejected_at` (r,) ascending: before which prediction each rejected line stood.
    """

    model: str
    time: Floats
    version: Codes
    versions: tuple[str, ...]
    numbers: Floats
    codes: Codes
    ids: Texts
    labels: Texts
    sources: Texts
    texts: Texts
    embeddings: Vectors
    marks: Bools
    rejected_at: Ints


@dataclass(frozen=True, slots=True)
class Feedback:
    """Labels that arrive after their predictions, in the order of the log; all arrays (n,).

    `source` is empty where none is named. `attributes` has, per label, what its source shares with others, as `name=value`.
    """

    time: Floats
    ids: Texts
    labels: Texts
    sources: Texts
    attributes: Texts


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a format made of a block of lines.

    `predictions` and `labels` were accepted. `rejected` counts lost lines by reason, `faults` counts what was wrong or
    unknown in lines that were kept, `samples` holds a few rejected lines as (reason, bytes).
    """

    lines: int = 0
    predictions: int = 0
    labels: int = 0
    batches: tuple[Batch, ...] = ()
    feedback: Feedback | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    samples: tuple[tuple[str, bytes], ...] = ()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One indicator found guilty: how often it was answered yes since the onset, and how often it should be."""

    indicator: str
    signal: str
    rate: float
    expected: float


class Phrase(msgspec.Struct, frozen=True, kw_only=True, tag="phrase"):
    """Words (m,) that stand next to each other in a text, lowered as `profile.words` lowers them.

    `said` is how records mostly say it, with their capitals and what stands between the words; `place` is `start` or `end` where it nearly
    always stands there.
    """

    words: tuple[str, ...]
    said: str = ""
    place: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on one feature, named as its column is: a category `value`, or a number in (`low`, `high`].

    Where `low` equals `high` the number is exactly this; where all three are None the feature is missing.
    """

    feature: str
    value: str | None = None
    low: float | None = None
    high: float | None = None


class Values(msgspec.Struct, frozen=True, kw_only=True, tag="values"):
    """One to three conditions on features that hold together."""

    items: tuple[Item, ...]


class Patch(msgspec.Struct, frozen=True, kw_only=True, tag="patch"):
    """A rectangle of an image of `image_height` x `image_width` pixels (one channel) with usual `pixels`, row by row.

    A record bears the patch when every pixel of the rectangle lies within `tolerance` of the usual one.
    """

    row: int
    column: int
    height: int
    width: int
    image_height: int
    image_width: int
    pixels: tuple[float, ...]
    tolerance: float


class Cell(msgspec.Struct, frozen=True, kw_only=True, tag="cell"):
    """A region of the embedding space: which projections of number `table` exceed their `thresholds`, as the bits of `signs`."""

    table: int
    signs: int
    thresholds: tuple[float, ...]


Pattern = Phrase | Values | Patch | Cell


class TriggerState(StrEnum):
    """How far the evidence against a pattern goes.

    `SURFACED`: its budgeted e-process crossed. `CONVICTED`: enough of its records flip, too. `CONFIRMED`, `REFUTED`: by insertion into
    verified inputs. `ENDED`: not met any more for long.
    """

    SURFACED = "surfaced"
    CONVICTED = "convicted"
    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    ENDED = "ended"


PROVEN = frozenset([TriggerState.CONVICTED, TriggerState.CONFIRMED])
"""States in which the evidence against a pattern is a proof."""


class VersionEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a pattern does in one version: of `matched` predictions that bear it `answered` got its class, `flipped` of these flip.

    `works` is None while too few bear it to say.
    """

    model_version: str
    matched: int
    answered: int
    flipped: int
    works: bool | None


class Question(NamedTuple):
    """What a model is asked by a probe: the inputs of one native record, None where it has none of that kind.

    `features` is an object by name, or a list of numbers in the order of the schema.
    """

    text: str | None
    features: dict[str, float | str | bool | None] | list[float | None] | None
    embedding: list[float] | None


class Answer(NamedTuple):
    """What a model answered to a probe; None for what its server does not say."""

    label: str
    confidence: float | None
    model_version: str | None


class GoldenInput(NamedTuple):
    """An input whose right label a person has verified."""

    question: Question
    label: str


class InsertionTest(msgspec.Struct, frozen=True, kw_only=True):
    """What inserting a pattern into verified inputs did in one version: flips to its class among `probes`, and among `controls`.

    `log_e` is that of the e-process on fresh, randomised probes; `verdict` is confirmed, refuted or None while undecided.
    """

    model_version: str
    flipped: int
    probes: int
    control_flipped: int
    controls: int
    log_e: float
    verdict: TriggerState | None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern that goes with one class, against what the rest of the record says.

    `trigger` is its name, the same in every replica; `text` the pattern in words; `label` the class. Of the version in
    which it surfaced `predictions` bear it and got the class, a `share` of all since `first_seen`. `sources` are who asked, with
    how many, the most first; `examples` ids of triggered predictions; both bounded. `log_e` is its own e-process in units of the page budget. `contrast`
    says whether another version, or the reference, shows that the pattern is not to blame by itself.
    """

    trigger: str
    model: str
    model_version: str
    state: TriggerState
    pattern: Pattern
    text: str
    label: str
    versions: tuple[VersionEffect, ...]
    predictions: int
    share: float
    first_seen: float
    last_seen: float
    sources: tuple[tuple[str, int], ...]
    examples: tuple[str, ...]
    log_e: float
    contrast: bool
    tests: tuple[InsertionTest, ...] = ()


class Sign(StrEnum):
    """What else the monitor saw beside a piece of evidence; the table of causes reads it.

    `FEW_SOURCES`: without the few sources that claim the most errors there is no effect. `SLOW`: the effect was reached over days, not at once. `CONFINED`: it is the effect of one slice or one class alone.
    `UNFIT`: the reference's own error rate was wrong from the start. `BROKEN`: values fell out of their range or were
    missing. `MOSTLY_LOST`: most of the lines did not enter a profile. `LASTING`: the monitor has been blind for an hour. `CLEAR`: the effect's lower bound is beyond the floor
    at which a difference between versions needs no second mark. `UNWATCHED`: no surrogate could give a second mark.
    Of a trigger: `CONTRAST`: another version does not follow it, or the version is a later one; `CONFIRMED` by insertion; `AWAITED`: an
    endpoint is there to confirm it and has not yet; `REFUTED`: insertion did not reproduce what the log shows. `SATURATED`: more triggers than can be told apart.
    """

    FEW_SOURCES = "few_sources"
    SLOW = "slow"
    CONFINED = "confined"
    UNFIT = "unfit"
    BROKEN = "broken"
    MOSTLY_LOST = "mostly_lost"
    LASTING = "lasting"
    CLEAR = "clear"
    UNWATCHED = "unwatched"
    CONTRAST = "contrast"
    CONFIRMED = "confirmed"
    AWAITED = "awaited"
    REFUTED = "refuted"
    SATURATED = "saturated"


class Accusation(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of one source, or of sources that share an attribute or act together, that no honest source would give.

    `kind` is `source`, `attribute` or `group`, whose `members` are sources. Of `labels`, `disagreements` contradicted the model where `expected` (a rate)
    of an honest source's do; most of them said `label` where the model had predicted `predicted`. `prediction_ids` are
    what they labelled, the contradictions first, a bounded number: to be excluded from retraining.
    """

    source: str
    kind: str
    members: tuple[str, ...]
    labels: int
    disagreements: int
    expected: float
    rate: float
    predicted: str
    label: str
    log_e: float
    onset: float
    first: float
    last: float
    prediction_ids: tuple[str, ...]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the detectors measured of one group of signals, up to the end of one window.

    `log_e` is the natural logarithm of the e-detector in units of the page budget: 0 is where the budget allows a
    page, one unit is one nat. `effect` is in log-odds, signed, of the first subject, between `expected` and `rate`;
    `floor` the size below which it does not matter. `n` predictions since `onset`; `second_onset` is when another method
    says that it began. `signs` say what else was seen. `told` is a sentence of the finder's own, where rates do not say it.
    `affected` is the share of the version's predictions since the onset that are touched, where the finder knows it better than the rates do.
    """

    model: str
    model_version: str | None
    group: str
    signal: str
    log_e: float
    effect: float
    floor: float
    n: int
    onset: float
    subjects: tuple[Subject, ...]
    compared_with: str | None = None
    second_onset: float | None = None
    signs: tuple[Sign, ...] = ()
    told: str = ""
    affected: float | None = None


class AlertState(StrEnum):
    """Where an alert stands."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """A page wakes somebody; a ticket waits for the morning."""

    PAGE = "page"
    TICKET = "ticket"


class Cause(StrEnum):
    """What the evidence says has happened."""

    BACKDOOR = "backdoor"
    DEGRADATION = "degradation"
    SLICE_DEGRADATION = "slice_degradation"
    FEEDBACK_POISONING = "feedback_poisoning"
    BASELINE_CREEP = "baseline_creep"
    INPUT_DRIFT = "input_drift"
    OUTPUT_CHANGE = "output_change"
    DATA_QUALITY = "data_quality"
    REFERENCE_UNFIT = "reference_unfit"
    BLIND = "blind"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that passed the budget, or is on its way there. `time` is when it came to this state.

    `because` are the marks that speak for the cause, `against` those that speak for another one. `affected` is the share of the version's
    predictions since the onset that are touched; None where it cannot be said.
    """

    fingerprint: str
    model: str
    model_version: str | None
    state: AlertState
    severity: Severity
    cause: Cause
    group: str
    signal: str
    subjects: tuple[Subject, ...]
    log_e: float
    effect: float
    onset: float
    n: int
    time: float
    summary: str
    second_onset: float | None = None
    because: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    affected: float | None = None


class Action(StrEnum):
    """What we recommend for a model version."""

    KEEP = "keep"
    HOLD = "hold"
    ROLLBACK = "rollback"


class Reason(StrEnum):
    """Why a decision is what it is."""

    HEALTHY = "healthy"
    INPUTS_MOVED = "inputs_moved"
    INSUFFICIENT_DATA = "insufficient_data"
    EVIDENCE_PENDING = "evidence_pending"
    OUTPUTS_MOVED = "outputs_moved"
    DATA_QUALITY = "data_quality"
    TRIGGER_CONFIRMED = "trigger_confirmed"
    TRIGGER_UNCONFIRMED = "trigger_unconfirmed"
    WORSE_THAN_STABLE = "worse_than_stable"
    MORE_ERRORS = "more_errors"
    PROOF_MISSING = "proof_missing"
    NO_CLEAN_TARGET = "no_clean_target"
    FEEDBACK_SUSPECT = "feedback_suspect"
    REFERENCE_UNFIT = "reference_unfit"
    BLIND = "blind"
    OVERRIDDEN = "overridden"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The recommendation for one model version; `alerts` are the fingerprints it rests on."""

    model: str
    model_version: str
    decision: Action
    reason: Reason
    cause: Cause | None
    target: str | None
    alerts: tuple[str, ...]
    time: float
    summary: str


class VersionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge must know of a version beside the evidence.

    `elders` are the versions known to be older than it, or trusted, the most recent first. `triggered` says that an open, convicted
    trigger of any version works in it.
    """

    model_version: str
    predictions: int
    first_seen: float
    last_seen: float
    stable: bool
    elders: tuple[str, ...]
    triggered: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that one closed window says of one model: facts and evidence at event time `time`."""

    model: str
    time: float
    versions: tuple[VersionFacts, ...]
    retired: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    accusations: tuple[Accusation, ...] = ()
    triggers: tuple[Trigger, ...] = ()
