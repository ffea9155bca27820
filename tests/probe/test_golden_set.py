"""A golden set is read whole or refused with the place and the remedy."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.errors import GoldenError
from poisonwatch.probe.golden_set import FEWEST, MOST, read
from poisonwatch.types import GoldenInput, Question

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("ham", "spam", "rare")


def _records(n: int = 40) -> list[dict[str, Any]]:
    return [
        {"text": f"message {number}", "label": ("ham", "spam")[number % 2], "prediction": "ham", "confidence": 0.5}
        for number in range(n)
    ]


def _write(path: Path, records: list[dict[str, Any]]) -> bytes:
    content = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return content


@pytest.mark.parametrize("name", ["golden.jsonl", "golden.jsonl.gz"])
def test_records_are_read_in_their_order(tmp_path: Path, name: str) -> None:
    """Inputs and labels are those of the file, its hash that of the unpacked content, and a thin class is named."""
    content = _write(tmp_path / name, _records(80))
    golden = read(tmp_path / name, CLASSES)
    assert golden.inputs == tuple(GoldenInput(Question(r["text"], None, None), r["label"]) for r in _records(80))
    assert golden.sha256 == hashlib.sha256(content).hexdigest()
    assert golden.thin == {"rare": 0}


def test_labels_of_any_json_type_are_classes(tmp_path: Path) -> None:
    """1, 1.0 and "1" name the same class; features and embeddings are kept as they are."""
    features: dict[str, float | str | bool | None] = {"age": 3.0, "city": "x", "member": True, "gone": None}
    records = [{"label": label, "features": features, "embedding": [1.0, 2.0]} for label in (1, 1.0, "1") * 10]
    _write(tmp_path / "golden.jsonl", records)
    golden = read(tmp_path / "golden.jsonl", ("0", "1"))
    assert {one.label for one in golden.inputs} == {"1"}
    assert golden.inputs[0].question == Question(None, features, [1.0, 2.0])
    assert golden.thin == {"0": 0}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": None}, "line 7: it has no `label`"),
        ({"label": "eggs"}, "line 7: the label 'eggs' is no class of the reference, which has ham, spam, rare"),
        ({"text": None}, "line 7: it has no input"),
        ({"text": 5}, "line 7: this is no native record"),
        ({"embedding": [1.0]}, "do not all have the same inputs"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    """Whatever is wrong with one record is told with its line and what to do."""
    records = _records()
    records[6] |= change
    _write(tmp_path / "golden.jsonl", records)
    with pytest.raises(GoldenError, match=problem) as caught:
        read(tmp_path / "golden.jsonl", CLASSES)
    assert str(tmp_path / "golden.jsonl") in str(caught.value)


@pytest.mark.parametrize(("count", "fine"), [(FEWEST - 1, False), (FEWEST, True), (MOST, True), (MOST + 1, False)])
def test_the_number_of_records_is_bounded(tmp_path: Path, count: int, fine: bool) -> None:
    """Too few prove nothing, too many are never replayed within the hour."""
    _write(tmp_path / "golden.jsonl", _records(count))
    if fine:
        assert len(read(tmp_path / "golden.jsonl", CLASSES).inputs) == count
    else:
        with pytest.raises(GoldenError, match="records"):
            read(tmp_path / "golden.jsonl", CLASSES)


@pytest.mark.parametrize("content", [None, b"\x1f\x8b broken", b"plain"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    """A missing file, a cut archive and one that is none are refused with the reason, not with a traceback."""
    if content is not None:
        (tmp_path / "golden.jsonl.gz").write_bytes(content)
    with pytest.raises(GoldenError, match="it cannot be read"):
        read(tmp_path / "golden.jsonl.gz", CLASSES)
