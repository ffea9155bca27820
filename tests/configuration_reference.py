"""The reference of the configuration in docs/configuration.md, rendered from the model that reads it."""

from __future__ import annotations

import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from poisonwatch.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo

_UNITS = {
    "_seconds": "seconds",
    "_bytes": "bytes",
    "_ratio": "a share",
    "per_minute": "a minute",
    "_per_hour": "an hour",
}
"""What the end of a key says about its number."""


@dataclass(frozen=True)
class _Inner:
    """What an annotation takes."""

    words: str
    parts: tuple[type[BaseModel], ...] = ()
    """Parts with keys of their own; of several, `kind` chooses one."""
    many: bool = False


def rendered() -> str:
    """All sections: one for each part of the configuration, and one for each kind where there are several."""
    return "\n".join(line for section in _sections(Config, "") for line in section)


def _sections(model: type[BaseModel], place: str) -> Iterator[list[str]]:
    """The sections of everything inside one part, in the order in which a file has them."""
    for name, field in model.model_fields.items():
        inner = _taken(field.annotation, field.metadata)
        if not inner.parts:
            continue
        here = f"{place}{name}{'[]' if inner.many else ''}"
        if len(inner.parts) == 1:
            (part,) = inner.parts
            yield [f"### `{here}`", "", _summary(part), "", *_table(part, part.model_fields, here), ""]
            yield from _sections(part, f"{here}.")
        else:
            yield from _choice(inner.parts, here)


def _choice(parts: Sequence[type[BaseModel]], here: str) -> Iterator[list[str]]:
    """The sections of a place where `kind` chooses: what all have, then what each has besides."""
    common = [name for name in parts[0].model_fields if name != "kind" and all(_same(name, parts))]
    chosen = ", ".join(f"`{kind}`" for part in parts for kind in _kinds(part))
    yield [f"### `{here}`", "", f"`kind` is one of {chosen}.", ""]
    if common:
        yield [*_table(parts[0], common, here), ""]
    for part in parts:
        own = [name for name in part.model_fields if name != "kind" and name not in common]
        kinds = " or ".join(f"`{kind}`" for kind in _kinds(part))
        field = part.model_fields["kind"]
        unsaid = "" if field.is_required() or part is not parts[0] else " Where no `kind` is said, it is this one."
        yield [f"#### `{here}`, `kind`: {kinds}", "", _summary(part) + unsaid, ""]
        if own:
            yield [*_table(part, own, here), ""]
    for name in common:
        field = parts[0].model_fields[name]
        inner = _taken(field.annotation, field.metadata)
        if len(inner.parts) > 1:
            yield from _choice(inner.parts, f"{here}.{name}")
    for part in parts:
        for name, field in part.model_fields.items():
            inner = _taken(field.annotation, field.metadata)
            if name not in common and len(inner.parts) == 1:
                place = f"{here}.{name}"
                yield [f"### `{place}`", "", _summary(inner.parts[0]), ""]
                yield [*_table(inner.parts[0], inner.parts[0].model_fields, place), ""]


def _same(name: str, parts: Sequence[type[BaseModel]]) -> Iterator[bool]:
    """Whether each kind has a key, and says the same about it."""
    first = parts[0].model_fields[name]
    for part in parts:
        field = part.model_fields.get(name)
        yield field is not None and (field.description, str(field.annotation), _default(field)) == (
            first.description,
            str(first.annotation),
            _default(first),
        )


def _table(model: type[BaseModel], names: Any, here: str) -> list[str]:
    """One row for each key."""
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    for name in names:
        field = model.model_fields[name]
        inner = _taken(field.annotation, field.metadata)
        words = inner.words
        if inner.parts:
            words = f"[keys](#{anchor(f'{here}.{name}' + ('[]' if inner.many else ''))})"
        unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)
        if unit is not None and "number" in words:
            words += f"; {unit}"
        description = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {words} | {_default(field)} | {description} |")
    return rows


def anchor(heading: str) -> str:
    """What a link to a heading names."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n", maxsplit=1)[0].split())


def _kinds(model: type[BaseModel]) -> list[str]:
    return [str(kind) for kind in typing.get_args(model.model_fields["kind"].annotation)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is None or isinstance(default, BaseModel) or default in ("", (), {}):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def _taken(annotation: Any, metadata: Sequence[Any] = ()) -> _Inner:
    """What a key takes, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _taken(arguments[0], (*arguments[1:], *metadata))
    if origin in {typing.Union, types.UnionType}:
        choices = [_taken(one, metadata) for one in arguments if one is not types.NoneType]
        parts = tuple(dict.fromkeys(part for one in choices for part in one.parts))
        return _Inner(" or ".join(dict.fromkeys(one.words for one in choices)), parts)
    if origin is typing.Literal:
        return _Inner(", ".join(f"`{one}`" for one in arguments))
    if origin is tuple:
        inner = _taken(arguments[0])
        return _Inner(f"list: {inner.words}", inner.parts, many=True)
    if origin is dict:
        key, value = (_taken(one).words for one in arguments)
        return _Inner(f"mapping: {key} to {value}")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _Inner("", (annotation,))
    names = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", Path: "path"}
    return _Inner(names.get(annotation, "text") + _bounds(metadata))


def _bounds(metadata: Sequence[Any]) -> str:
    """What limits a number."""
    said = {name: getattr(one, name) for one in metadata for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    if {"ge", "le"} <= said.keys():
        return f", {said['ge']} to {said['le']}"
    return "".join(f", {words[name]} {bound}" for name, bound in said.items())
