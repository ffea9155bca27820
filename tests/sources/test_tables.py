"""Tables: a row is a record, an odd row is counted, and no value slips into another column."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.errors import LogError
from poisonwatch.formats.infer import infer
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.sources.log import blocks
from poisonwatch.sources.tables import ROWS, csv_lines, places

LONGEST = 1 << 20
TABLE = """timestamp,prediction,confidence,features.age,job,probabilities.spam,embedding,prediction_id,model_version
2026-03-01T00:00:00Z,spam,0.9,40,clerk,0.9,"[1, 2.5]",007,3
1772323200.5,ham,,,"cook, chief",0.1,,8,
"""
ROW_1 = {
    "timestamp": "2026-03-01T00:00:00Z",
    "prediction": "spam",
    "confidence": 0.9,
    "embedding": [1, 2.5],
    "prediction_id": "007",
    "model_version": "3",
    "features": {"age": 40, "job": "clerk"},
    "probabilities": {"spam": 0.9},
}
ROW_2 = {
    "timestamp": 1772323200.5,
    "prediction": "ham",
    "confidence": None,
    "embedding": None,
    "prediction_id": "8",
    "model_version": None,
    "features": {"age": None, "job": "cook, chief"},
    "probabilities": {"spam": 0.1},
}


def read(path: Path, *, native: bool = True, longest: int = LONGEST) -> list[bytes]:
    """Lines of a table."""
    return b"".join(blocks(path, longest, native=native)).splitlines()


def of(path: Path, text: str | bytes, **options: Any) -> list[Any]:
    """JSON of the lines of a table with this text; None where a line is none."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found: list[Any] = []
    for line in read(path, **options):
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(None)
    return found


def test_columns_go_where_a_native_record_has_them(tmp_path: Path) -> None:
    """Empty cells are missing, numbers are numbers, ids and versions are text, other columns are features."""
    assert of(tmp_path / "log.csv", TABLE) == [ROW_1, ROW_2]


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.zst"])
def test_compressed_tables_are_the_same(tmp_path: Path, name: str) -> None:
    """By their names."""
    pack = gzip.compress if name.endswith("gz") else zstandard.compress
    assert of(tmp_path / name, pack(TABLE.encode())) == [ROW_1, ROW_2]


def test_the_table_of_a_foreign_log_keeps_its_columns(tmp_path: Path) -> None:
    """Under their own names, text that holds JSON as text."""
    text = 'request,status_code,features.age,model_version\n"{""a"": 1}",200,4,3\n'
    assert of(tmp_path / "log.csv", text, native=False) == [
        {"request": '{"a": 1}', "status_code": 200, "features.age": 4, "model_version": 3}
    ]


def test_a_table_is_decoded_like_any_log(tmp_path: Path) -> None:
    """With exact counts of the good rows and of each kind of bad ones."""
    path = tmp_path / "log.csv"
    path.write_bytes(
        TABLE.encode()
        + b"2026-03-01T00:00:00Z,ham,0.9,40,clerk,0.9,,1,3,too,many\n"
        + b"2026-03-01T00:00:00Z,ham,0.9\n"
        + b'2026-03-01T00:00:00Z,"ham"x,0.9,40,clerk,0.9,,1,3\n'
        + b"2026-03-01T00:00:00Z,,0.9,40,clerk,0.9,,1,3\n"
        + b"2026-03-01T00:00:00Z,h\xffm,0.9,40,clerk,0.9,,1,3\n\r\n\n"
        + b"1772323200,ham,0.5,41,clerk,0.9,,9,4"
    )
    (block,) = blocks(path, LONGEST)
    schema = infer(block.splitlines()).schema
    decoded = JsonlPredictions({"": schema}, LONGEST).decode(block)
    assert decoded.rejected == {"malformed": 3, "missing_prediction": 1, "invalid_utf8": 1}
    assert (decoded.lines, decoded.predictions) == (8, 3)
    assert decoded.batches[0].ids.tolist() == ["007", "8", "9"]


