"""What one native record may look like: typed structs generated from the schema, and the reading of single values.

The structs let the decoder skip what is not needed and refuse what is not known, in native code. A field that is not
part of the native record is added to the struct as raw bytes once it has been met, so that it can be counted without
leaving the fast path.
"""

from __future__ import annotations

import enum
import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec

from poisonwatch.profile.indicators import FEATURE, folded_code, unseen_code

if TYPE_CHECKING:
    from poisonwatch.types import Column, Schema

EARLIEST, LATEST = 946_684_800.0, 4_102_444_800.0
"""Event times before 2000 or after 2099 are absurd: milliseconds taken for seconds, a clock never set."""

LONGEST_NAME = 128
"""Characters of a version or label that are kept."""

BROKEN = "\ufffd"
"""What decoders put where there was no character."""

REPLACED = "\u25a1"
"""What stands in a name for a character that cannot be shown."""

IDENTITIES = ("prediction_id", "request_id", "inference_id")
"""Names under which a record may carry its id, the first one there counts."""

OWN = ("segment", "text", "embedding")
"""Fields of the native record itself that the schema has a column of when the reference carries them."""

READ = (
    *(
        "label",
        "timestamp",
        "prediction",
        "confidence",
        "probabilities",
        "scores",
        "features",
        "model",
        "model_version",
        "source",
    ),
    *(*IDENTITIES, *OWN),
)
"""Fields of the native record that are read; `scores` is another name of `probabilities`."""

PASSED = ("latency_ms",)
"""Fields of the native record that are not read further."""

MOST_EXTRAS = 64
"""Unknown fields that are counted by name's presence; beyond them, unknown fields are skipped unseen."""

Timestamp = float | Annotated[datetime, msgspec.Meta(tz=True)]
_RAW = msgspec.Raw | msgspec.UnsetType
UNSEEN = "\0unseen"
"""Stands for every category that the reference does not have."""

_SCALAR = str | bool | float | None


def object_features(schema: Schema) -> list[tuple[int, Column]]:
    """Features that are keys of a record's `features` object, with their number in the schema."""
    return [(n, column) for n, column in enumerate(schema.features) if column.name.startswith(FEATURE)]


def listed_features(schema: Schema) -> int:
    """How many features a record's `features` list has."""
    return sum(column.kind == "numerical" for column in schema.features) if schema.layout == "list" else 0


def feature_key(column: Column) -> str:
    """The key of a feature in a record's `features` object."""
    return column.name.removeprefix(FEATURE)


class Code(float, enum.Enum):
    """Base of the enumerations that let the decoder turn a category into its code, without making a string of it.

    Members are floats, so that they can be packed together with numbers.
    """

    def __new__(cls, text: str, code: int) -> Self:
        """Make the member of a category."""
        member = float.__new__(cls, code)
        member._value_ = text
        return member

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return cls._value2member_map_.get(name_of(value), cls["unseen"])


def _code_type(column: Column) -> type[Code]:
    """Enumeration of a column whose categories are strings; what is not among them becomes the member `unseen`."""
    members = {f"c{code}": (value, 1 + code) for code, value in enumerate(column.values)}
    members |= {f"f{number}": (value, folded_code(column)) for number, value in enumerate(column.folded)}
    make: Any = Code  # the functional way to make an enumeration, which type checkers do not know of a subclass
    found: type[Code] = make("Code", {**members, "unseen": (UNSEEN, unseen_code(column))})
    return found


def code_types(schema: Schema) -> dict[str, type[Code]]:
    """The enumeration of every categorical column of strings."""
    return {column.name: _code_type(column) for column in (schema.outcome, *schema.features) if column.strings}


def _column_type(column: Column, codes: dict[str, type[Code]]) -> Any:
    match column.kind:
        case "numerical":
            return float | None
        case "categorical":
            return codes[column.name] | None if column.strings else _SCALAR
        case "text":
            return str | None
        case "embedding":
            return list[float | None] | None
        case _:
            return _RAW


def fits_struct(name: str) -> bool:
    """Can a struct have a field of this name? Others are looked at on the slow path."""
    return '"' not in name and "\\" not in name and min(name, default=" ") >= " "


