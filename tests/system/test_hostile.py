"""Hostile input against the real agent: what is honest is counted, memory and disk are bounded, /metrics answers.

Floods have `POISONWATCH_FLOOD` lines here, by default fewer than in `benchmarks.hostile`, which takes a million.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from poisonwatch.formats.rows import MOST_ROWS
from tests.streams import lines, predictions
from tests.system.floods import FLOODS, flood
from tests.system.hostile import HONEST, SERVICE, Besieged, by_label, honest, honest_classes, reference

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]

COUNT = int(os.environ.get("POISONWATCH_FLOOD", "20000"))
FORMATS = ("native", "kserve", "seldon", "open_inference", "sagemaker", "azure", "bentoml", "mlflow")


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models."""
    folder = tmp_path_factory.mktemp("references")
    return {name: reference(folder, name) for name in ("mail", "other")}


def start() -> float:
    """When the honest predictions begin: all of them are in the past."""
    return time.time() // 60 * 60 - HONEST * 2


def closing() -> bytes:
    """A prediction of now, long after the honest ones: it closes their windows, and stays in an open one itself."""
    return lines(predictions(1, 6, start=time.time()))


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_distinct(name: str, references: dict[str, Path], tmp_path: Path) -> None:
    """Every line has a new one; all are counted, and only so many are remembered."""
    flood(name, COUNT, tmp_path, references, start())


def test_a_gigabyte_without_a_newline(references: dict[str, Path], tmp_path: Path) -> None:
    """It is one line that is too long; what stands before and behind it counts."""
    good = honest(start())
    path = tmp_path / "hostile.ndjson"
    with path.open("wb") as file:
        file.writelines(good[:500])
        file.truncate(file.tell() + (1 << 30))
        file.seek(0, 2)
        file.write(b"\n")
        for _ in range(128):
            file.write(b"x" * (1 << 20))
        file.write(b"\n")
        file.writelines(good[500:])
        file.write(closing())
    # Reading it takes a while, in which nothing usable comes.
    with Besieged(tmp_path, {"mail": references["mail"]}, [{"path": "hostile.ndjson"}], quiet=600.0) as agent:
        found = agent.has_read(HONEST + 3)
        assert by_label(found, "poisonwatch_records_rejected_total", "reason") == {"too_long": 2}, agent.told()
        assert agent.of("poisonwatch_predictions_total", "class", model_version="v1") == honest_classes()
        agent.bounded()


def _odd(at: float) -> dict[str, list[bytes]]:
    """Odd lines by what becomes of them; nothing for those that are accepted."""
    usual = f'"timestamp":{at},"model_version":"evil","model":"mail"'
    return {
        "": [
            f'{{{usual},"prediction":"ham","prediction":"spam","confidence":0.5,"confidence":0.9}}'.encode(),
            f'{{{usual},"prediction":"\\ud800","prediction_id":"\\udfff","source":"\\ud800x"}}'.encode(),
            f'{{{usual},"prediction":"ham","confidence":{"9" * 4000}}}'.encode(),
            f'{{{usual},"prediction":"ham","confidence":NaN,"features":{{"amount":-Infinity}}}}'.encode(),
            f'{{{usual},"prediction":"ham","confidence":1e999}}'.encode(),
            f'{{{usual},"prediction":"ham","features":{{{",".join(f"{chr(34)}f{n}{chr(34)}:1" for n in range(50_000))}}}}}'.encode(),
            f'{{{usual},"prediction":"ham","features":{"[" * 500 + "]" * 500}}}'.encode(),
        ],
        "missing_timestamp": [b'{"a":' * 10_000 + b"1" + b"}" * 10_000],
        "malformed": [
            b"{",
            b"[" * 100_000,
            f'{{{usual},"prediction":"ham","confidence":{"9" * 100_000}}}'.encode(),
            b"\0" * 100,
        ],
        "invalid_utf8": [b'{"timestamp":1,"prediction":"\xff\xfe"}', b"\xff" * 1000],
        "not_an_object": [b"[]", b"[" * 10_000 + b"]" * 10_000, b"1e5", b'"text"', b"null"],
        "absurd_timestamp": [b'{"timestamp":1e300,"prediction":"ham"}', b'{"timestamp":-1,"prediction":"ham"}'],
        "too_long": [b"9" * (2 << 20)],
    }


