"""Photos cut and shrunk, as the standard test and as the paper do it."""

import numpy as np
import pytest
from cases import photos
from PIL import Image

from tinynst.data.degradation import blur, cut, shrink


def cubic(t):
    t = abs(t)
    return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0


def test_cut_takes_the_last_rows_and_columns():
    image = photos(13, 18, 3)
    assert np.array_equal(cut(image, 4), image[:12, :16])
    assert cut(image[:12, :16], 4).shape == (12, 16, 3)
    with pytest.raises(ValueError, match="18x3 is too small to be shrunk by 4"):
        cut(image[:3], 4)


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_is_the_antialiased_mean_rounded(factor):
    """By hand, in the middle of an image: Keys's kernel, stretched by the factor, along columns and rows."""
    image = np.rint(photos(12 * factor, 12 * factor, 3)).astype(np.uint8)
    low = shrink(image, factor)
    assert low.shape == (12, 12, 3) and low.dtype == np.uint8
    weights = np.array([cubic((k + 0.5) / factor - 6.5) for k in range(12 * factor)])
    weights /= weights.sum()
    across = np.einsum("hwc,w->hc", image.astype(float), weights)
    across = np.rint(across).clip(0, 255)  # Pillow rounds between the two
    assert np.abs(low[6, 6].astype(float) - weights @ across).max() <= 1


def test_the_low_image_is_rounded_and_the_papers_is_blurred_before():
    image = photos(32, 24, 3, dtype=np.float32)
    pixels = Image.fromarray(np.rint(image).astype(np.uint8))
    assert np.array_equal(shrink(image, 4), np.asarray(pixels.resize((6, 8), Image.BICUBIC)))
    assert np.array_equal(shrink(image, 4, "paper"), shrink(blur(image, 1.0), 4))
    assert shrink(image, 4, "paper").std() < 0.97 * shrink(image, 4).std()


def test_blur_is_a_gaussian():
    spot = np.zeros((21, 25, 2))
    spot[10, 12] = 1
    y, x = np.mgrid[-4:5, -4:5]
    expected = np.exp(-(y**2 + x**2) / 2) / np.exp(-(np.arange(-4, 5) ** 2) / 2).sum() ** 2
    result = blur(spot, 1.0)
    assert np.abs(result[6:15, 8:17, 1] - expected).max() < 1e-6 and abs(result.sum() - 2) < 1e-5
    assert np.abs(blur(np.full((5, 6, 3), 200.0), 1.0) - 200).max() < 1e-3  # edges are repeated


def test_what_cannot_be_shrunk_is_refused():
    with pytest.raises(ValueError, match=r"15x16 cannot be shrunk by 4: use cut"):
        shrink(np.zeros((16, 15, 3)), 4)
    with pytest.raises(ValueError, match="degradation is 'nearest'; choose from bicubic, paper"):
        shrink(np.zeros((16, 16, 3)), 4, "nearest")
