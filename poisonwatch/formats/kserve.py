"""KServe's payload logger: CloudEvents over HTTP, or the objects that it writes to a blob store."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from poisonwatch.formats.bodies import answer_of, load_body, rows_for
from poisonwatch.formats.cloudevents import bytes_of, cloud_events, event_time, is_structured, structured
from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.loading import objects
from poisonwatch.formats.opening import opened
from poisonwatch.formats.pairing import Half, Pair, Pairing
from poisonwatch.formats.rows import PairedConfig, Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft

HEAD = "inference-header-content-length"
"""Header that says where the JSON of a binary v2 body ends; the logger seldom passes it on."""

STORE = {
    "reqtype": "type",
    "inferenceservice": "inferenceservicename",
    "occurrencetime": "time",
    **{name: name for name in ("id", "namespace", "component", "endpoint", "annotations", "metadata", "statuscode")},
}
"""Fields of the store's objects, in lower case, and the attributes that say the same."""

KEY = ("namespace", "inferenceservicename", "component", "endpoint", "id")

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

MOST_WAITING = 64 << 20
"""Bytes of halves that wait for the other."""

_encode = msgspec.json.Encoder().encode


class KserveConfig(PairedConfig, Protocol):
    """What users say of KServe's logger."""

    @property
    def version_annotation(self) -> str | None:
        """Annotation of the inference service that names the model's version."""
        ...

    @property
    def version_from_endpoint(self) -> bool:
        """Whether the endpoint is the version where nothing else names one."""
        ...


class Kserve:
    """Predictions of KServe's logger, v1 and v2 bodies, request and response in either order."""

    def __init__(self, config: KserveConfig, most_bytes: int = MOST_BYTES, waiting_bytes: int = MOST_WAITING) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)
        self.pairing = Pairing(config.pair_seconds, waiting_bytes, self._paired)

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions that an event completes.

        Raises:
            Rejected: when it is no event of the logger.
        """
        if not is_structured(event.headers):
            found = cloud_events(event.headers, event.body, draft)
            if found is not None:
                self._half(found[0].attributes, event, event, draft)
                return
        for loaded in objects(event, self._most, draft):
            try:
                self._member(loaded, event, draft)
            except Rejected as rejected:
                draft.reject(rejected.args[0], event.body)

    def _member(self, loaded: dict[str, Any], event: Event, draft: Draft) -> None:
        """A structured CloudEvent, or an object of the store."""
        stored = {name.lower(): value for name, value in loaded.items()}
        if "reqtype" not in stored:
            for found in structured(loaded, event.body, draft):
                self._half(found.attributes, event._replace(body=found.data), event, draft)
            return
        attributes = {STORE[name]: value for name, value in stored.items() if name in STORE and value is not None}
        data = stored.get("bytes")
        body = b"" if data is None else bytes_of(data)
        self._half(attributes, event._replace(body=body), event, draft)

    def _half(self, attributes: Mapping[str, Any], carried: Event, event: Event, draft: Draft) -> None:
        """Take one half; `carried` has the body of the request or response itself."""
        side = str(attributes.get("type", "")).rpartition(".")[2]
        if side not in {"request", "response"}:
            raise Rejected("unknown_type")
        if not attributes.get("id"):
            raise Rejected("missing_id")
        try:
            body = opened(carried, self._most)
        except Rejected:
            # Its own client compressed it: a request that cannot be read must not hide what was answered.
            if side == "response":
                raise
            body = b""
        time = event_time(attributes.get("time"), event.at, draft)
        key = [str(attributes.get(name, "")) for name in KEY]
        about = {
            "time": None if math.isnan(time) else time,
            "head": event.headers.get(HEAD) or _member_of(attributes.get("metadata"), HEAD),
            "version": self._annotated(attributes),
            "status": attributes.get("statuscode"),
        }
        if side == "response":
            about |= {"id": key[-1], "model": key[1], "endpoint": key[3]}
        at = time if math.isnan(event.at) else event.at
        pair = self.pairing.add(_encode(key).decode(), Half(body, about), at, draft, response=side == "response")
        if pair is not None:
            self._paired(pair, draft)

    def _annotated(self, attributes: Mapping[str, Any]) -> str | None:
        name = self._config.version_annotation
        return None if name is None else _member_of(attributes.get("annotations"), name.lower())

    def _paired(self, pair: Pair, draft: Draft) -> None:
        about, config = pair.response.about, self._config
        status = about["status"]
        if status is not None and not str(status).startswith("2"):
            draft.reject("error_response", pair.response.body)
            return
        try:
            answer = answer_of(load_body(pair.response.body, about["head"]), draft.faults)
        except Rejected as rejected:
            draft.reject(rejected.args[0], pair.response.body)
            return
        asked = pair.request
        inputs = rows_for(asked.body, asked.about.get("head"), len(answer.rows), config, draft.faults)
        common: dict[str, Any] = {
            "timestamp": about["time"],
            "prediction_id": about["id"],
            "model": config.model or about["model"] or answer.model,
        }
        endpoint = (about["endpoint"] or "default") if config.version_from_endpoint else None
        annotated = about["version"] or asked.about.get("version")
        version = annotated or answer.version or endpoint or config.model_version
        if version is not None:
            common["model_version"] = version
        self._rows.records(inputs, answer.rows, common, draft, pair.response.body)


def _member_of(said: object, name: str) -> str | None:
    """A member of an attribute that is an object, or the JSON of one, whatever the case of its name; a header's first value."""
    if isinstance(said, str):
        try:
            said = load_json(said.encode("utf-8", "replace")) if said not in {"", "{}"} else None
        except Rejected:
            return None
    if not isinstance(said, dict):
        return None
    found = next((value for key, value in said.items() if key.lower() == name), None)
    if isinstance(found, list):
        found = found[0] if found else None
    return found if isinstance(found, str) and found else None
