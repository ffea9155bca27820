"""Every format with a configuration and the events that a real server wrote in it, and what must hold whatever comes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.config.formats import (
    AzureConfig,
    BentomlConfig,
    KserveConfig,
    MlflowConfig,
    NativeConfig,
    OpenInferenceLogConfig,
    SagemakerConfig,
    SeldonConfig,
)
from poisonwatch.formats.azure import Azure
from poisonwatch.formats.bentoml import Bentoml
from poisonwatch.formats.events import Block, Event, frame
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.infer import infer
from poisonwatch.formats.jsonl import LONGEST_SAMPLE, MOST_SAMPLES
from poisonwatch.formats.kserve import Kserve
from poisonwatch.formats.mapping import Mapped
from poisonwatch.formats.mlflow import Mlflow
from poisonwatch.formats.open_inference import OpenInference
from poisonwatch.formats.records import EARLIEST, LATEST
from poisonwatch.formats.sagemaker import Sagemaker
from poisonwatch.formats.seldon import Seldon
from tests.formats.posted import CAPTURES, posted
from tests.streams import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from poisonwatch.formats.foreign import Format, Translated
    from poisonwatch.types import Decoded, Schema

LONGEST = 1 << 16
"""Bytes of a line or a body that are read: small, so that the limit is met."""

WAITING = 1 << 16
"""Bytes of halves that wait."""

ADULT = (
    *("age", "workclass", "education", "years", "marital", "job", "relation", "race", "sex"),
    *("gain", "loss", "hours", "country"),
)
INCOME = ("<=50K", ">50K")
SPAM = ("ham", "spam")

REASON = re.compile(r"[a-z0-9_]{1,64}")
"""What a reason may look like: it becomes a series on /metrics, so that nobody who sends must choose it."""


@dataclass(frozen=True)
class Written:
    """A format: how it is made, and events that it reads without a loss, `halves` of which make a prediction."""

    make: Callable[[], Format]
    events: tuple[Event, ...]
    halves: int = 1
    framed: bool = True


def _logged(*paths: str) -> tuple[Event, ...]:
    """The lines of log files, in turn."""
    files = [(CAPTURES / path).read_bytes().splitlines() for path in paths]
    return tuple(
        Event(line, origin=path) for lines in zip(*files, strict=True) for path, line in zip(paths, lines, strict=True)
    )


def _seldon() -> tuple[Event, ...]:
    """What KServe's logger posted as Seldon's would: only attributes differ."""
    renamed = []
    for event in posted("kserve_v1_json.jsonl"):
        headers = {name: value for name, value in event.headers.items() if name.startswith("ce-")}
        side = headers["ce-type"].rpartition(".")[2]
        headers |= {"ce-type": f"io.seldon.serving.inference.{side}", "ce-requestid": headers["ce-id"]}
        renamed.append(event._replace(headers={**headers, "content-type": "application/json"}))
    return tuple(renamed)


def _open_inference() -> tuple[Event, ...]:
    """Requests and responses of protocol v2, each with its id in the body."""
    found = []
    for event in posted("kserve_v2_text.jsonl"):
        body = {**json.loads(event.body), "id": event.headers["ce-id"]}
        found.append(Event(json.dumps(body).encode(), {"content-type": "application/json"}, event.at, "/"))
    return tuple(found)


def _mapped() -> tuple[Event, ...]:
    """Records of another shape than ours."""
    rows = [json.loads(line) for line in (CAPTURES / "adult.jsonl").read_text("utf-8").splitlines()]
    return tuple(
        Event(
            json.dumps(
                {
                    "meta": {"at": START + number, "id": row["id"]},
                    "out": [{"label": row["label"], "score": row["probability"]}],
                    "in": row["features"],
                }
            ).encode(),
            {"content-type": "application/json"},
            START + number,
            "/",
        )
        for number, row in enumerate(rows)
    )


SHAPE = {
    "timestamp": "meta.at",
    "prediction_id": "meta.id",
    "prediction": "out.0.label",
    "confidence": "out.0.score",
    "features": "in",
}

SAGEMAKER = "sagemaker/income-endpoint/AllTraffic/2026/03/02/"


@cache
def formats() -> dict[str, Written]:
    """All of them, by name."""
    rows = KserveConfig(features=ADULT, classes=INCOME, version_annotation="example.com/model-version")
    texts = KserveConfig(classes=SPAM)
    tensors = OpenInferenceLogConfig(classes=SPAM)
    azure, seldon = AzureConfig(), SeldonConfig(features=ADULT, classes=INCOME)
    sagemaker = SagemakerConfig(classes=INCOME)
    bento = BentomlConfig(text="text", classes=SPAM, prediction_id="client_request_id")
    tables = MlflowConfig(classes=INCOME)
    mapped = NativeConfig(fields=SHAPE)
    inputs, outputs = (f"azure_blob/model_{side}/2026/03/02/14/instance-0.jsonl" for side in ("inputs", "outputs"))
    return {
        "kserve_v1": Written(lambda: Kserve(rows, LONGEST, WAITING), tuple(posted("kserve_v1_json.jsonl")), 2),
        "kserve_v2": Written(lambda: Kserve(texts, LONGEST, WAITING), tuple(posted("kserve_v2_text.jsonl")), 2),
        "seldon": Written(lambda: Seldon(seldon, LONGEST, WAITING), _seldon(), 2),
        "open_inference": Written(lambda: OpenInference(tensors, LONGEST, WAITING), _open_inference(), 2),
        "azure": Written(lambda: Azure(azure, LONGEST, WAITING), tuple(posted("azure_http.jsonl")), 2),
        "azure_blob": Written(lambda: Azure(azure, LONGEST, WAITING), _logged(inputs, outputs), 2, framed=False),
        "sagemaker_csv": Written(
            lambda: Sagemaker(sagemaker, LONGEST), _logged(f"{SAGEMAKER}14/32-10-0-csv.jsonl"), framed=False
        ),
        "sagemaker_json": Written(
            lambda: Sagemaker(sagemaker, LONGEST), _logged(f"{SAGEMAKER}14/32-10-1-json.jsonl"), framed=False
        ),
        "sagemaker_base64": Written(
            lambda: Sagemaker(sagemaker, LONGEST), _logged(f"{SAGEMAKER}15/32-10-2-base64.jsonl"), framed=False
        ),
        "bentoml": Written(lambda: Bentoml(bento, LONGEST), _logged("bentoml/data/data.1.log"), framed=False),
        "mlflow": Written(lambda: Mlflow(tables, LONGEST), _logged("mlflow.jsonl"), framed=False),
        "mapping": Written(lambda: Mapped(mapped.fields, mapped.timezone, LONGEST), _mapped()),
    }


@cache
def schema_of(name: str) -> Schema:
    """What a model's reference would say of the predictions in these events."""
    written = formats()[name]
    translated = Translator(written.make()).translate(block(written.events))
    return infer(translated.records.splitlines()).schema


