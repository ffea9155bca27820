"""Seldon Core's request logger: request, response and feedback as CloudEvents, over HTTP or by Kafka."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.formats.bodies import Answer, Body, answer_of, input_rows, load_body
from poisonwatch.formats.cloudevents import CloudEvent, bytes_of, cloud_events, event_time, is_structured, structured
from poisonwatch.formats.lenient import Rejected
from poisonwatch.formats.loading import objects
from poisonwatch.formats.opening import opened
from poisonwatch.formats.pairing import Half, Pair, Pairing
from poisonwatch.formats.rows import PairedConfig, Rows

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft

KEY = ("namespace", "inferenceservicename", "endpoint", "modelid", "requestid")

SIDES = {
    "io.seldon.serving.inference.request": "request",
    "io.seldon.serving.inference.response": "response",
    "io.seldon.serving.feedback": "feedback",
}

KINDS = ("data", "strData", "jsonData", "binData")
"""Where a body of Seldon's own protocol has its data; `meta` and all else do not matter."""

UNNAMED = re.compile(r"t:[0-9]+")
"""What Seldon calls the outputs of a model that names none."""

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

MOST_WAITING = 64 << 20
"""Bytes of halves that wait for the other."""

_encode = msgspec.json.Encoder().encode


class Seldon:
    """Predictions and labels of Seldon Core v1; bodies of its own protocol, of v1 (TensorFlow's) and of v2."""

    def __init__(self, config: PairedConfig, most_bytes: int = MOST_BYTES, waiting_bytes: int = MOST_WAITING) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)
        self.pairing = Pairing(config.pair_seconds, waiting_bytes, self._paired)

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions that an event completes, or the labels that it brings.

        Raises:
            Rejected: when it is no event of the logger.
        """
        headers = event.headers
        if not is_structured(headers):
            found = cloud_events(headers, event.body, draft)
            if found is not None:
                self._take(found[0].attributes, event, event, draft)
                return
            if "type" in headers:
                # Straight to Kafka, the names have no prefix.
                self._take(headers, event, event, draft)
                return
        for loaded in objects(event, self._most, draft):
            for one in structured(loaded, event.body, draft):
                try:
                    self._take(one.attributes, event._replace(body=one.data), event, draft)
                except Rejected as rejected:
                    draft.reject(rejected.args[0], event.body)

    def _take(self, attributes: Mapping[str, str], carried: Event, event: Event, draft: Draft) -> None:
        side = SIDES.get(attributes.get("type", ""))
        if side is None:
            raise Rejected("unknown_type")
        name = attributes.get("requestid") or attributes.get("id")
        if not name:
            raise Rejected("missing_id")
        time = event_time(attributes.get("time"), event.at, draft)
        try:
            body = opened(carried, self._most)
        except Rejected:
            if side != "request":
                raise
            body = b""  # what its client compressed badly must not hide what was answered
        if side == "feedback":
            self._feedback(CloudEvent(attributes, body), name, time, draft)
            return
        about: dict[str, Any] = {"time": None if math.isnan(time) else time}
        if side == "response":
            about |= {
                "id": name,
                "model": attributes.get("inferenceservicename") or attributes.get("modelid"),
                "node": attributes.get("modelid"),
            }
        key = _encode([*(attributes.get(part, "") for part in KEY[:-1]), name]).decode()
        at = time if math.isnan(event.at) else event.at
        pair = self.pairing.add(key, Half(body, about), at, draft, response=side == "response")
        if pair is not None:
            self._paired(pair, draft)

    def _paired(self, pair: Pair, draft: Draft) -> None:
        (body, about), config = pair.response, self._config
        try:
            answer = self._answer(load_body(body), about["node"], draft.faults)
        except Rejected as rejected:
            draft.reject(rejected.args[0], body)
            return
        try:
            inputs = self._inputs(load_body(pair.request.body), draft.faults)
        except Rejected:
            draft.faults["unreadable_request"] += 1
            inputs = [None] * len(answer.rows)
        common = {
            "timestamp": about["time"],
            "prediction_id": about["id"],
            "model": config.model or about["model"] or answer.model,
            "model_version": answer.version or config.model_version,
        }
        common = {name: value for name, value in common.items() if value is not None}
        self._rows.records(inputs, answer.rows, common, draft, body)

    def _inputs(self, body: Body, faults: Counter[str]) -> list[Any]:
        kinds = _kinds(body.loaded)
        if not kinds:
            return input_rows(body, self._config, faults)
        if len(kinds) > 1:
            faults["ambiguous_request"] += 1
        kind, value = kinds[0]
        if kind == "jsonData" and isinstance(value, dict) and {"inputs", "instances"} & value.keys():
            return input_rows(Body(value), self._config, faults)
        rows, names = _rows(kind, value)
        # The client writes the names: those that the configuration gives go first.
        if self._config.features or not names:
            return rows
        return [_by_name(names, row) for row in rows]

    def _answer(self, body: Body, node: str | None, faults: Counter[str]) -> Answer:
        loaded = body.loaded
        kinds = _kinds(loaded)
        if not kinds:
            failed = isinstance(loaded, dict) and isinstance(loaded.get("status"), dict)
            if failed and not {"outputs", "predictions"} & loaded.keys():
                raise Rejected("error_response")
            return answer_of(body, faults)
        rows, names = _rows(*kinds[0])
        classes = self._config.classes
        if names and not any(map(UNNAMED.fullmatch, names)):
            rows = [row if isinstance(row, list) and len(row) == len(classes) else _by_name(names, row) for row in rows]
        return Answer(rows, None, _image(loaded, node))

    def _feedback(self, event: CloudEvent, name: str, time: float, draft: Draft) -> None:
        loaded = load_body(event.data).loaded
        truth = loaded.get("truth") if isinstance(loaded, dict) else None
        kinds = _kinds(truth)
        if not kinds:
            raise Rejected("missing_label")
        # The id of the prediction is in the response that the client sends back; the event's own may be a new one.
        name = _puid(loaded.get("response")) or name
        rows, _ = _rows(*kinds[0])
        if not rows:
            raise Rejected("missing_label")
        for number, row in enumerate(rows):
            label: dict[str, Any] = {
                "timestamp": None if math.isnan(time) else time,
                "prediction_id": name if len(rows) == 1 else f"{name}#{number}",
                "label": self._rows.answered(row).get("prediction"),
            }
            if event.attributes.get("source"):
                label["source"] = event.attributes["source"]
            draft.labels.append(label)


def _kinds(loaded: Any) -> list[tuple[str, Any]]:
    """What data a body of Seldon's own protocol has."""
    if not isinstance(loaded, dict):
        return []
    return [(kind, loaded[kind]) for kind in KINDS if loaded.get(kind) is not None]


