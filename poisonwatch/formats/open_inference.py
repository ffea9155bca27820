"""Requests and responses of the Open Inference Protocol (v2): lines, messages of Kafka, or both in one object."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.formats.bodies import answer_of, load_body, rows_for
from poisonwatch.formats.cloudevents import event_time
from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.opening import opened
from poisonwatch.formats.pairing import Half, Pair, Pairing
from poisonwatch.formats.rows import PairedConfig, Rows

if TYPE_CHECKING:
    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft

HEAD = "inference-header-content-length"

KEYS = (":key", "ce-requestid", "ce-id", "x-request-id")
"""Headers that name the request, before the `id` of the body: MLServer lets the key of a message win, too."""

SIDES = {"inputs": "request", "outputs": "response"}
"""Ends of the topics of Seldon Core 2."""

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

MOST_WAITING = 64 << 20
"""Bytes of halves that wait for the other."""

_encode = msgspec.json.Encoder().encode


class OpenInference:
    """Predictions of servers that speak v2, whoever logs them."""

    def __init__(self, config: PairedConfig, most_bytes: int = MOST_BYTES, waiting_bytes: int = MOST_WAITING) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)
        self.pairing = Pairing(config.pair_seconds, waiting_bytes, self._paired)

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions that an event completes.

        Raises:
            Rejected: when it is neither request nor response.
        """
        lines = _lines(event, self._most)
        if not lines:
            self._one(event, draft)
        for line in lines:
            try:
                self._one(event._replace(body=line), draft)
            except Rejected as rejected:
                draft.reject(rejected.args[0], line)

    def _one(self, event: Event, draft: Draft) -> None:
        headers = event.headers
        topic, _, end = event.origin.rpartition(".")
        side = SIDES.get(end)
        name = next((headers[key] for key in KEYS if headers.get(key)), None)
        try:
            body = opened(event, self._most)
            loaded = load_body(body, headers.get(HEAD)).loaded
        except Rejected:
            # A server writes what can be read, so this is a request; it must not hide what was answered.
            if name is None or side == "response":
                raise
            body, loaded, side = b"", {}, "request"
        if not isinstance(loaded, dict):
            raise Rejected("not_an_object")
        if side is None and not {"inputs", "outputs"} & loaded.keys() and {"request", "response"} & loaded.keys():
            self._wrapped(loaded, event, draft)
            return
        if side is None:
            side = "request" if "inputs" in loaded else "response"
            if side == "response" and not {"outputs", "error"} & loaded.keys():
                raise Rejected("unknown_event")
        about = self._about(event, loaded.get("model_name") if side == "response" else None, draft)
        if side == "response" and about["model"] is None and end in SIDES:
            about["model"] = topic.rpartition(".")[2]
        key = [topic if end in SIDES else "", name if name is not None else _id(loaded)]
        self._half(key, side, Half(body, about), event, draft)

    def _about(self, event: Event, model: object, draft: Draft, said: object = None) -> dict[str, Any]:
        headers = event.headers
        time = event_time(said if said is not None else headers.get("ce-time"), event.at, draft)
        return {
            "time": None if math.isnan(time) else time,
            "head": headers.get(HEAD),
            "model": headers.get("mlserver-model") or (model if isinstance(model, str) and model else None),
            "version": headers.get("mlserver-version"),
        }

    def _wrapped(self, loaded: dict[str, Any], event: Event, draft: Draft) -> None:
        """Request and response, or one of them, as members of an object."""
        said = loaded.get("timestamp", loaded.get("time"))
        about = self._about(event, loaded.get("model"), draft, said) | {"head": None}
        halves = {side: _encoded(loaded[side]) for side in ("request", "response") if loaded.get(side) is not None}
        if not halves:
            raise Rejected("unknown_event")
        ids = [_id(value) for value in (loaded, *(_value(loaded[side]) for side in halves))]
        name = next((found for found in ids if found is not None), None)
        if len(halves) == 2:
            self._paired(Pair(Half(halves["request"], about), Half(halves["response"], about | {"id": name})), draft)
            return
        ((side, body),) = halves.items()
        self._half(["", name], side, Half(body, about), event, draft)

    def _half(self, key: list[str | None], side: str, half: Half, event: Event, draft: Draft) -> None:
        name = key[-1]
        if name is None:
            raise Rejected("missing_id")
        if side == "response":
            half.about["id"] = name
        time = half.about["time"]
        at = event.at if time is None or not math.isnan(event.at) else time
        pair = self.pairing.add(_encode(key).decode(), half, at, draft, response=side == "response")
        if pair is not None:
            self._paired(pair, draft)

    def _paired(self, pair: Pair, draft: Draft) -> None:
        asked, (body, about), config = pair.request, pair.response, self._config
        try:
            answer = answer_of(load_body(body, about["head"]), draft.faults)
        except Rejected as rejected:
            draft.reject(rejected.args[0], body)
            return
        inputs = rows_for(asked.body, asked.about.get("head"), len(answer.rows), config, draft.faults)
        common = {
            "timestamp": about["time"],
            "prediction_id": about["id"],
            "model": config.model or about["model"] or asked.about.get("model") or answer.model,
            "model_version": answer.version or about["version"] or asked.about.get("version") or config.model_version,
        }
        common = {name: value for name, value in common.items() if value is not None}
        self._rows.records(inputs, answer.rows, common, draft, body)


def _lines(event: Event, most_bytes: int) -> list[bytes]:
    """Objects that were posted together, one a line; nothing where the body is one object, or cannot be opened."""
    if b"\n" not in event.body and event.body.startswith(b"{"):
        return []
    try:
        body = opened(event, most_bytes)
        first, _, rest = body.strip().partition(b"\n")
        if not rest or b'"binary_data_size"' in first or not isinstance(load_json(first), dict):
            return []
    except Rejected:
        return []
    return [line for line in body.split(b"\n") if line.strip()]


def _id(loaded: object) -> str | None:
    found = loaded.get("id") if isinstance(loaded, dict) else None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) and found else None


def _value(body: Any) -> Any:
    """A body that may be given as its text; what is broken has no id."""
    if not isinstance(body, str):
        return body
    try:
        return load_json(body.encode("utf-8", "replace"))
    except Rejected:
        return None


def _encoded(value: Any) -> bytes:
    """A member that is a body, or the text of one."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise Rejected("malformed") from None