class Accounted(NamedTuple):
    """All that came of a log: native lines, and what was lost by reason."""

    records: bytes
    labels: bytes
    rejected: Counter[str]


def block(events: Iterable[Event]) -> Block:
    """The events as frames."""
    return Block(b"".join(map(frame, events)), framed=True)


def consistent(decoded: Decoded) -> None:
    """Every line is a prediction, a label or a rejection, and what goes on can be handled by all that comes after."""
    assert decoded.lines == decoded.predictions + decoded.labels + sum(decoded.rejected.values())
    assert decoded.predictions == sum(batch.time.size for batch in decoded.batches)
    assert all(map(REASON.fullmatch, [*decoded.rejected, *decoded.faults])), (decoded.rejected, decoded.faults)
    assert all(count > 0 for count in decoded.rejected.values())
    for _, sample in decoded.samples:
        assert len(sample) <= LONGEST_SAMPLE
    for batch in decoded.batches:
        count = batch.time.size
        assert ((batch.time >= EARLIEST) & (batch.time <= LATEST)).all()
        assert batch.version.size == count
        assert not count or 0 <= batch.version.min() <= batch.version.max() < len(batch.versions)
        for column in (batch.numbers, batch.codes, batch.texts, batch.embeddings):
            assert column.shape[-1] == count
        assert not np.isinf(batch.numbers).any()
        for texts in (batch.versions, batch.ids, batch.labels, batch.sources, *batch.texts):
            assert len(texts) in {count, len(batch.versions)}
            "".join(texts).encode()
        at = batch.rejected_at
        assert not at.size or (at[0] >= 0 and at[-1] <= count and (at[1:] >= at[:-1]).all())
    if decoded.feedback is not None:
        told = decoded.feedback
        assert {column.size for column in (told.ids, told.labels, told.sources, told.attributes)} == {told.time.size}
        assert told.time.size == decoded.labels
        "".join([*told.ids, *told.labels, *told.sources]).encode()


def accounted(make: Callable[[], Format], events: Sequence[Event]) -> Accounted:
    """Read events one by one, with a restart after each: none vanishes, and all is as if they had come at once.

    An event is told of, as records, labels, rejections or faults, or its half waits.
    """
    format_ = make()
    translator = Translator(format_)
    parts = []
    for event in events:
        before = translator.waiting
        translated = translator.translate(block([event]))
        lost = translated.lost
        told = len(translated.records) + len(translated.labels) + lost.rejected.total() + lost.faults.total()
        assert told or translator.waiting > before, event
        assert len(lost.samples) <= MOST_SAMPLES
        parts.append(translated)
        saved = translator.state()
        translator = Translator(make())
        translator.restore(saved)
    parts.append(translator.flush())
    assert not translator.waiting
    whole = Translator(make())
    at_once = [whole.translate(block(events)), whole.flush()]
    together = _together(parts)
    assert together == _together(at_once)
    return together


def _together(parts: Sequence[Translated]) -> Accounted:
    rejected: Counter[str] = Counter()
    for part in parts:
        rejected.update(part.lost.rejected)
    return Accounted(b"".join(p.records for p in parts), b"".join(p.labels for p in parts), rejected)