def _rows(kind: str, value: Any) -> tuple[list[Any], list[str]]:
    """Rows of one kind of data, and the names of their values; without names an empty list."""
    match kind:
        case "strData":
            return [value], []
        case "jsonData":
            nested = isinstance(value, list) and any(isinstance(member, list | dict) for member in value)
            return (value if nested else [value]), []
        case "binData":
            return [bytes_of(value).decode("utf-8", "replace")], []
    if not isinstance(value, dict):
        raise Rejected("wrong_type")
    names = value.get("names")
    names = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
    if isinstance(value.get("ndarray"), list):
        return value["ndarray"], names
    tensor = value.get("tensor")
    if isinstance(tensor, dict) and isinstance(tensor.get("values"), list):
        return _shaped(tensor["values"], tensor.get("shape")), names
    raise Rejected("unknown_data")


def _shaped(values: list[Any], shape: Any) -> list[Any]:
    """Rows of flat values; what the shape claims must agree with their number."""
    if not isinstance(shape, list) or not shape:
        return values
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise Rejected("bad_tensor")
    if len(shape) > 16 or math.prod(shape) != len(values):
        raise Rejected("shape_mismatch")
    width = len(values) // shape[0]
    return values if len(shape) == 1 else [values[n : n + width] for n in range(0, len(values), width)]


def _by_name(names: list[str], row: Any) -> Any:
    """A row as an object; values behind the last name are called by their place."""
    if not isinstance(row, list):
        return {names[0]: row} if len(names) == 1 else row
    return {names[place] if place < len(names) else str(place): value for place, value in enumerate(row)}


def _puid(response: Any) -> str | None:
    meta = response.get("meta") if isinstance(response, dict) else None
    found = meta.get("puid") if isinstance(meta, dict) else None
    return found if isinstance(found, str) and found else None


def _image(loaded: dict[str, Any], node: str | None) -> str | None:
    """The image that answered: the only version that this protocol tells."""
    meta = loaded.get("meta")
    path = meta.get("requestPath") if isinstance(meta, dict) else None
    found = path.get(node) if isinstance(path, dict) and node is not None else None
    return found if isinstance(found, str) and found else None
