"""Checkpoints: read as they were written, or refused as a whole; a failed write leaves the one before."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from poisonwatch.checkpoint import FORMAT, load, save
from poisonwatch.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY: dict[str, Any] = {"models": {"mail": "0" * 64}, "window_seconds": 60.0}
KEYS = st.sampled_from(["array", "dict", "manifest", "a0", "", "é", "__class__"]) | st.text(
    alphabet=st.characters(exclude_categories=["Cs"]), max_size=5
)
ARRAYS = arrays(
    st.sampled_from([np.float64, np.int64, np.int32, np.bool_]), st.tuples(st.integers(0, 3), st.integers(0, 3))
)
STATES = st.dictionaries(
    KEYS,
    st.recursive(
        ARRAYS
        | st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False)
        | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=10,
    ),
    max_size=4,
)


def same(first: Any, second: Any) -> bool:
    """Are two states the same, array for array, bit for bit?"""
    if isinstance(first, np.ndarray):
        return (
            isinstance(second, np.ndarray)
            and (first.dtype, first.shape) == (second.dtype, second.shape)
            and first.tobytes() == second.tobytes()
        )
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and list(first) == list(second)
            and all(same(first[key], second[key]) for key in first)
        )
    if isinstance(first, list):
        return isinstance(second, list) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and bool(first == second)


@given(state=STATES)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    """Any nesting of arrays and values comes back as it was, whatever the keys are called."""
    path = tmp_path_factory.mktemp("checkpoint") / "c"
    save(path, state, IDENTITY)
    assert same(state, load(path, IDENTITY))


def test_infinite_times() -> None:
    """Minus infinity, the time before the first record, is a value that `same` tells apart."""
    assert not same({"a": -np.inf}, {"a": 0.0})


def test_minus_infinity_survives(tmp_path: Path) -> None:
    """The clock of a log that has told nothing comes back as it was."""
    save(tmp_path / "c", {"newest": -np.inf}, IDENTITY)
    assert load(tmp_path / "c", IDENTITY) == {"newest": -np.inf}


def state(number: int = 0) -> dict[str, Any]:
    """Some state."""
    return {"counts": np.arange(500, dtype=np.int64) + number, "versions": {"array": {"dict": [1.5, number]}}}


def test_no_checkpoint(tmp_path: Path) -> None:
    """Where there is none, there is no state and no error."""
    assert load(tmp_path / "none", IDENTITY) is None


def test_replaced(tmp_path: Path) -> None:
    """The newer checkpoint takes the place of the older one, and nothing else is left in the folder."""
    save(tmp_path / "c", state(1), IDENTITY)
    save(tmp_path / "c", state(2), IDENTITY)
    assert same(load(tmp_path / "c", IDENTITY), state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_truncated(tmp_path: Path) -> None:
    """A file that was cut off anywhere is refused."""
    path = tmp_path / "c"
    save(path, state(), IDENTITY)
    content = path.read_bytes()
    for keep in range(0, len(content), 37):
        path.write_bytes(content[:keep])
        with pytest.raises(CheckpointError, match="c: the checkpoint is damaged"):
            load(path, IDENTITY)


def test_flipped_bits(tmp_path: Path) -> None:
    """A file with any flipped bit is refused, or gives exactly the state that was saved: never another."""
    path = tmp_path / "c"
    save(path, state(), IDENTITY)
    content = path.read_bytes()
    rng = np.random.default_rng(4)
    refused = 0
    for place in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = load(path, IDENTITY)
        except CheckpointError:
            refused += 1
        else:
            assert same(found, state())
    # The arrays and the manifest are nearly all of the file, and every byte of them is checked.
    assert refused > len(content) / 5 * 0.8


@pytest.mark.parametrize("content", [b"", b"\n", b"PK\x03\x04", b"\x80\x04K\x01.", b"{}", b"\x93NUMPY\x01\x00"])
def test_other_content(tmp_path: Path, content: bytes) -> None:
    """What is no checkpoint at all is refused, a pickle too."""
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "c", IDENTITY)


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        [],
        None,
        {"format": FORMAT, "identity": IDENTITY},
        {"format": FORMAT, "identity": IDENTITY, "state": {"array": "a7"}},
        {"format": FORMAT, "identity": IDENTITY, "state": {"list": []}},
        {"format": FORMAT, "identity": IDENTITY, "state": [1]},
        {"format": FORMAT, "identity": IDENTITY, "state": {"array": []}},
        {"format": FORMAT, "identity": IDENTITY, "state": {"dict": []}},
    ],
)
def test_strange_manifest(tmp_path: Path, manifest: Any) -> None:
    """An archive whose manifest is not what we write is refused."""
    with (tmp_path / "c").open("wb") as file:
        np.savez(file, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8))
    with pytest.raises(CheckpointError, match="checkpoint"):
        load(tmp_path / "c", IDENTITY)


def test_pickled_member_is_not_read(tmp_path: Path) -> None:
    """An archive with a pickled array is refused, not executed."""
    with (tmp_path / "c").open("wb") as file:
        np.savez(file, manifest=np.array([{"format": FORMAT}], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "c", IDENTITY)


def test_other_format(tmp_path: Path) -> None:
    """A checkpoint of another format is refused with both numbers."""
    save(tmp_path / "c", state(), IDENTITY)
    with zipfile.ZipFile(tmp_path / "c") as archive, archive.open("manifest.npy") as member:
        manifest = json.loads(np.lib.format.read_array(member).tobytes())
    manifest["format"] = 99
    with (tmp_path / "c").open("wb") as file:
        np.savez(file, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8))
    with pytest.raises(CheckpointError, match=f"checkpoint of format 99, this agent reads {FORMAT}"):
        load(tmp_path / "c", IDENTITY)


def test_other_identity(tmp_path: Path) -> None:
    """A checkpoint of other references or windows is refused: its numbers would mean something else."""
    save(tmp_path / "c", state(), IDENTITY)
    with pytest.raises(CheckpointError, match="belongs to other models, references or window settings"):
        load(tmp_path / "c", {**IDENTITY, "window_seconds": 30.0})


@pytest.mark.system
def test_disk_full(tmp_path: Path) -> None:
    """When the disk takes no more, the error says so and the checkpoint that was there is still there."""
    path = tmp_path / "c"
    save(path, state(), IDENTITY)
    program = f"""
        import resource, signal, sys
        from pathlib import Path
        import numpy as np
        from poisonwatch.checkpoint import save

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(Path({str(path)!r}), {{"big": np.zeros(1_000_000)}}, {{}})
        except OSError as error:
            print(error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("File too large\n", "")
    assert same(load(path, IDENTITY), state())


def test_folder_gone(tmp_path: Path) -> None:
    """A folder that is not there is the disk's error, for the agent to count."""
    with pytest.raises(OSError, match="No such file"):
        save(tmp_path / "none" / "c", state(), IDENTITY)