def test_odd_lines(references: dict[str, Path], tmp_path: Path) -> None:
    """Nesting, digits, halves of surrogate pairs, names given twice, no numbers at all: each is one count."""
    began = start()
    odd = _odd(began)
    times = 20
    good = honest(began)
    with (tmp_path / "hostile.ndjson").open("wb") as file:
        for number in range(times):
            for lines in odd.values():
                file.writelines(line + b"\n" for line in lines)
            file.writelines(good[number * HONEST // times : (number + 1) * HONEST // times])
    with Besieged(tmp_path, {"mail": references["mail"]}, [{"path": "hostile.ndjson"}]) as agent:
        found = agent.has_read(HONEST + times * sum(map(len, odd.values())))
        rejected = {reason: times * len(lines) for reason, lines in odd.items() if reason}
        assert by_label(found, "poisonwatch_records_rejected_total", "reason") == rejected, agent.told()
        assert agent.of("poisonwatch_predictions_total", "class", model_version="v1") == honest_classes()
        agent.bounded()


def _bombs() -> list[bytes]:
    """Small bodies that want to be large."""
    zeros = bytes(1 << 20)
    gz, zst = gzip.compress(zeros * 512), zstandard.compress(zeros * 1024)
    twice = gzip.compress(gzip.compress(zeros * 64))
    return [
        gz,
        zst,
        twice,
        gzip.compress(zst),
        gzip.compress(b"[" * (4 << 20)),
        gzip.compress(b"x" * 100)[:-9],
        b"[" * ((4 << 20) - 1),
        b'{"a":' * 10_000,
        b"9" * 100_000 + b"x",
        b'{"instances":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'"\\ud800',
    ]


def test_bombs_by_http_in_every_format(references: dict[str, Path], tmp_path: Path) -> None:
    """A gigabyte in a megabyte, compressed twice, millions of brackets: taken, then counted as what they are."""
    doors = [{"kind": "http", "path": f"/v1/{name}", "format": name} for name in FORMATS]
    began, bombs = start(), _bombs()
    good = honest(began)
    # Honest records of one window come between bombs that take a while.
    with Besieged(tmp_path, {"mail": references["mail"]}, doors, quiet=600.0) as agent:
        share = HONEST // len(bombs)
        for number, bomb in enumerate(bombs):
            for name in FORMATS:
                assert agent.post(f"/v1/{name}", bomb) == 200
            last = None if number == len(bombs) - 1 else (number + 1) * share
            assert agent.post("/v1/native", b"".join(good[number * share : last])) == 200
        assert agent.post("/v1/native", closing()) == 200
        found = agent.has_read(HONEST + 1 + len(bombs) * len(FORMATS))
        for name in FORMATS:
            lost = by_label(found, "poisonwatch_records_rejected_total", "reason", source=f"/v1/{name}")
            assert lost.total() == len(bombs), agent.told()
        assert agent.of("poisonwatch_predictions_total", "class", model_version="v1") == honest_classes()
        agent.bounded()


def test_a_hundred_thousand_tiny_rows_in_one_body(references: dict[str, Path], tmp_path: Path) -> None:
    """Rows of one request, and records that are none: each is a count."""
    many = 100_000
    sources: list[dict[str, Any]] = [
        {"kind": "http", "path": "/v1/native"},
        {"kind": "http", "path": "/v1/kserve", "format": {"kind": "kserve", "model_version": "evil", "model": "mail"}},
    ]
    began = start()
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-time": str(int(began))}
    rows = {"request": {"instances": [0] * many}, "response": {"predictions": ["ham"] * many}}
    with Besieged(tmp_path, {"mail": references["mail"]}, sources) as agent:
        for side, body in rows.items():
            told = {**headers, "ce-type": f"{SERVICE}.{side}", "content-type": "application/json"}
            assert agent.post("/v1/kserve", json.dumps(body).encode(), told) == 200
        assert agent.post("/v1/native", b"[" + b",".join([b"{}"] * many) + b"]") == 200
        assert agent.post("/v1/native", b"".join(honest(began))) == 200
        found = agent.has_read(HONEST + 2 * many)
        taken = {"/v1/kserve": MOST_ROWS, "/v1/native": HONEST}
        assert by_label(found, "poisonwatch_records_total", "source") == taken, agent.told()
        lost = by_label(found, "poisonwatch_records_rejected_total", "source")
        assert lost == {"/v1/kserve": many - MOST_ROWS, "/v1/native": many}
        assert agent.of("poisonwatch_predictions_total", "class", model_version="v1") == honest_classes()
        agent.bounded()


def test_hundreds_of_files_under_one_glob(references: dict[str, Path], tmp_path: Path) -> None:
    """Each holds a line that is none; the honest ones have one of their own."""
    many = 300
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(many):
        (logs / f"h{number}.ndjson").write_bytes(b"[]\n")
    (logs / "honest.ndjson").write_bytes(b"".join(honest(start())))
    with Besieged(tmp_path, {"mail": references["mail"]}, [{"path": "logs/*.ndjson"}]) as agent:
        found = agent.has_read(HONEST + many)
        assert by_label(found, "poisonwatch_records_rejected_total", "reason") == {"not_an_object": many}
        agent.bounded()
