"""What is fitted with a reference: bounded, honest about the reference's own records, and told where it cannot be."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from poisonwatch.formats.infer import infer
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.profile.indicators import FLIPPED, SURPRISING, UNSURE
from poisonwatch.reference import fit as fit_module
from poisonwatch.reference import fit_surrogate
from poisonwatch.reference.fit import UNSURE_QUANTILE, fit
from tests.streams import chopped, lines, predictions, rich_predictions, write

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.formats.infer import Inference
    from poisonwatch.reference.fit import Fitted
    from poisonwatch.types import Batch


def decoded(count: int, seed: int = 3) -> tuple[Inference, Batch]:
    """What a reference of so many records is learned from."""
    log = lines(rich_predictions(count, seed))
    found = infer(log.splitlines())
    (batch,) = JsonlPredictions({"": found.schema}, 1 << 20, timed=False).decode(log).batches
    return found, batch


@pytest.fixture(scope="module")
def sampled() -> tuple[Fitted, Batch]:
    """A fit on every third of 900 records, and all of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_module, "MOST_FITTED", 300)
        found, batch = decoded(900)
        return fit(found, chopped(batch, [100, 101, 500])), batch


def test_only_a_bounded_sample_is_fitted_on(sampled: tuple[Fitted, Batch]) -> None:
    """Of more records than are fitted on every n-th is taken, evenly over the log."""
    fitted, _ = sampled
    assert fitted.stride == 3
    assert fitted.rows.shape == (len(fitted.enrichment.derived), 300)
    assert {name: marked.shape for name, marked in fitted.marks.items()} == {SURPRISING: (300,), FLIPPED: (300,)}
    assert fitted.quality is not None
    assert fitted.quality.n == 300


def test_own_records_get_honest_values_and_others_live_ones(sampled: tuple[Fitted, Batch]) -> None:
    """A record that was fitted on has the value of a fit without it; any other has what a live one would have."""
    fitted, batch = sampled
    own = np.arange(900) % 3 == 0
    base = batch.numbers.shape[0]
    found = fitted.apply(batch, 0)
    assert np.array_equal(found.numbers[base:, own], fitted.rows, equal_nan=True)
    for name, marked in fitted.marks.items():
        assert np.array_equal(found.marks[fitted.enrichment.marks.index(name), own], marked)
    live = fitted.enrichment.apply(batch, own)
    assert np.array_equal(found.numbers[base:, ~own], live.numbers[base:, ~own], equal_nan=True)
    assert np.array_equal(found.marks[:, ~own], live.marks[:, ~own])
    assert np.array_equal(found.numbers[:base], batch.numbers, equal_nan=True)
    assert not np.array_equal(found.numbers[base:, own], live.numbers[base:, own], equal_nan=True)


def test_pieces_of_the_reference_do_not_matter(sampled: tuple[Fitted, Batch]) -> None:
    """A record's place in the log decides whether it was fitted on, wherever the log was cut."""
    fitted, batch = sampled
    whole = fitted.apply(batch, 0)
    seen, numbers, marks = 0, [], []
    for piece in chopped(batch, [1, 2, 7, 300, 301, 899]):
        part = fitted.apply(piece, seen)
        seen += piece.time.size
        numbers.append(part.numbers)
        marks.append(part.marks)
    assert np.array_equal(np.concatenate(numbers, axis=1), whole.numbers, equal_nan=True)
    assert np.array_equal(np.concatenate(marks, axis=1), whole.marks)


def test_the_fit_does_not_depend_on_pieces() -> None:
    """A reference that is read in blocks of any size is learned alike."""
    found, batch = decoded(300)
    first, second = fit(found, [batch]), fit(found, chopped(batch, [10, 20, 200]))
    assert first.file(None) == second.file(None)
    assert np.array_equal(first.rows, second.rows, equal_nan=True)


def test_unsure_is_a_quarter_of_the_reference() -> None:
    """The least confident quarter of the reference counts as unsure; without confidences nobody does."""
    found, batch = decoded(300)
    fitted = fit(found, [batch])
    assert fitted.enrichment.unsure is not None
    share = float((batch.numbers[0] <= fitted.enrichment.unsure).mean())
    assert abs(share - UNSURE_QUANTILE) < 2 / 300
    batch.numbers[0] = np.nan
    assert fit(found, [batch]).enrichment.unsure is None


def test_answers_that_ignore_the_inputs_leave_it_blind() -> None:
    """Where the inputs do not say the answer, there are no flips to see; this is told, with the quality measured."""
    log = lines(predictions(600, 4))
    found = infer(log.splitlines())
    batches = JsonlPredictions({"": found.schema}, 1 << 20, timed=False).decode(log).batches
    fitted = fit(found, batches)
    assert fitted.enrichment.surrogate is None
    assert fitted.marks == {}
    assert fitted.quality is not None
    assert fitted.quality.blind
    assert fitted.blind["flips"] == "the surrogate could not learn what the model answers to"
    assert fitted.blind["triggers"].startswith("trigger mining blind: a trigger would ")
    assert "flipped" not in fitted.enrichment.marks
    assert fitted.enrichment.forest is not None


