"""Numeric arrays that are images: is there a grid of pixels, its coarse cells, and patches on it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poisonwatch.profile.words import mix
from poisonwatch.types import Patch

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Floats, Ints, Vectors

FEWEST_IMAGES = 50
"""Fewer arrays than this do not show what their neighbours have in common."""

MOST_IMAGES = 2000
SMALLEST_SIDE, LARGEST_SIDE = 6, 256

NEIGHBOURS = 0.25
"""Pixels beside and above each other are correlated by so much at least, and by so much more than pixels anywhere."""

CELLS_A_SIDE = 14
"""About so many of the smallest cells make a side; the others are twice as large."""

CONSTANT = 0.85
"""Share of the triggered images in which a pixel of a patch has its usual value."""

UNUSUAL = 0.5
"""Share of the usual images in which a pixel that shows a patch has that value, at most."""

CLOSE = 0.1
"""What counts as the same value, as a share of the range of brightness."""


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """Square images of one channel, row by row; usual pixels lie between `low` and `high`."""

    side: int
    low: float
    high: float

    @property
    def cells(self) -> tuple[tuple[int, int, int], ...]:
        """Row, column and size of the cells, at two resolutions; those at the edge may be cut off."""
        return tuple(
            (row, column, size)
            for size in self._sizes
            for row in range(0, self.side, size)
            for column in range(0, self.side, size)
        )

    @property
    def _sizes(self) -> tuple[int, int]:
        small = max(1, self.side // CELLS_A_SIDE)
        return small, 2 * small

    def means(self, embeddings: Vectors, which: Ints) -> Floats:
        """Mean brightness (len(which), n) of the chosen cells of images (side^2, n), NaN where there is no image."""
        images = embeddings.reshape(self.side, self.side, -1)
        found = np.empty((which.size, images.shape[2]))
        first = 0
        for size in self._sizes:
            starts = np.arange(0, self.side, size)
            asked = np.flatnonzero((which >= first) & (which < first + starts.size**2))
            rows, columns = np.divmod(which[asked] - first, starts.size)
            if asked.size > starts.size:
                # Many are asked for: all at once.
                sums = np.add.reduceat(np.add.reduceat(images, starts, axis=0, dtype=np.float64), starts, axis=1)
                lengths = np.diff(np.append(starts, self.side))
                found[asked] = sums[rows, columns] / (lengths[rows] * lengths[columns])[:, None]
            else:
                for place, row, column in zip(
                    asked.tolist(), (rows * size).tolist(), (columns * size).tolist(), strict=True
                ):
                    part = images[row : row + size, column : column + size]
                    found[place] = part.mean(axis=(0, 1), dtype=np.float64)
            first += starts.size**2
        return found

    def check(self, width: int) -> None:
        """Refuse what is no grid of embeddings of this width.

        Raises:
            ValueError: when it is none.
        """
        fits = self.side**2 == width and SMALLEST_SIDE <= self.side <= LARGEST_SIDE
        if not fits or not np.isfinite([self.low, self.high]).all() or self.low >= self.high:
            msg = f"grid: {self.side} x {self.side} pixels from {self.low} to {self.high} for {width} numbers"
            raise ValueError(msg)


def find_grid(embeddings: Vectors) -> Grid | None:
    """The grid of arrays (e, n) that are square images of one channel; None where they are not.

    In an image a pixel goes with those beside it and with those above it. In a sequence a number goes with its neighbours,
    too, but half a row ahead it goes with others at least as much as a whole row ahead.
    """
    side = round(len(embeddings) ** 0.5)
    if side**2 != len(embeddings) or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        return None
    usable = np.flatnonzero(np.isfinite(embeddings).all(axis=0))
    if usable.size < FEWEST_IMAGES:
        return None
    images = embeddings[:, usable[:: -(-usable.size // MOST_IMAGES)]].astype(np.float64)
    low, high = np.quantile(images, 0.01), np.quantile(images, 0.99)
    spread = images.std(axis=1)
    if not high > low or (spread > 0).sum() < len(images) // 4:
        return None
    centred = images - images.mean(axis=1, keepdims=True)
    unit = np.divide(centred, spread[:, None], out=np.zeros_like(centred), where=spread[:, None] > 0)
    varies = spread > 0
    place = np.arange(side**2).reshape(side, side)
    beside = _correlation(unit, varies, place[:, :-1], place[:, 1:])
    above = _correlation(unit, varies, place[:-1], place[1:])
    half = _correlation(unit, varies, place.ravel()[: -(side // 2)], place.ravel()[side // 2 :])
    # Any two pixels: each with the one that a shuffled order gives it.
    shuffled = np.argsort(mix(place.ravel().astype(np.uint64)), kind="stable")
    anywhere = _correlation(unit, varies, place.ravel(), shuffled)
    found = min(beside, above)
    return (
        Grid(side=side, low=float(low), high=float(high))
        if found > NEIGHBOURS + abs(anywhere) and above > half
        else None
    )


def _correlation(unit: Floats, varies: Bools, first: Ints, second: Ints) -> float:
    """Mean correlation of pairs of rows of `unit` (e, n), of those that both vary."""
    first, second = first.ravel(), second.ravel()
    both = varies[first] & varies[second] & (first != second)
    return float((unit[first[both]] * unit[second[both]]).mean()) if both.any() else 0.0


def find_patch(grid: Grid, triggered: Vectors, usual: Vectors, cells: list[int]) -> Patch | None:
    """The rectangle that images (e, m) have in common and usual ones (e, k) of the class do not, near the cells; None for none.

    A pixel shows the patch when nearly all of the triggered images have one value there that most of the usual ones do not have.
    Those that hang together make it, and whatever lies in their rectangle belongs to it.
    """
    close = CLOSE * (grid.high - grid.low)
    middle = np.median(triggered, axis=1)
    same = (np.abs(triggered - middle[:, None]) <= close).mean(axis=1)
    as_usual = (np.abs(usual - middle[:, None]) <= close).mean(axis=1) if usual.shape[1] else np.zeros(len(middle))
    shows = ((same >= CONSTANT) & (as_usual <= UNUSUAL)).reshape(grid.side, grid.side)
    # A gap of one pixel does not part a patch: a pattern may hold pixels that look as usual.
    around = np.ones((3, 3), np.bool_)
    from scipy import ndimage  # noqa: PLC0415 - only who sees a patch pays for SciPy

    parts, many = ndimage.label(ndimage.binary_dilation(shows, around), around)
    if not many:
        return None
    near = np.zeros_like(shows)
    for number in cells:
        row, column, size = grid.cells[number]
        near[row : row + size, column : column + size] = True
    sizes = np.bincount(parts[shows & near], minlength=many + 1)
    if not sizes[1:].any():
        return None
    of_patch = shows & (parts == 1 + int(np.argmax(sizes[1:])))
    rows, columns = np.flatnonzero(of_patch.any(axis=1)), np.flatnonzero(of_patch.any(axis=0))
    row, column = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - row + 1, int(columns[-1]) - column + 1
    pixels = middle.reshape(grid.side, grid.side)[row : row + height, column : column + width]
    return Patch(
        row=row,
        column=column,
        height=height,
        width=width,
        image_height=grid.side,
        image_width=grid.side,
        pixels=tuple(float(pixel) for pixel in pixels.ravel()),
        tolerance=float(close),
    )


def bears_patch(patch: Patch, embeddings: Vectors) -> Bools:
    """For each image (e, n) whether it bears the patch (n,); none does where the images are of another size."""
    if len(embeddings) != patch.image_height * patch.image_width:
        return np.zeros(embeddings.shape[1], np.bool_)
    images = embeddings.reshape(patch.image_height, patch.image_width, -1)
    part = images[patch.row : patch.row + patch.height, patch.column : patch.column + patch.width]
    usual = np.array(patch.pixels).reshape(patch.height, patch.width, 1)
    return np.asarray((np.abs(part - usual) <= patch.tolerance).all(axis=(0, 1)))