def features_struct(
    schema: Schema, codes: dict[str, type[Code]], order: list[str], extras: tuple[str, ...]
) -> type[msgspec.Struct]:
    """Struct of the `features` object: attribute f0, f1, ... per feature of the schema, x0, x1, ... per unknown one.

    The attributes in `order` come first, in that order.
    """
    fields: list[Any] = []
    place = {field: number for number, field in enumerate(order)}
    for number, column in sorted(object_features(schema), key=lambda f: place.get(f"f{f[0]}", len(order))):
        kind = _column_type(column, codes)
        fields.append((f"f{number}", kind, msgspec.UNSET if kind is _RAW else None))
    fields += [(f"x{number}", _RAW, msgspec.UNSET) for number in range(len(extras))]
    rename = {f"f{number}": feature_key(column) for number, column in object_features(schema)}
    rename |= {f"x{number}": name for number, name in enumerate(extras)}
    return msgspec.defstruct(
        "Features", fields, rename=rename, forbid_unknown_fields=len(extras) < MOST_EXTRAS, gc=False
    )


def record_struct(
    schema: Schema,
    codes: dict[str, type[Code]],
    order: list[str],
    extras: tuple[str, ...],
    feature_extras: tuple[str, ...],
) -> type[msgspec.Struct]:
    """Struct of a whole record; unknown fields met so far are its attributes x0, x1, ...

    `codes` has the enumeration of every categorical column of strings, `order` how the features' attributes must stand.
    """
    features: Any
    match schema.layout:
        case "object":
            kind = features_struct(schema, codes, order, feature_extras)
            features = ("features", kind, msgspec.field(default_factory=kind))
        case "list":
            features = ("features", list[float | None], msgspec.field(default_factory=list))
        case _:
            features = ("features", _RAW, msgspec.UNSET)
    fields: list[Any] = [
        ("timestamp", Timestamp | None, None),
        ("prediction", _column_type(schema.outcome, codes), None),
        ("label", _SCALAR, None),
        ("confidence", float | None, None),
        ("probabilities", list[float] | dict[str, float] | None, None),
        ("scores", list[float] | dict[str, float] | None, None),
        features,
        *(_own_field(schema, name, codes) for name in OWN),
        *((name, str | int | float | None, None) for name in IDENTITIES),
        ("model", str | None, None),
        ("model_version", str | float | None, None),
        ("source", str | int | float | None, None),
        *((name, _RAW, msgspec.UNSET) for name in PASSED),
        *((f"x{number}", _RAW, msgspec.UNSET) for number in range(len(extras))),
    ]
    rename = {f"x{number}": name for number, name in enumerate(extras)}
    return msgspec.defstruct("Record", fields, rename=rename, forbid_unknown_fields=len(extras) < MOST_EXTRAS, gc=False)


def own_columns(schema: Schema) -> dict[str, Column]:
    """Columns of the fields of the record itself, by field."""
    return {column.name: column for column in schema.features if column.name in OWN}


def _own_field(schema: Schema, name: str, codes: dict[str, type[Code]]) -> tuple[str, Any, Any]:
    column = own_columns(schema).get(name)
    kind = _RAW if column is None else _column_type(column, codes)
    return name, kind, msgspec.UNSET if kind is _RAW else None


def name_of(value: object) -> str:
    """Canonical text of a class, category or version: 1, 1.0 and "1" are the same.

    It is told on terminals: nothing in it ends a line, moves the cursor or turns the direction of writing. It is asked for in queries: what
    PromQL takes for broken text (U+FFFD) is not in it either.
    """
    if isinstance(value, str):
        kept = value[:LONGEST_NAME]
        if kept.isprintable() and BROKEN not in kept:
            return kept
        # Half a surrogate pair cannot be written to any file.
        kept = kept.encode("utf-8", "replace").decode()
        return "".join(one if one.isprintable() and one != BROKEN else REPLACED for one in kept)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value)[:LONGEST_NAME]


def codes_by_value(column: Column) -> dict[object, int]:
    """Code of every value that a record may carry for a categorical column, whichever JSON type it comes in."""
    codes: dict[object, int] = {}
    known = [(value, 1 + code) for code, value in enumerate(column.values)]
    known += [(value, folded_code(column)) for value in column.folded]
    for value, code in known:
        codes[value] = code
        if value in {"true", "false"}:
            codes[value == "true"] = code
        number = _number(value)
        if number is not None and name_of(number) == value:
            codes.setdefault(number, code)
    codes[None] = 0
    return codes


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def seconds(value: object) -> float:
    """Unix seconds of a timestamp; NaN where there is none.

    Raises:
        ValueError: with the reason under which the record is counted as rejected.
    """
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("absurd_timestamp") from None
    if not isinstance(value, str):
        raise ValueError("wrong_type")  # noqa: TRY004 - the text is a reason, the caller counts it
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("absurd_timestamp") from None
    if parsed.tzinfo is None:
        raise ValueError("timestamp_without_zone")
    return parsed.timestamp()
