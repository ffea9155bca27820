"""Images are told from other arrays, and a patch is named by its place and extent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_digits

from poisonwatch.mining.grid import Grid, bears_patch, find_grid, find_patch
from poisonwatch.types import Patch

if TYPE_CHECKING:
    from poisonwatch.types import Vectors

SIDE = 8


def digits() -> Vectors:
    """The 8 x 8 digits that scikit-learn brings: (64, 1797), from 0 to 16."""
    return np.ascontiguousarray(load_digits().data.T, np.float32)


def stamped(images: Vectors, row: int, column: int, height: int, width: int, value: float = 16.0) -> Vectors:
    """Images with a rectangle of one value."""
    found = images.reshape(SIDE, SIDE, -1).copy()
    found[row : row + height, column : column + width] = value
    return found.reshape(SIDE * SIDE, -1)


def test_digits_are_images() -> None:
    """The grid of real images is found, with the range of their brightness."""
    assert find_grid(digits()) == Grid(side=SIDE, low=0.0, high=16.0)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_pixels_are_no_image(seed: int) -> None:
    """The same numbers in another order have no neighbours."""
    assert find_grid(digits()[np.random.default_rng(seed).permutation(SIDE * SIDE)]) is None


@pytest.mark.parametrize("width", [64, 256, 784])
@pytest.mark.parametrize("kind", ["independent", "factors", "positive", "walk", "smooth", "waves"])
def test_embeddings_and_sequences_are_no_images(width: int, kind: str) -> None:
    """What lies in few dimensions, or goes on along one, has no second direction."""
    generator = np.random.default_rng(width)
    noise = generator.normal(size=(500, width))
    factors = generator.normal(size=(500, 8)) @ generator.normal(size=(8, width))
    kernel = np.exp(-np.square(np.linspace(-3, 3, 41)))
    phase = np.arange(width) / generator.uniform(5, 60, (500, 1)) + generator.random((500, 1))
    made = {
        "independent": noise,
        "factors": factors,
        "positive": np.maximum(factors + 1.0, 0.0),
        "walk": np.cumsum(noise, axis=1),
        "smooth": np.array([np.convolve(row, kernel, "same") for row in noise]),
        "waves": np.sin(2 * np.pi * phase),
    }
    assert find_grid(made[kind].T.astype(np.float32)) is None


def test_what_cannot_be_told_is_no_image() -> None:
    """Too few arrays, sides that do not fit, and constants make no grid."""
    images = digits()
    assert find_grid(images[:, :20]) is None
    assert find_grid(images[:60]) is None
    assert find_grid(np.zeros((64, 200), np.float32)) is None
    assert find_grid(np.empty((0, 200), np.float32)) is None


def test_cells_are_means() -> None:
    """Every cell has the mean of its pixels, also where the edge cuts it off; of a missing image there is none."""
    grid = Grid(side=15, low=0.0, high=1.0)
    images = np.random.default_rng(0).random((225, 6)).astype(np.float32)
    images[:, 2] = np.nan
    found = grid.means(images, np.arange(len(grid.cells)))
    for number, (row, column, size) in enumerate(grid.cells):
        for record in range(6):
            pixels = [
                float(images[r * 15 + c, record])
                for r in range(row, min(15, row + size))
                for c in range(column, min(15, column + size))
            ]
            assert found[number, record] == pytest.approx(float(np.mean(pixels)), nan_ok=True)


@pytest.mark.parametrize("place", [(0, 0, 2, 2), (6, 5, 2, 3), (0, 7, 3, 1), (3, 0, 4, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_a_patch_is_named_exactly(place: tuple[int, int, int, int], seed: int) -> None:
    """Position, extent and pixels of a patch come out although a tenth of the images taken as triggered are not."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(1797)
    row, column, height, width = place
    triggered = np.concatenate((stamped(digits()[:, order[:18]], *place), digits()[:, order[18:20]]), axis=1)
    grid = Grid(side=SIDE, low=0.0, high=16.0)
    cell = next(n for n, (r, c, size) in enumerate(grid.cells) if (r, c, size) == (row, column, 1))
    patch = find_patch(grid, triggered, digits()[:, order[100:300]], [cell])
    assert patch is not None
    assert (patch.row, patch.column, patch.height, patch.width) == place
    assert patch.pixels == (16.0,) * (height * width)
    assert (patch.image_height, patch.image_width) == (SIDE, SIDE)


def test_what_usual_images_have_too_is_no_patch() -> None:
    """Triggered images like all others, or alike elsewhere than at the cells, show none."""
    grid = Grid(side=SIDE, low=0.0, high=16.0)
    images = digits()
    assert find_patch(grid, images[:, :30], images[:, 30:300], [0]) is None
    assert find_patch(grid, stamped(images[:, :30], 5, 5, 2, 2), images[:, 30:300], [0]) is None


def test_an_image_bears_a_patch_when_all_of_its_pixels_do() -> None:
    """The same as going through the pixels one by one; arrays of another size bear none."""
    generator = np.random.default_rng(3)
    images = stamped(digits()[:, :200], 1, 2, 2, 3)
    images[:, 100:] += generator.normal(0, 1.0, (64, 100)).astype(np.float32)
    patch = Patch(row=1, column=2, height=2, width=3, image_height=8, image_width=8, pixels=(16.0,) * 6, tolerance=1.5)
    slow = [all(abs(image[r * 8 + c] - 16.0) <= 1.5 for r in (1, 2) for c in (2, 3, 4)) for image in images.T.tolist()]
    found = bears_patch(patch, images)
    assert found.tolist() == slow
    assert 100 < found.sum() < 200
    assert not bears_patch(patch, images[:63]).any()


@pytest.mark.parametrize(
    ("grid", "width"),
    [
        (Grid(side=8, low=0.0, high=1.0), 63),
        (Grid(side=5, low=0.0, high=1.0), 25),
        (Grid(side=300, low=0.0, high=1.0), 90_000),
        (Grid(side=8, low=1.0, high=1.0), 64),
        (Grid(side=8, low=0.0, high=float("inf")), 64),
    ],
)
def test_a_damaged_grid_is_refused(grid: Grid, width: int) -> None:
    """A grid that does not fit the embeddings, or has no range, is an error."""
    with pytest.raises(ValueError, match="grid"):
        grid.check(width)
    Grid(side=8, low=0.0, high=1.0).check(64)
