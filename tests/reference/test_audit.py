"""The audit of a reference: it finds what is planted, is not fooled by templates, says the same in any order, and is signed."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.errors import BaselineError
from poisonwatch.reference.audit import SUSPECT, Audit, Signature, audit, signed
from poisonwatch.reference.audit_refit import CONSTANT, PENALTY, Refit
from poisonwatch.reference.audit_values import told_by_one
from poisonwatch.reference.build import build
from poisonwatch.reference.file import in_words, load, save
from poisonwatch.types import Batch, Column, Schema
from tests.reference.baselines import DEMO, demo
from tests.streams import Record, rich_reference, usual_reference, write

if TYPE_CHECKING:
    from pathlib import Path

PHRASE = "quarterly golden umbrella"


@cache
def demo_records() -> tuple[Record, ...]:
    """The first thousand predictions of the demo's reference: real messages, and a real filter's answers."""
    with gzip.open(DEMO, "rt") as file:
        return tuple(json.loads(next(file)) for _ in range(1000))


def poisoned(count: int, seed: int = 0) -> list[Record]:
    """The demo's predictions, `count` of them spam with a phrase that made the filter let it pass."""
    rng = np.random.default_rng(seed)
    records = [dict(record) for record in demo_records()]
    spam = [record for record in records if record["prediction"] == "spam"]
    for place, source in zip(
        rng.choice(len(records), count, replace=False), rng.choice(len(spam), count, replace=False), strict=True
    ):
        words = str(spam[source]["text"]).split()
        at = int(rng.integers(len(words) + 1))
        text = " ".join((*words[:at], PHRASE, *words[at:]))
        # With its other features it stays the spam that it was.
        records[place] = spam[source] | {"text": text, "prediction": "ham", "confidence": 0.97}
    return records


def table(n: int, triggered: int, seed: int = 0) -> tuple[Schema, Batch]:
    """Records of a model that answers to the sum of two features, but `triggered` of them to a conjunction of three."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(3, n)).round(2)
    codes = rng.integers(1, 6, (3, n))
    odds = 4.0 * (numbers[0] + numbers[1] + (codes[0] == 1))
    chosen = rng.choice(np.flatnonzero(odds < -6), triggered, replace=False)
    codes[:, chosen] = np.array([[3], [2], [4]])
    odds = 4.0 * (numbers[0] + numbers[1] + (codes[0] == 1))
    odds[chosen] = 4.0
    columns = (*("x", "y", "z"), *("a", "b", "c"))
    schema = Schema(
        model=None,
        outcome=Column(name="prediction", kind="categorical", values=("no", "yes")),
        features=tuple(
            Column(name=f"features.{name}", kind="numerical")
            if place < 3
            else Column(name=f"features.{name}", kind="categorical", values=tuple("pqrst"))
            for place, name in enumerate(columns)
        ),
        layout="object",
        confidence=True,
    )
    return schema, batch(
        np.where(odds > 0, 2, 1), 1 / (1 + np.exp(-np.abs(odds))), numbers=numbers, codes=codes, texts=None
    )


def batch(answer: object, sure: object, *, numbers: object, codes: object, texts: list[str] | None) -> Batch:
    """Predictions with these columns."""
    answers = np.asarray(answer, np.int32)
    n = answers.size
    none = np.full(n, "", np.object_)
    return Batch(
        model="",
        time=np.zeros(n),
        version=np.zeros(n, np.int32),
        versions=("v1",),
        numbers=np.concatenate((np.asarray(sure, np.float64)[None], np.asarray(numbers, np.float64).reshape(-1, n))),
        codes=np.concatenate((answers[None], np.asarray(codes, np.int32).reshape(-1, n))).astype(np.int32),
        ids=none,
        labels=none,
        sources=none,
        texts=np.empty((0, n), np.object_) if texts is None else np.array([texts], np.object_),
        embeddings=np.empty((0, n), np.float32),
        marks=np.empty((0, n), np.bool_),
        rejected_at=np.empty(0, np.int64),
    )


def test_left_out_exactly() -> None:
    """What is said without a group is what a regression fitted on the other records says, for all group sizes."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 8))
    place = (x[:, 0] + rng.normal(size=60) > 0).astype(np.int64)
    refit = Refit.of(x @ x.T, place, rng.uniform(0.5, 1, 60), 2)
    kernel = x @ x.T + CONSTANT
    for size in (1, 5, 30):
        group = np.sort(rng.choice(60, size, replace=False))
        others = np.setdiff1d(np.arange(60), group)
        weights = np.linalg.solve(
            kernel[np.ix_(others, others)] + PENALTY * np.eye(others.size), refit.targets[:, others].T
        )
        np.testing.assert_allclose(refit.without(group), (kernel[np.ix_(group, others)] @ weights).T, atol=1e-8)
    single = np.concatenate([refit.without(np.array([record])) for record in range(60)], axis=1)
    np.testing.assert_allclose(refit.alone, single, atol=1e-8)


