"""CloudEvents in HTTP's and Kafka's binary mode, structured, and in batches."""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec

from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.records import EARLIEST, LATEST, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.foreign import Draft

PREFIXES = ("ce-", "ce_")
"""Of a header that is an attribute: over HTTP, and in a message of Kafka."""

STRUCTURED = "application/cloudevents"


class CloudEvent(NamedTuple):
    """Attributes, with lower-case names without `ce-`, and the bytes that the event carries."""

    attributes: Mapping[str, str]
    data: bytes


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes among headers with lower-case names; empty where there are none."""
    return {
        name[3:]: unquote(value) if "%" in value else value
        for name, value in headers.items()
        if name.startswith(PREFIXES)
    }


def is_structured(headers: Mapping[str, str]) -> bool:
    """Is the body a CloudEvent as a whole, or a batch of them?"""
    return headers.get("content-type", "").strip().lower().startswith(STRUCTURED)


def cloud_events(headers: Mapping[str, str], body: bytes, draft: Draft) -> list[CloudEvent] | None:
    """The CloudEvents of one event, in whichever mode they come; None where it is none.

    What is wrong with one of a batch is counted in the draft; a missing `specversion` only as the fault `no_specversion`.

    Raises:
        Rejected: when it is structured and broken.
    """
    if is_structured(headers):
        return structured(load_json(body), body, draft)
    attributes = attributes_of(headers)
    if not attributes:
        return None
    if "specversion" not in attributes:
        draft.faults["no_specversion"] += 1
    if "content-type" in headers:
        attributes["datacontenttype"] = headers["content-type"]
    return [CloudEvent(attributes, body)]


def structured(loaded: Any, sample: bytes, draft: Draft) -> list[CloudEvent]:
    """The CloudEvents that one JSON value, an event or a batch of them, describes."""
    found = []
    if loaded == []:
        draft.reject("empty_list", sample)
    for member in loaded if isinstance(loaded, list) else [loaded]:
        try:
            found.append(_event(member))
        except Rejected as rejected:
            draft.reject(rejected.args[0], sample)
            continue
        if "specversion" not in found[-1].attributes:
            draft.faults["no_specversion"] += 1
    return found


def _event(loaded: Any) -> CloudEvent:
    if not isinstance(loaded, dict):
        raise Rejected("not_an_object")
    attributes = {
        name.lower(): value if isinstance(value, str) else _encoded(value).decode()
        for name, value in loaded.items()
        if value is not None and name not in {"data", "data_base64"}
    }
    if "data_base64" in loaded:
        return CloudEvent(attributes, bytes_of(loaded["data_base64"]))
    data = loaded.get("data")
    return CloudEvent(attributes, data.encode() if isinstance(data, str) else _encoded(data))


def bytes_of(encoded: object) -> bytes:
    """Bytes of their base64.

    Raises:
        Rejected: when it is none.
    """
    if not isinstance(encoded, str):
        raise Rejected("bad_base64")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("bad_base64") from None


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        raise Rejected("too_deep") from None
    except (TypeError, ValueError, OverflowError):
        raise Rejected("malformed") from None


def event_time(said: object, received: float, draft: Draft) -> float:
    """Unix seconds that an event says, RFC 3339 or a number; where it says none that can be, when it was received.

    A time that cannot be is the fault `odd_event_time`: nobody's record is lost for it. NaN where nothing is known.
    """
    if said is None or said == "":
        return received
    try:
        time = _number(said)
    except ValueError:
        time = math.nan
    if EARLIEST <= time <= LATEST:
        return time
    draft.faults["odd_event_time"] += 1
    return received


def _number(said: object) -> float:
    if isinstance(said, str) and said.replace(".", "", 1).isdecimal():
        return float(said)
    return seconds(said)