def test_a_surrogate_that_is_blind_to_flips_may_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept with both marks and without an indicator, and blind to flips only; where a trigger needs too many, to both.

    `LOWEST_SEES` and `MOST_NEEDED` are moved, so that the same surrogate is blind to the one, and then to the other.
    """
    found, batch = decoded(300)
    with monkeypatch.context() as patched:
        patched.setattr(fit_surrogate, "LOWEST_SEES", 2.0)
        mining = fit(found, [batch])
        assert mining.blind.keys() == {"flips"}
        assert mining.enrichment.surrogate is not None
        assert mining.enrichment.asked == (UNSURE,)
        assert mining.marks.keys() == {FLIPPED, SURPRISING}
        assert mining.rows.shape[0] == len(mining.enrichment.derived)
        applied = mining.apply(batch, 0)
        for name, marked in mining.marks.items():
            assert np.array_equal(applied.marks[mining.enrichment.marks.index(name)], marked)
        patched.setattr(fit_surrogate, "MOST_NEEDED", 1)
        neither = fit(found, [batch])
        assert neither.blind.keys() == {"flips", "triggers"}
        assert neither.enrichment.surrogate is None
    monkeypatch.setattr(fit_surrogate, "MOST_NEEDED", 1)
    flips = fit(found, [batch])
    assert flips.blind.keys() == {"triggers"}
    assert flips.enrichment.asked == (FLIPPED, UNSURE)


def test_what_surprises_is_rare_in_the_reference() -> None:
    """Out of fold 2 % of the reference surprise, and 2 % lie far from their class: both together 4 % at most, and ties."""
    found, batch = decoded(900)
    assert 0.01 < fit(found, [batch]).marks[SURPRISING].mean() < 0.05


def test_records_without_text_or_embedding_are_fitted_on() -> None:
    """Missing texts and embeddings are no reason to fail: the others teach."""
    found, batch = decoded(300)
    batch.texts[0, ::3] = ""
    batch.embeddings[:, ::4] = np.nan
    fitted = fit(found, [dataclasses.replace(batch)])
    assert fitted.enrichment.centroids is not None
    missing = fitted.rows[fitted.enrichment.derived.index("embedding.distance"), ::4]
    assert np.isnan(missing).all()
    assert np.isnan(fitted.rows).all(axis=1).sum() == 0


@pytest.mark.system
def test_without_scikit_learn(tmp_path: Path) -> None:
    """Where scikit-learn is not installed, the reference says what to install to see flips; all else is learned."""
    write(tmp_path / "log", rich_predictions(300, 3))
    program = """
        import sys
        sys.modules["sklearn"] = None
        from pathlib import Path
        from poisonwatch.reference.build import build
        from poisonwatch.reference.file import in_words, load, save

        built = build([Path("log")])
        save(built, Path("r.json"))
        assert load(Path("r.json")) == built
        assert built.quality is None
        enrichment = built.enrichment()
        print(built.blind["flips"])
        print(*enrichment.derived)
        print(*enrichment.marks)
        print("blind           flips" in in_words(built))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        'fitting the surrogate needs scikit-learn: `pip install "poisonwatch[fit]"`',
        "text.words text.unseen text.digits text.capitals text.symbols embedding.distance outlier",
        "unsure surprising",
        "True",
    ]


@pytest.mark.system
def test_a_built_reference_needs_no_scikit_learn(tmp_path: Path) -> None:
    """Reading a reference and asking its surrogate imports neither scikit-learn nor river: the agent needs none of it."""
    write(tmp_path / "log", rich_predictions(300, 3))
    program = """
        from pathlib import Path
        from poisonwatch.reference.build import build
        from poisonwatch.reference.file import save
        save(build([Path("log")]), Path("r.json"))
    """
    live = """
        import sys
        sys.modules["sklearn"] = sys.modules["river"] = None
        from pathlib import Path
        import numpy as np
        from poisonwatch.formats.jsonl import JsonlPredictions
        from poisonwatch.reference.file import load
        read = load(Path("r.json"))
        (batch,) = JsonlPredictions({"": read.schema}, 1 << 20).decode(Path("log").read_bytes()).batches
        found = read.enrichment().apply(batch, np.ones(batch.time.size, bool))
        print(found.marks.shape[0], found.numbers.shape[0] - batch.numbers.shape[0])
    """
    said = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(text)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            check=True,
        ).stdout
        for text in (program, live)
    ]
    assert said == ["", "3 8\n"]