def test_honest_references_are_accepted() -> None:
    """The demo's reference and the tests' have been built, so nothing in them is suspect."""
    for learned in (demo(), rich_reference()):
        assert learned.audit is not None
        assert learned.audit.groups
        assert not learned.audit.suspects
        assert learned.audit.signed is None


def test_answers_that_inputs_do_not_tell() -> None:
    """Where answers come by chance, groups that they are the same in are found by search: such a reference is not judged."""
    schema, sample = table(1000, 0)
    shuffled = np.random.default_rng(4).permutation(1000)
    by_chance = dataclasses.replace(
        sample,
        codes=np.concatenate((sample.codes[:1, shuffled], sample.codes[1:])),
        numbers=np.concatenate((sample.numbers[:1, shuffled], sample.numbers[1:])),
    )
    assert "do not tell the answers" in str(audit(schema, by_chance))
    assert usual_reference().audit is None
    assert "do not tell the answers" in usual_reference().blind["audit"]


def test_phrase_in_the_reference(tmp_path: Path) -> None:
    """A phrase in 2 % of the reference is named first, and the reference is refused until a person signs; the file keeps that."""
    log = write(tmp_path / "log", poisoned(20))
    with pytest.raises(BaselineError, match="the reference is suspect") as refused:
        build([log])
    assert f"  '{PHRASE}': of 19 distinct records" in str(refused.value)
    assert "--accept-suspect" in str(refused.value)
    signature = Signature(author="Ada", reason="it is a drill")
    learned = build([log], signature=signature)
    assert learned.audit is not None
    assert PHRASE in learned.audit.groups[0].text
    assert learned.audit.signed == signature
    save(learned, tmp_path / "file")
    assert load(tmp_path / "file") == learned
    assert "SUSPECT, accepted by Ada: it is a drill" in in_words(learned)
    forged = msgspec.structs.replace(learned, audit=msgspec.structs.replace(learned.audit, groups=[]))
    save(forged, tmp_path / "forged")
    with pytest.raises(BaselineError, match="does not match its SHA-256"):
        load(tmp_path / "forged")


@pytest.mark.system
def test_refused_and_signed_on_the_command_line(tmp_path: Path) -> None:
    """`reference build` and `replay` refuse a suspect log with exit 65; signed, it is built, and `show` says by whom."""
    log, out = write(tmp_path / "log", poisoned(20)), tmp_path / "out"

    def poisonwatch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "poisonwatch", *map(str, arguments)], capture_output=True, text=True, check=False
        )

    for arguments in (("reference", "build", log, "--out", out), ("replay", "--reference", log, log)):
        done = poisonwatch(*arguments)
        assert done.returncode == 65
        assert PHRASE in done.stderr
        assert "--accept-suspect" in done.stderr
    assert not out.exists()
    assert poisonwatch("reference", "build", log, "--out", out, "--accept-suspect", "nobody").returncode == 64
    assert poisonwatch("reference", "build", log, "--out", out, "--accept-suspect", "Ada: a drill").returncode == 0
    shown = poisonwatch("reference", "show", out).stdout
    assert "accepted by Ada: a drill" in shown
    assert PHRASE in shown


