"""One file with all state and all positions at one instant: arrays and a JSON manifest in an .npz, replaced atomically.

No pickle. The archive checks its members' CRC when they are read. A checkpoint of another format, or of other references,
is refused as a whole: the agent then starts anew and says so.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.errors import CheckpointError, OtherStateError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 5
MANIFEST = "manifest"


def save(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write state whose leaves are arrays or JSON values; `identity` says what it depends on.

    Raises:
        OSError: when the disk refuses; the checkpoint that was there is still there.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    manifest = {"format": FORMAT, "identity": identity, "state": _take_out(state, arrays)}
    arrays[MANIFEST] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        # On a full disk half a checkpoint would hold the room that others need.
        with suppress(OSError):
            draft.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """State as it was saved, or None where there is no checkpoint.

    Raises:
        CheckpointError: when it is damaged, or of another format.
        OtherStateError: when it belongs to other models or references.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        manifest = json.loads(arrays.pop(MANIFEST).tobytes())
        found, belongs_to = manifest["format"], manifest["identity"]
        state = _put_back(manifest["state"], arrays) if found == FORMAT else None
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in more ways than can be named
        msg = f"{path}: the checkpoint is damaged ({error})"
        raise CheckpointError(msg) from None
    if found != FORMAT:
        msg = f"{path}: checkpoint of format {found}, this agent reads {FORMAT}"
        raise CheckpointError(msg)
    if not isinstance(state, dict):
        msg = f"{path}: the checkpoint holds no state"
        raise CheckpointError(msg)
    if belongs_to != identity:
        msg = f"{path}: the checkpoint belongs to other models, references or window settings"
        raise OtherStateError(msg, state)
    return state


def set_aside(path: Path) -> Path | None:
    """Keep a checkpoint that was refused from being written over: for whoever finds out why. None where that fails."""
    kept = path.with_name(path.name + ".refused")
    try:
        path.replace(kept)
    except OSError:
        return None
    return kept


def _take_out(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        # Keys come from logs (versions, classes): wrapped, so that none can be mistaken for ours.
        return {"dict": {key: _take_out(member, arrays) for key, member in value.items()}}
    return [_take_out(member, arrays) for member in value] if isinstance(value, list | tuple) else value


def _put_back(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        return {key: _put_back(member, arrays) for key, member in value["dict"].items()}
    return [_put_back(member, arrays) for member in value] if isinstance(value, list) else value
