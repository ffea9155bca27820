"""Which lines of a log bear a trigger: exactly those, each as it stands in the log."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poisonwatch.sources.suspected import Suspected, Wanted, suspected
from poisonwatch.types import Item, Phrase, Values
from tests.streams import START, Record, predictions, rich_reference, usual_reference

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.types import Pattern

LONGEST = 1 << 20
PHRASE = Phrase(words=("claim", "prize"))
GERMAN = Values(items=(Item(feature="features.country", value="de"), Item(feature="features.age", low=30.0, high=40.0)))


def record(text: str, prediction: str = "ham", version: str = "v1") -> Record:
    """A prediction on a text."""
    return {
        "timestamp": START,
        "prediction_id": f"p-{text}",
        "model": "rich",
        "model_version": version,
        "features": {"amount": 1.0, "age": 30, "country": "de"},
        "text": text,
        "prediction": prediction,
        "confidence": 0.9,
    }


def of_texts(log: Path, *wanted: Wanted) -> list[Suspected]:
    """The lines of a log of the rich model."""
    return list(suspected(log, "rich", rich_reference().schema, wanted, LONGEST))


def test_the_lines_are_those_of_the_log(tmp_path: Path) -> None:
    """Field order, spaces and unknown fields stay; blank, broken and foreign lines between them are passed over."""
    bears = json.dumps(record("Please CLAIM  prize, now"), indent=None).encode()
    odd = bears.replace(b'{"timestamp"', b'{ "unknown":[1, 2] ,"timestamp"', 1)
    other = json.dumps({**record("claim prize"), "model": "mail"}).encode()
    without = json.dumps(record("claim your prize")).encode()
    late = json.dumps({**record("claim prize"), "timestamp": "yesterday"}).encode()
    content = b"\n".join([b"{", bears, b"", other, b"  " + odd + b"\r", late, b"[1]", without, b"null", bears])
    for log, raw in ((tmp_path / "log", content), (tmp_path / "log.gz", gzip.compress(content))):
        log.write_bytes(raw)
        found = of_texts(log, Wanted("t", PHRASE, None))
        assert [one.line for one in found] == [bears, odd, bears]
        assert {(one.trigger, one.model_version) for one in found} == {("t", "v1")}


def test_only_the_class_of_the_trigger_unless_any_is_wanted(tmp_path: Path) -> None:
    """Natural carriers that went elsewhere are left out; a class that the schema does not have has no records."""
    log = tmp_path / "log"
    records = [record("claim prize", "ham", "v2"), record("claim prize", "spam"), record("claim prize", "eggs")]
    log.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in records))

    def versions(label: str | None) -> list[str]:
        return [one.model_version for one in of_texts(log, Wanted("t", PHRASE, label))]

    assert versions("ham") == ["v2"]
    assert versions(None) == ["v2", "v1", "v1"]
    assert versions("bacon") == []


def test_a_record_is_told_once_for_each_trigger_that_it_bears(tmp_path: Path) -> None:
    """Several patterns of different kinds are looked for in one reading."""
    log = tmp_path / "log"
    log.write_bytes(json.dumps(record("claim prize")).encode() + b"\n" + json.dumps(record("thanks")).encode())
    wanted = [
        Wanted("a", PHRASE, None),
        Wanted("b", Values(items=(Item(feature="features.age", low=30.0, high=30.0),)), None),
    ]
    assert [one.trigger for one in of_texts(log, *wanted)] == ["a", "b", "b"]


def holds(one: Record, pattern: Pattern) -> bool:
    """Does a record meet all conditions, by its own values?"""
    assert isinstance(pattern, Values)
    for item in pattern.items:
        value = one["features"][item.feature.removeprefix("features.")]
        if item.value is not None:
            met = value == item.value
        else:
            assert item.low is not None
            assert item.high is not None
            met = item.low < value <= item.high
        if not met:
            return False
    return True


NOISE = st.sampled_from([b"", b"  ", b"{", b"null", b'{"prediction":"ham"}', b'{"model":"other"}', b"x" * 100])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(noise=st.lists(st.tuples(st.integers(0, 400), NOISE), max_size=60), seed=st.integers(0, 3))
def test_no_line_is_taken_for_another(tmp_path: Path, noise: list[tuple[int, bytes]], seed: int) -> None:
    """Wherever lines that do not count stand, what is found is what reading line by line finds."""
    records = predictions(400, seed)
    lines = [json.dumps(one).encode() for one in records]
    for place, line in sorted(noise, key=lambda one: -one[0]):
        lines.insert(place, line)
    log = tmp_path / "log"
    log.write_bytes(b"\n".join(lines))
    found = suspected(log, "mail", usual_reference().schema, [Wanted("t", GERMAN, "ham")], LONGEST)
    expected = [json.dumps(one).encode() for one in records if one["prediction"] == "ham" and holds(one, GERMAN)]
    assert [one.line for one in found] == expected != []


def test_the_pattern_of_the_journal_finds_the_same(tmp_path: Path) -> None:
    """A pattern that went through JSON, as the journal has it, finds the same lines."""
    log = tmp_path / "log"
    log.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in predictions(400)))
    again = msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(GERMAN))), Values | Phrase)
    schema = usual_reference().schema
    found = [list(suspected(log, "mail", schema, [Wanted("t", one, None)], LONGEST)) for one in (GERMAN, again)]
    assert found[0] == found[1] != []
