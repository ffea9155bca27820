"""Reads one YAML file into what it is to be, and says of every mistake the place and the remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from poisonwatch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T", bound=BaseModel)

REMEDIES = {
    "missing": "this key is required",
    "model_type": "this must be a mapping",
    "path_type": "this must be a path",
    "too_short": "at least one entry is needed",
    "tuple_type": "this must be a list",
    "dict_type": "this must be a mapping",
    "model_attributes_type": "this must be a mapping",
    "union_tag_not_found": "`kind` is required here",
}
"""By kind of mistake, where the validator's own words are not those of YAML."""


def read(path: Path, kind: type[T], needed: str) -> T:
    """What a file says. `needed` tells what a mapping of this kind has at least, for a file that is none.

    The text of an error never quotes a value that the validator was given, only what its own messages say of it.

    Raises:
        ConfigError: one line per mistake, with the YAML path and the remedy.
    """
    try:
        loaded = YAML(typ="safe", pure=True).load(path)
    except OSError as error:
        msg = f"{path}: the configuration cannot be read ({error.strerror})"
        raise ConfigError(msg) from None
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        problem = " ".join(str(error).split())
        msg = f"{path}: this is not valid YAML: {problem}"
        raise ConfigError(msg) from None
    if not isinstance(loaded, dict):
        msg = f"{path}: the configuration must be a mapping with at least {needed}"
        raise ConfigError(msg)
    return checked(loaded, kind, str(path))


def checked(loaded: dict[str, Any], kind: type[T], name: str) -> T:
    """What a mapping says; `name` is what mistakes in it are told of.

    Raises:
        ConfigError: one line per mistake, with its place and the remedy.
    """
    try:
        return kind.model_validate(loaded)
    except ValidationError as error:
        problems = error.errors()
        # Where an entry of a list is wrong, that the list is then empty is no mistake of its own.
        inside = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
        told = [p for p in problems if p["type"] != "too_short" or p["loc"] not in inside]
        lines = [f"{name}: {_place(problem['loc'], kind)}{_remedy(problem, kind)}" for problem in told]
        raise ConfigError("\n".join(lines)) from None


def _place(location: tuple[int | str, ...], kind: type[BaseModel]) -> str:
    text = ""
    for part in _followed(location, kind)[0]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return f"{text}: " if text else ""


def _remedy(problem: Any, kind: type[BaseModel]) -> str:
    mistake, location = problem["type"], problem["loc"]
    if mistake == "extra_forbidden":
        known = list(_followed(location[:-1], kind)[1].model_fields)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        return f"unknown key; did you mean `{near[0]}`?" if near else f"unknown key; known are {', '.join(known)}"
    if mistake == "union_tag_invalid":
        return f"`kind` must be one of {problem['ctx']['expected_tags'].replace(chr(39), '')}"
    return REMEDIES[mistake] if mistake in REMEDIES else str(problem["msg"]).removeprefix("Value error, ")


def _followed(location: tuple[int | str, ...], kind: type[BaseModel]) -> tuple[list[int | str], type[BaseModel]]:
    """A place as the file has it, and the part of the configuration that is there.

    Where `kind` chose among several parts, the validator puts the kind into the location: it is no key.
    """
    written: list[int | str] = []
    model: type[BaseModel] = kind
    among: list[type[BaseModel]] = []
    for part in location:
        if isinstance(part, int):
            written.append(part)
            continue
        chosen = [one for one in among if part in get_args(one.model_fields["kind"].annotation)]
        among = []
        if chosen:
            model = chosen[0]
            continue
        written.append(part)
        if part in model.model_fields:
            found = _models_of(model.model_fields[part].annotation)
            among = found if len(found) > 1 else []
            model = found[0] if len(found) == 1 else model
    return written, model


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_of(inner)]