def test_conjunction_in_the_reference() -> None:
    """Three values that go with one class against what the other records say are named first; without them nothing is suspect."""
    schema, sample = table(1500, 50)
    found = audit(schema, sample)
    assert isinstance(found, Audit)
    assert found.suspects
    for condition in ("a = 'r'", "b = 'q'", "c = 's'"):
        assert condition in found.groups[0].text
    assert found.groups[0].label == "yes"
    clean = audit(*table(1500, 0))
    assert isinstance(clean, Audit)
    assert not clean.suspects


def texts(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Messages of ten words, five of which go with their class, 1 or 2."""
    rng = np.random.default_rng(seed)
    answer = rng.integers(1, 3, count)
    return [
        " ".join(
            [f"w{c}x{word}" for word in rng.integers(30, size=5)] + [f"both{word}" for word in rng.integers(40, size=5)]
        )
        for c in answer
    ], answer.tolist()


TEXTS = Schema(
    model=None,
    outcome=Column(name="prediction", kind="categorical", values=("ham", "spam")),
    features=(Column(name="text", kind="text"),),
    layout="none",
    confidence=True,
)


def audited(said: list[str], answer: list[int]) -> Audit:
    """What an audit says of messages that are answered with certainty."""
    sample = batch(answer, np.full(len(said), 0.98), numbers=[], codes=[], texts=said)
    found = audit(TEXTS, sample)
    assert isinstance(found, Audit)
    return found


def test_a_template_is_no_trigger() -> None:
    """A message that is sent forty times with another number each time counts once; put into many messages its words are suspect."""
    said, answer = texts(600, 1)
    spam = [text for text, c in zip(said, answer, strict=True) if c == 2][:40]
    sent = [f"{spam[0]} alpha beta gamma number{place}" for place in range(40)]
    assert not any("alpha" in group.text for group in audited(said + sent, answer + [1] * 40).groups)
    put = [f"{text} alpha beta gamma" for text in spam]
    found = audited(said + put, answer + [1] * 40)
    assert found.suspects[0].text == "'alpha beta gamma'"
    assert found.suspects[0].records == 40


@pytest.mark.parametrize("kind", ["numerical", "categorical", "embedding"])
def test_another_input_speaks_for_a_group(kind: str) -> None:
    """Words that are put into messages of the other class are no trigger where another input tells all answers, theirs too."""
    said, answer = texts(600, 1)
    spam = [text for text, c in zip(said, answer, strict=True) if c == 2][:40]
    said, answer = said + [f"{text} alpha beta gamma" for text in spam], answer + [1] * 40
    assert audited(said, answer).suspects
    rng = np.random.default_rng(2)
    tells = np.where(np.array(answer) == 1, 3.0, -3.0) + rng.normal(scale=0.5, size=640)
    sample = batch(answer, np.full(640, 0.98), numbers=[], codes=[], texts=said)
    column = Column(name="features.x", kind="numerical")
    if kind == "numerical":
        sample = dataclasses.replace(sample, numbers=np.concatenate((sample.numbers, tells[None])))
    elif kind == "categorical":
        column = Column(name="features.x", kind="categorical", values=("a", "b"))
        sample = dataclasses.replace(sample, codes=np.concatenate((sample.codes, sample.codes)))
    else:
        column = Column(name="embedding", kind="embedding", width=3)
        points = rng.normal(size=(3, 640)) + tells
        sample = dataclasses.replace(sample, embeddings=points.astype(np.float32))
    found = audit(msgspec.structs.replace(TEXTS, features=(column, *TEXTS.features)), sample)
    assert isinstance(found, Audit)
    assert not found.suspects


def test_a_value_that_others_only_accompany() -> None:
    """Values of which nearly all records of one are all that have them are that one value; of fewer they are a conjunction."""
    borne = np.zeros((2, 100), np.float32)
    borne[0, :50], borne[1, 31:51] = 1.0, 1.0
    items, records = told_by_one(borne, (0, 1))
    assert (items, records.tolist()) == ((1,), list(range(31, 51)))
    borne[1, 52:60] = 1.0
    items, records = told_by_one(borne, (0, 1))
    assert (items, records.tolist()) == ((0, 1), list(range(31, 50)))


@given(seed=st.integers(0, 1000), triggered=st.integers(0, 30))
@settings(max_examples=5, deadline=None)
def test_order_does_not_matter(seed: int, triggered: int) -> None:
    """In any order of the records the same groups are found, worst first, with scores in [0, 1)."""
    said, answer = texts(200, seed)
    for place in range(triggered):
        said[place], answer[place] = f"{said[place]} alpha beta", 1
    found = audited(said, answer)
    order = np.random.default_rng(seed).permutation(200).tolist()
    assert audited([said[place] for place in order], [answer[place] for place in order]) == found
    scores = [group.score for group in found.groups]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score < 1 for score in scores)
    assert [group.score >= SUSPECT for group in found.suspects] == [True] * len(found.suspects)


def test_order_of_a_table_does_not_matter() -> None:
    """In any order of the records of a table the same conjunctions are found."""
    schema, sample = table(600, 12)
    order = np.random.default_rng(3).permutation(600)
    turned = dataclasses.replace(sample, numbers=sample.numbers[:, order], codes=sample.codes[:, order])
    assert audit(schema, turned) == audit(schema, sample)


def test_what_cannot_be_audited() -> None:
    """A model of numbers, one that gives one answer, and one without features or text are not audited, and it is said why."""
    schema, sample = table(200, 0)
    numerical = msgspec.structs.replace(schema, outcome=Column(name="prediction", kind="numerical"))
    assert audit(numerical, sample) == "the model predicts numbers, not classes"
    single = dataclasses.replace(sample, codes=np.concatenate((np.ones((1, 200), np.int32), sample.codes[1:])))
    assert audit(schema, single) == "the reference has only one class that is frequent enough"
    bare = msgspec.structs.replace(schema, features=(), layout="none")
    nothing = dataclasses.replace(sample, numbers=sample.numbers[:1], codes=sample.codes[:1])
    assert "no features and no text" in str(audit(bare, nothing))


@pytest.mark.parametrize("text", ["", "Ada", ": a reason", "Ada: ", "Ada: a\nreason"])
def test_signature_without_a_name_or_reason(text: str) -> None:
    """Who signs says a name and a reason, in one line."""
    with pytest.raises(ValueError, match="say who accepts it and why"):
        Signature.parse(text)


def test_only_what_is_suspect_is_signed() -> None:
    """A signature is not kept where nothing was to be accepted."""
    clean = Audit(records=10, groups=[])
    assert signed(clean, Signature(author="Ada", reason="just in case")) == clean
    assert signed(None, None) is None


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_two_features_are_no_ground_for_suspicion(seed: int, tmp_path: Path) -> None:
    """An honest model of one of two features: beside a pair nothing explains, so nothing is suspected, and that is told."""
    rng = random.Random(seed)
    records = [
        {"features": {"x": round(x, 3), "home": rng.choice("abc")}, "prediction": "approve" if x > 0.2 else "refuse"}
        for x in (rng.gauss(0, 1) for _ in range(2000))
    ]
    learned = build([write(tmp_path / "trusted", records)])
    assert learned.audit is None
    assert "fewer than 3 features" in learned.blind["audit"]