def test_quotes_that_are_not_closed_cost_one_row(tmp_path: Path) -> None:
    """Even where no quote comes for a long time: what follows is read."""
    good = "spam,a\n" * 50_000
    found = of(tmp_path / "log.csv", f'prediction,x\nspam,"a\n{good}ham,b\n')
    assert found[0] is None
    assert len(found) == 50_002
    assert found[-1] == {"prediction": "ham", "features": {"x": "b"}}
    assert found.count(None) == 1
    found = of(tmp_path / "log.csv", 'prediction,x\nspam,"a\n1,1\n2,2\n3,3\n')
    assert found == [None, *({"prediction": n, "features": {"x": n}} for n in (1, 2, 3))]


def test_a_row_of_many_lines_is_no_longer_than_a_line_may_be(tmp_path: Path) -> None:
    """Else whoever writes quotes decides how much is held at once."""
    row = 'spam,"' + "a\n" * 40 + '"\n'
    assert of(tmp_path / "log.csv", f"prediction,x\n{row}", longest=200)[0] is not None
    found = of(tmp_path / "log.csv", f"prediction,x\n{row}ham,b\n", longest=50)
    assert found[0] is None
    assert found[-1] == {"prediction": "ham", "features": {"x": "b"}}


def test_cells_may_hold_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    """As the writers of CSV write them."""
    assert of(tmp_path / "log.csv", 'prediction,text\nspam,"a ""b"",\r\nc"\n') == [
        {"prediction": "spam", "text": 'a "b",\r\nc'}
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("-1.5e3", -1500.0),
        ("007", "007"),
        ("+1", "+1"),
        ("nan", "nan"),
        ("True", True),
        ("false", False),
        ("1" * 41, "1" * 41),
        ("[1]", "[1]"),
        (" 1", " 1"),
        ('"', '"'),
        ("é\u2028", "é\u2028"),
    ],
)
def test_what_a_cell_is(tmp_path: Path, cell: str, value: object) -> None:
    """What JSON would take for a number or a truth value, and text; codes with leading zeros stay what they are."""
    text = io.StringIO()
    csv.writer(text).writerows([["prediction", "x"], ["a", cell]])
    assert of(tmp_path / "log.csv", text.getvalue()) == [{"prediction": "a", "features": {"x": value}}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prediction,features.age,age\n", "two columns are 'features.age'"),
        ("prediction,prediction\n", "two columns are 'prediction'"),
        ("prediction,features,features.age\n", "two columns are 'features'"),
        ("a,b\n1,2\n", "no column `prediction`"),
        ("39,prediction\n", "its first line must name the columns, and has '39'"),
        ("", "no columns"),
        ('"prediction\n', "does not name columns"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path: Path, text: str, problem: str) -> None:
    """With the name of the file."""
    with pytest.raises(LogError, match=f"log.csv: .*{problem}"):
        of(tmp_path / "log.csv", text)


def test_numbers_of_rows_and_byte_order_marks_are_passed_over(tmp_path: Path) -> None:
    """A column without a name, as pandas writes it, is none."""
    assert of(tmp_path / "log.csv", "\ufeffprediction, x\na,1\n") == [{"prediction": "a", "features": {"x": 1}}]
    assert of(tmp_path / "log.csv", ",prediction\n0,a\n") == [{"prediction": "a"}]


ALPHABET = st.sampled_from(['"', ",", "\n", "\r", "a", "1", ".", "é", "\0", "{", "}", ":"])


@given(st.lists(st.lists(st.text(ALPHABET, max_size=6), min_size=2, max_size=2), max_size=8), st.integers(1, 50))
def test_what_a_writer_of_csv_writes_is_read_back(rows: list[list[str]], size: int) -> None:
    """Whatever the cells hold, however the file is chopped."""
    rows = [[name, text.replace("\r", "")] for name, text in rows]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [["model", "text", "label"], *([*row, "x"] for row in rows)]
    )
    found = _lines_of(out.getvalue().encode(), size, native=True)
    assert [(r["model"] or "", r["text"] or "") for r in map(json.loads, found)] == [tuple(row) for row in rows]


@given(st.text(ALPHABET, max_size=60), st.integers(1, 50))
def test_any_text_gives_lines_that_no_value_can_break(text: str, size: int) -> None:
    """One line of output is one row or one bad line; none is more than there are lines."""
    data = b"label,text,x\n" + text.encode()
    found = _lines_of(data, size)
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in found)
    assert len(found) <= sum(1 for line in text.split("\n") if line)
    assert found == _lines_of(data, len(data))


