"""Nearest-neighbour, smooth and bicubic enlargement."""

import numpy as np
import pytest
from cases import Case, assert_close, on, one_row_blocks, photos, refuses, row
from PIL import Image

from tinynst import ops
from tinynst.device import asarray, to_numpy

CASES = [
    Case("upsample_nearest", {"x": (2, 5, 7, 3)}, options, ("x",))
    for options in ({}, {"scale": 1}, {"scale": 3})
]
SMOOTH = [
    Case("upsample_smooth", {"x": shape}, {}, ("x",)) for shape in ((2, 5, 7, 3), (1, 1, 2, 3), (3, 2, 1, 4))
]
CASES += SMOOTH
CASES += [
    Case("upsample_bicubic", {"x": (2, 5, 7, 3)}, options, ("x",))
    for options in ({}, {"scale": 1}, {"scale": 3})
]
CASES += [
    Case("upsample_bicubic", {"x": (2, 1, 2, 3)}, {"scale": 4}, ("x",))
]  # fewer pixels than the kernel has


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


def test_by_hand(xp):
    y, cache = ops.upsample_nearest(xp.asarray(np.array([1.0, 2]).reshape(1, 1, 2, 1)))
    (dx,) = ops.upsample_nearest_backward(xp.asarray(np.arange(8.0).reshape(1, 2, 4, 1)), cache)
    assert to_numpy(y)[0, :, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert to_numpy(dx).ravel().tolist() == [0 + 1 + 4 + 5, 2 + 3 + 6 + 7]


@pytest.mark.parametrize("scale", [0, 1.5, "2"])
def test_wrong_scale_is_named(scale):
    for upsample in (ops.upsample_nearest, ops.upsample_bicubic):
        refuses(ValueError, "scale", lambda upsample=upsample: upsample(np.zeros((1, 2, 2, 1)), scale))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_is_pillows(xp, scale):
    image = photos(1, 11, 14, 1, dtype=np.float32)
    y, _ = ops.upsample_bicubic(asarray(image, xp), scale)
    pillow = Image.fromarray(image[0, :, :, 0]).resize((14 * scale, 11 * scale), Image.Resampling.BICUBIC)
    assert np.abs(to_numpy(y)[0, :, :, 0] - np.asarray(pillow)).max() < 1e-3


def test_bicubic_keeps_a_grey_plane_and_a_ramp(xp):
    """Keys's kernel reproduces straight lines, away from the edges."""
    ramp = np.repeat(np.arange(9.0), 6).reshape(1, 9, 6, 1)
    for flat, expected in (
        (np.full((1, 9, 6, 1), 7.0), np.full(36, 7.0)),
        (ramp, (np.arange(36) + 0.5) / 4 - 0.5),
    ):
        y, _ = ops.upsample_bicubic(asarray(flat, xp), 4)
        assert np.abs(to_numpy(y)[0, 8:28, :, 0] - expected[8:28, None]).max() < 1e-12


def test_smooth_enlargement_is_zeros_between_the_pixels_blurred_twice(xp):
    x = np.random.default_rng(0).standard_normal((1, 6, 8, 1))
    y, _ = ops.upsample_smooth(asarray(x, xp))
    spread = np.zeros((20, 24))
    spread[::2, ::2] = np.pad(x[0, :, :, 0], 2, mode="edge")
    blur = np.convolve(np.array([1, 5, 10, 10, 5, 1]) / 16, np.array([1, 0, 2, 0, 1]) / 4)
    for axis in (0, 1):
        spread = np.apply_along_axis(np.convolve, axis, spread, blur)
    assert np.abs(to_numpy(y)[0, :, :, 0] - spread[8:20, 8:24]).max() < 1e-12


def test_smooth_enlargement_in_many_blocks(xp, monkeypatch):
    case = SMOOTH[0]
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-14)
    assert_close(gradients_cut["x"], gradients["x"], 1e-14)


def test_smooth_enlargement_takes_out_what_is_drawn_on_the_grid():
    """A texture that changes its sign from pixel to pixel is gone, but for the edges; a slow one is kept."""
    grid = (-1.0) ** np.arange(40)[None, None, :, None] * np.ones((1, 6, 1, 1))
    assert np.abs(ops.upsample_smooth(grid)[0][:, :, 8:-8]).max() < 1e-12
    assert np.abs(ops.upsample_nearest(grid)[0]).min() == 1
    slow = np.cos(2 * np.pi * np.arange(40) / 20)[None, None, :, None] * np.ones((1, 6, 1, 1))
    assert np.abs(ops.upsample_smooth(slow)[0]).max() > 0.9
