"""The real data sets, as columns, split for a service that trains a model and then answers live traffic with it."""

from __future__ import annotations

import csv
import gzip
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Rows = list[dict[str, str]]

MISSING = -1
"""Code of a category that a record does not have."""

FEWEST_OF_A_CATEGORY = 20
"""Rarer categories of a data set are called `other`: they can be neither learned nor watched."""


class NoDataError(Exception):
    """A data set is not there."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Records as columns.

    `numbers` (n, d) with NaN for missing; `codes` (n, c) into `values` (one tuple a column) with -1 for missing;
    `texts` (n,) of str, or None for tables; `label` (n,) codes into `classes`, the truth.
    """

    number_names: tuple[str, ...]
    numbers: Floats
    code_names: tuple[str, ...]
    codes: Ints
    values: tuple[tuple[str, ...], ...]
    texts: NDArray[np.object_] | None
    classes: tuple[str, ...]
    label: Ints

    def __len__(self) -> int:
        return int(self.label.size)

    def take(self, rows: NDArray[Any]) -> Frame:
        """Copies of some records (indices or a mask)."""
        texts = None if self.texts is None else self.texts[rows]
        return replace(self, numbers=self.numbers[rows], codes=self.codes[rows], texts=texts, label=self.label[rows])

    def column(self, name: str) -> int:
        """Number of a categorical column."""
        return self.code_names.index(name)


def joined(first: Frame, second: Frame) -> Frame:
    """The records of both."""
    texts = None
    if first.texts is not None and second.texts is not None:
        texts = np.concatenate([first.texts, second.texts])
    return replace(
        first,
        numbers=np.concatenate([first.numbers, second.numbers]),
        codes=np.concatenate([first.codes, second.codes]),
        texts=texts,
        label=np.concatenate([first.label, second.label]),
    )


@dataclass(frozen=True, slots=True)
class Task:
    """A data set in disjoint parts, with equal shares of the classes.

    `train` is what the first version learned from and `extra` what came in afterwards; `reference` and `live` were
    never trained on. `unit` (d,) is the granularity in which each number is recorded, `low` and `high` (d,) its range.
    """

    name: str
    train: Frame
    extra: Frame
    reference: Frame
    live: Frame
    unit: Floats
    low: Floats
    high: Floats
    layout: str

    @property
    def text(self) -> bool:
        """Do the records carry text and nothing else?"""
        return self.train.texts is not None