def _lines_of(data: bytes, size: int, *, native: bool = False) -> list[bytes]:
    cut: list[bytes] = [b""]
    for line in _at_newlines(data):
        if len(cut[-1]) >= size:
            cut.append(b"")
        cut[-1] += line
    return list(csv_lines(Path("log.csv"), cut, LONGEST, native=native))


def _at_newlines(data: bytes) -> list[bytes]:
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A file with these columns."""
    pq.write_table(pa.table(columns), path, **options)
    return path


AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)


def test_parquet_is_the_same_as_csv(tmp_path: Path) -> None:
    """By the same names; nulls are left out."""
    columns = {
        "timestamp": pa.array([1_772_366_400_250_000_001, None], pa.timestamp("ns", "UTC")),
        "prediction": pa.array(["spam", "ham"]).dictionary_encode(),
        "features.age": pa.array([40, None], pa.int64()),
        "amount": pa.array([Decimal("1.50"), Decimal("2.25")]),
        "embedding": pa.array([[1.0, 2.5], None]),
        "note": pa.array([b"caf\xc3\xa9", None], pa.binary()),
        "when": pa.array([AT.replace(tzinfo=None), None], pa.timestamp("us")),
        "prediction_id": ["a", "b"],
    }
    first, second = map(json.loads, read(parquet(tmp_path / "log.parquet", columns)))
    assert datetime.fromisoformat(first.pop("timestamp")) == AT
    assert first == {
        "prediction": "spam",
        "features": {"age": 40, "amount": 1.5, "note": "café", "when": "2026-03-01T12:00:00.250000"},
        "embedding": [1.0, 2.5],
        "prediction_id": "a",
    }
    assert second == {"prediction": "ham", "features": {"amount": 2.25}, "prediction_id": "b"}


def test_parquet_of_a_foreign_log_keeps_objects_and_maps(tmp_path: Path) -> None:
    """As inference tables have them."""
    columns = {
        "request": ["{}"],
        "request_metadata": pa.array(
            [[("model_name", "m"), ("model_version", "1")]], pa.map_(pa.string(), pa.string())
        ),
        "nested": [{"a": [1, 2], "b": None}],
    }
    assert [json.loads(line) for line in read(parquet(tmp_path / "t.parquet", columns), native=False)] == [
        {
            "request": "{}",
            "request_metadata": {"model_name": "m", "model_version": "1"},
            "nested": {"a": [1, 2], "b": None},
        }
    ]


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    """Of many groups of rows, each row once and in order; the progress adds up to the file."""
    rows = 2 * ROWS + 3
    path = parquet(tmp_path / "log.parquet", {"prediction": list(range(rows))}, row_group_size=1000)
    told: list[int] = []
    found = b"".join(blocks(path, LONGEST, told.append)).splitlines()
    assert [json.loads(line)["prediction"] for line in found] == list(range(rows))
    assert sum(told) == path.stat().st_size
    assert len(told) > 1


def test_what_is_no_parquet_says_so(tmp_path: Path) -> None:
    """A file that was cut off, or another."""
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(LogError, match=r"log\.parquet: the table cannot be used"):
        read(path)
    with pytest.raises(LogError, match="no column `prediction`"):
        read(parquet(path, {"a": [1]}))
    with pytest.raises(LogError, match="missing"):
        read(tmp_path / "missing.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    """In an interpreter that cannot import it."""
    path = parquet(tmp_path / "log.parquet", {"prediction": [1]})
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\nfrom poisonwatch.errors import MissingExtraError\n"
        "from poisonwatch.sources.log import blocks\n"
        "try:\n    list(blocks(Path(sys.argv[1]), 100))\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "poisonwatch[parquet]" in ran.stdout


def test_places_are_those_of_a_native_record() -> None:
    """What begins like a group but is none is a feature of that name."""
    found = places(["label", "features.a.b", "capital.gain", "features.", "", "attributes.network"], native=True)
    assert [tuple(place) if place else None for place in found] == [
        ("", "label"),
        ("features", "a.b"),
        ("features", "capital.gain"),
        ("features", "features."),
        None,
        ("attributes", "network"),
    ]
