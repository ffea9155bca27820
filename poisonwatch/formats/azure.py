"""Azure ML's data collector: what it posts from a server, and the blobs that the platform writes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from poisonwatch.formats.cloudevents import attributes_of, event_time
from poisonwatch.formats.invocations import inputs_for, request_rows, response_rows
from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.loading import objects
from poisonwatch.formats.opening import opened
from poisonwatch.formats.pairing import Half, Pairing
from poisonwatch.formats.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft
    from poisonwatch.formats.pairing import Pair
    from poisonwatch.formats.rows import PairedConfig

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

MOST_WAITING = 64 << 20
"""Bytes of halves that wait for the other."""

TYPE = "azureml.inference."

SIDES = {
    "model_inputs": ("model", False),
    "model_outputs": ("model", True),
    "inputs": ("plain", False),
    "outputs": ("plain", True),
    "request": ("http", False),
    "response": ("http", True),
}
"""Collections that hold predictions: which of them belong together, and whether they are the response."""

UNNAMED = {"", "default"}
"""Versions that say nothing."""

_DEPLOYMENT = re.compile(r"/onlineEndpoints/([^/]+)/deployments/([^/]+)", re.IGNORECASE)


class _Said(NamedTuple):
    """What an event says of itself, wherever it says it."""

    kind: str
    key: str
    time: float
    version: str
    source: str


class Azure:
    """Predictions of the data collector: inputs and outputs arrive apart, joined by the id of their request."""

    pairing: Pairing | None

    def __init__(self, config: PairedConfig, most_bytes: int = MOST_BYTES, waiting_bytes: int = MOST_WAITING) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)
        self._halves = self.pairing = Pairing(config.pair_seconds, waiting_bytes, self._paired)

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions that an event completes.

        Raises:
            Rejected: when it is no event of the collector.
        """
        attributes = attributes_of(event.headers)
        if "type" in attributes:
            said = _said(attributes, event, draft)
            try:
                body = opened(event, self._most)
            except Rejected:
                # A request that cannot be read must not hide what was answered.
                if _side(said)[1]:
                    raise
                body = b""
            self._half(said, body, event, draft, elsewhere=False)
            return
        for loaded in objects(event, self._most, draft):
            try:
                self._line(loaded, event, draft)
            except Rejected as rejected:
                draft.reject(rejected.args[0], event.body)

    def _line(self, loaded: dict[str, Any], event: Event, draft: Draft) -> None:
        attributes = {name.lower(): value for name, value in loaded.items() if name != "data"}
        if not isinstance(attributes.get("type"), str):
            raise Rejected("unknown_type")
        said = _said(attributes, event, draft)
        elsewhere = str(attributes.get("datainblob", "")).lower() == "true" or attributes.get("dataref") is not None
        try:
            body = b"" if elsewhere else msgspec.json.encode(loaded.get("data"))
        except (RecursionError, UnicodeEncodeError):
            raise Rejected("too_deep") from None
        self._half(said, body, event, draft, elsewhere=elsewhere)

    def _half(self, said: _Said, body: bytes, event: Event, draft: Draft, *, elsewhere: bool) -> None:
        """Take one half, whose body may be `elsewhere`: it was too large, and is in a blob of its own."""
        if said.kind not in SIDES:
            draft.faults["other_collection"] += 1
            return
        family, response = _side(said)
        if not said.key:
            raise Rejected("missing_id")
        about = {
            "id": said.key,
            "time": None if math.isnan(said.time) else said.time,
            "version": said.version,
            "source": said.source,
            "elsewhere": elsewhere,
        }
        key = msgspec.json.encode((family, said.source, said.key)).decode()
        # Lines have no time of receipt, and inputs and outputs are in different files, read in any order: they wait
        # for as long as there is room.
        pair = self._halves.add(key, Half(body, about), event.at, draft, response=response)
        if pair is not None:
            self._paired(pair, draft)

    def _paired(self, pair: Pair, draft: Draft) -> None:
        about = pair.response.about
        if about["elsewhere"]:
            draft.reject("data_in_blob", pair.request.body)
            return
        try:
            outputs = response_rows(_data(pair.response.body), draft.faults)
        except Rejected as rejected:
            draft.reject(rejected.args[0], pair.response.body)
            return
        if pair.request.about.get("elsewhere"):
            draft.faults["data_in_blob"] += 1
            inputs = [None] * len(outputs)
        else:
            inputs = inputs_for(
                outputs, lambda: request_rows(_data(pair.request.body), self._config, draft.faults), draft.faults
            )
        endpoint, deployment = _deployed(about["source"])
        common = {
            "timestamp": about["time"] if about["time"] is not None else pair.request.about.get("time"),
            "prediction_id": about["id"],
            "model": self._config.model or endpoint,
            "model_version": about["version"]
            or pair.request.about.get("version")
            or self._config.model_version
            or deployment,
        }
        common = {name: value for name, value in common.items() if value is not None}
        self._rows.records(inputs, outputs, common, draft, pair.response.body)


def _side(said: _Said) -> tuple[str, bool]:
    return SIDES.get(said.kind, ("", False))


def _said(attributes: Mapping[str, Any], event: Event, draft: Draft) -> _Said:
    """What the attributes say: of a POST (`x-request-id`), or of a line (`correlationid`)."""
    names = ("correlationid", "xrequestid", "x-request-id")
    version = str(attributes.get("modelversion") or attributes.get("model-version") or "")
    return _Said(
        kind=str(attributes["type"]).removeprefix(TYPE),
        key=next((str(attributes[name]) for name in names if attributes.get(name)), ""),
        time=event_time(attributes.get("time"), event.at, draft),
        version="" if version in UNNAMED else version,
        source=str(attributes.get("source") or ""),
    )


def _data(body: bytes) -> Any:
    """The JSON of a half; a string may hold JSON itself."""
    found = load_json(body)
    if isinstance(found, str):
        try:
            return load_json(found.encode("utf-8", "replace"))
        except Rejected:
            return found
    return found


def _deployed(source: str) -> tuple[str | None, str | None]:
    """Endpoint and deployment of a source; None where it names none."""
    found = _DEPLOYMENT.search(source)
    return (found[1], found[2]) if found else (None, None)