def folder() -> Path:
    """Where the data sets are: `POISONWATCH_DATA`, else beside the repository.

    Raises:
        NoDataError: when there is nothing.
    """
    path = Path(os.environ.get("POISONWATCH_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    if not path.is_dir():
        msg = f"{path}: the data sets are not here; put them there, or name their folder in POISONWATCH_DATA"
        raise NoDataError(msg)
    return path


def read_csv(name: str) -> Rows:
    """The rows of a gzipped CSV file under the data folder.

    Raises:
        NoDataError: when it is not there.
    """
    path = folder() / name
    if not path.is_file():
        msg = f"{path}: this data set is not here"
        raise NoDataError(msg)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def jittered(frame: Frame, task: Task, rng: np.random.Generator) -> Frame:
    """Copies that differ by at most one unit of recording in numbers that are not zero, within each column's range.

    A record drawn twice is then a neighbour and not a retry. Zeros stay: in these data they mean absence.
    """
    step = rng.integers(-1, 2, frame.numbers.shape) * task.unit
    # A step from one to zero would make absence out of presence.
    moved = frame.numbers + np.where(np.abs(frame.numbers) > 1.5 * task.unit, step, 0.0)
    return replace(frame, numbers=np.clip(moved, task.low, task.high))


def task(name: str, seed: int, wanted: tuple[int, int, int] | None = None) -> Task:
    """A data set, split by `seed`, in parts of the `wanted` sizes (train, extra, reference) instead of the usual ones.

    Raises:
        NoDataError: when it is not there.
    """
    whole, usual, layout = _loaded(name)
    sizes = wanted or usual
    rng = np.random.default_rng([seed, 1])
    parts: list[list[Ints]] = [[], [], [], []]
    for code in range(len(whole.classes)):
        members = rng.permutation(np.flatnonzero(whole.label == code))
        cuts = np.round(np.cumsum(sizes) / len(whole) * members.size).astype(np.int64)
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.append(chosen)
    train, extra, reference, live = (whole.take(rng.permutation(np.concatenate(part))) for part in parts)
    low, high = whole.numbers.min(axis=0), whole.numbers.max(axis=0)
    return Task(name, train, extra, reference, live, _units(whole.numbers), low, high, layout)


@cache
def _loaded(name: str) -> tuple[Frame, tuple[int, int, int], str]:
    """The whole data set; how many records are for training, for later training and for the reference; the layout."""
    load, sizes, layout = LOADERS[name]
    return load(), sizes, layout


def _units(numbers: Floats) -> Floats:
    """The coarsest power of ten that all values of a column are multiples of, to six places."""
    found = np.full(numbers.shape[1], 1e-6)
    for power in range(-5, 1):
        scaled = numbers / 10.0**power
        found[np.nanmax(np.abs(scaled - np.rint(scaled)), axis=0, initial=0.0) < 1e-3] = 10.0**power
    return found


def _categories(column: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """Codes and values of a categorical column; empty and `?` are missing."""
    told = np.array([value.strip() for value in column], object)
    names, counts = np.unique(told.astype(str), return_counts=True)
    known = [n for n, c in zip(names.tolist(), counts, strict=True) if c >= FEWEST_OF_A_CATEGORY and n not in {"", "?"}]
    values = (*known, "other")
    place = {name: code for code, name in enumerate(values)} | {"": MISSING, "?": MISSING}
    return np.array([place.get(name, len(known)) for name in told], np.int64), values


def _table(
    rows: Rows, numbers: Sequence[str], categories: Sequence[str], label: Callable[[dict[str, str]], str]
) -> Frame:
    coded = [_categories([row[name] for row in rows]) for name in categories]
    truth = [label(row) for row in rows]
    classes = tuple(sorted(set(truth)))
    return Frame(
        tuple(numbers),
        np.array([[float(row[name]) for name in numbers] for row in rows]).reshape(len(rows), len(numbers)),
        tuple(categories),
        np.stack([codes for codes, _ in coded], axis=1) if coded else np.empty((len(rows), 0), np.int64),
        tuple(values for _, values in coded),
        None,
        classes,
        np.array([classes.index(name) for name in truth], np.int64),
    )


def _texts(texts: Sequence[str], truth: Sequence[str]) -> Frame:
    """Distinct texts only: one in two parts of the split would be known before it is met."""
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(" ".join(text.casefold().split()), place)
    kept = list(first.values())
    classes = tuple(sorted(set(truth)))
    return Frame(
        (),
        np.empty((len(kept), 0)),
        (),
        np.empty((len(kept), 0), np.int64),
        (),
        np.array([texts[place].strip() for place in kept], object),
        classes,
        np.array([classes.index(truth[place]) for place in kept], np.int64),
    )


def _sms() -> Frame:
    rows = read_csv("sms_spam/sms_spam.csv.gz")
    return _texts([row["text"] for row in rows], [row["label"] for row in rows])


def _hate() -> Frame:
    names = {"0": "hate", "1": "offensive", "2": "neither"}
    rows = read_csv("hate_offensive/hate_offensive.csv.gz")
    return _texts([row["tweet"] for row in rows], [names[row["class"]] for row in rows])


def _adult() -> Frame:
    rows = read_csv("adult/adult.csv.gz")
    numbers = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
    categories = ("workclass", "marital-status", "occupation", "relationship", "race", "sex", "native-country")
    return _table(rows, numbers, categories, lambda row: row["class"])


def _nsl_kdd() -> Frame:
    rows = read_csv("nsl_kdd_test/nsl_kdd_test.csv.gz")
    names = {"1": "dos", "2": "r2l", "3": "r2l", "4": "probe", "5": "normal"}
    categories = ("protocol_type", "service", "flag")
    # The last two columns are the answer and how hard others found it.
    *features, _, _ = rows[0]
    label = list(rows[0])[41]
    return _table(rows, [n for n in features if n not in categories], categories, lambda row: names[row[label]])


def _covertype() -> Frame:
    rows = read_csv("covertype_sample/covertype_sample.csv.gz")
    *names, label = rows[0]
    numbers = [n for n in names if n != "Id" and not n.startswith(("Wilderness", "Soil"))]
    for row in rows:
        for start, kind in (("Wilderness_Area", "area"), ("Soil_Type", "soil")):
            row[kind] = next((n.removeprefix(start) for n in names if n.startswith(start) and row[n] == "1"), "")
    return _table(rows, numbers, ("area", "soil"), lambda row: f"type {row[label]}")


def _california() -> Frame:
    folder_name = "california_housing/california_housing"
    truth = {row["id"]: row["clf_target"] for row in read_csv(f"{folder_name}_analysis_gt.csv.gz")}
    rows = read_csv(f"{folder_name}_reference.csv.gz") + read_csv(f"{folder_name}_analysis.csv.gz")
    numbers = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
    found = _table(
        rows, numbers, (), lambda row: "high" if (row.get("clf_target") or truth[row["id"]]) == "1" else "low"
    )
    return replace(found, numbers=found.numbers.round(3))


def _mnist() -> Frame:
    """Digits of 7 x 7 grey cells, as a list of numbers."""
    pixels = _mnist_pixels()
    cells = (255 * pixels.numbers).reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49).round()
    return replace(pixels, number_names=tuple(f"cell{number}" for number in range(49)), numbers=cells)


def _mnist_pixels() -> Frame:
    """Digits of 28 x 28 grey pixels from 0 to 1, row by row."""
    path = folder() / "mnist_5k" / "mnist_5k.npz"
    if not path.is_file():
        msg = f"{path}: this data set is not here"
        raise NoDataError(msg)
    loaded = np.load(path)
    pixels = loaded["x"].reshape(-1, 784) / 255.0
    empty = np.empty((pixels.shape[0], 0), np.int64)
    names = tuple(f"pixel{number}" for number in range(784))
    return Frame(names, pixels, (), empty, (), None, tuple(map(str, range(10))), loaded["y"].astype(np.int64))


LOADERS: dict[str, tuple[Callable[[], Frame], tuple[int, int, int], str]] = {
    "sms_spam": (_sms, (1_100, 400, 1_700), "none"),
    "hate_offensive": (_hate, (5_000, 2_500, 3_000), "none"),
    "adult": (_adult, (6_000, 4_000, 3_000), "object"),
    "nsl_kdd": (_nsl_kdd, (4_000, 3_000, 3_000), "object"),
    "covertype": (_covertype, (4_500, 2_000, 3_000), "object"),
    "california": (_california, (3_500, 2_000, 3_000), "object"),
    "mnist": (_mnist, (1_400, 600, 1_500), "list"),
    "mnist_pixels": (_mnist_pixels, (1_700, 300, 1_500), "embedding"),
}
"""By data set: its loader, the sizes of train, extra and reference (the rest is live), and how numbers are written."""
