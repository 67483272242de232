"""PSNR, SSIM and the distance in VGG's features against their definitions in plain loops."""

import math

import numpy as np
import pytest
from cases import photos, refuses, small_vgg
from PIL import Image

from tinynst import images, metrics
from tinynst.device import asarray, to_numpy
from tinynst.networks import VGG16
from tinynst.samples import PHOTOS

HEIGHT, WIDTH = 14, 19


def pair(xp, dtype=np.float64):
    """Two brightnesses (HEIGHT, WIDTH) that have something in common, 0..255."""
    truth = photos(HEIGHT, WIDTH, seed=0)
    y = 0.7 * truth + 0.3 * photos(HEIGHT, WIDTH, seed=1)
    return tuple(asarray(a.astype(dtype), xp) for a in (y, truth))


# --- brightness -------------------------------------------------------------------------------------------------------


def test_luma_of_known_colours(xp):
    colours = {
        (0, 0, 0): 16.0,
        (255, 255, 255): 235.0,
        (255, 0, 0): 81.481,
        (0, 255, 0): 144.553,
        (0, 0, 255): 40.966,
        (100, 100, 100): 16 + 219 * 100 / 255,
    }
    image = np.array(list(colours), np.uint8)[None]
    y = metrics.luma(asarray(image, xp))
    assert y.shape == (1, len(colours)) and y.dtype == np.float64
    np.testing.assert_allclose(to_numpy(y)[0], list(colours.values()), rtol=0, atol=1e-12)


def test_luma_wants_colour(xp):
    refuses(ValueError, "image", lambda: metrics.luma(xp.zeros((4, 5), np.uint8)))


# --- PSNR -------------------------------------------------------------------------------------------------------------


def test_psnr_by_hand(xp):
    truth = asarray(np.array([[10.0, 20, 30], [40, 50, 60]]), xp)
    off = asarray(np.array([[0.0, 0, 3], [-3, 0, 0]]), xp)
    assert metrics.psnr(truth + off, truth) == pytest.approx(20 * math.log10(255) - 10 * math.log10((9 + 9) / 6), abs=1e-12)
    assert metrics.psnr(truth + 255, truth) == pytest.approx(0, abs=1e-12)
    assert metrics.psnr(truth, truth) == math.inf


def test_psnr_wants_one_shape(xp):
    refuses(ValueError, "y", lambda: metrics.psnr(xp.zeros((4, 5)), xp.zeros((1, 5))))
    refuses(TypeError, "y", lambda: metrics.psnr(xp.zeros((4, 5), np.uint8), xp.zeros((4, 5))))


# --- SSIM -------------------------------------------------------------------------------------------------------------


def naive_ssim(y, truth):
    """The definition: for each place where the window fits, weighted means, variances (of what is left) and covariance."""
    weights = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    total, values = sum(map(sum, weights)), []
    for top in range(y.shape[0] - 10):
        for left in range(y.shape[1] - 10):
            places = [(w / total, top + i, left + j) for i, row in enumerate(weights) for j, w in enumerate(row)]
            my = sum(w * y[i, j] for w, i, j in places)
            mt = sum(w * truth[i, j] for w, i, j in places)
            yy = sum(w * (y[i, j] - my) ** 2 for w, i, j in places)
            tt = sum(w * (truth[i, j] - mt) ** 2 for w, i, j in places)
            yt = sum(w * (y[i, j] - my) * (truth[i, j] - mt) for w, i, j in places)
            c1, c2 = 6.5025, 58.5225
            values.append((2 * my * mt + c1) * (2 * yt + c2) / ((my * my + mt * mt + c1) * (yy + tt + c2)))
    return sum(values) / len(values)


def test_ssim_is_its_definition(xp):
    expected = naive_ssim(*pair(np))
    assert 0.5 < expected < 0.95
    assert metrics.ssim(*pair(xp)) == pytest.approx(expected, abs=1e-10)
    assert metrics.ssim(*pair(xp)[::-1]) == pytest.approx(expected, abs=1e-10)
    assert metrics.ssim(*pair(xp, np.float32)) == pytest.approx(expected, abs=1e-3)


def test_ssim_of_equals_and_opposites(xp):
    y, _ = pair(xp)
    assert metrics.ssim(y, y) == pytest.approx(1, abs=1e-12)
    assert metrics.ssim(255 - y, y) < -0.5
    assert metrics.ssim(y[:11, :11], y[:11, :11]) == pytest.approx(1, abs=1e-12)


def test_ssim_refuses(xp):
    refuses(ValueError, "y", lambda: metrics.ssim(xp.zeros((10, 20)), xp.zeros((10, 20))))
    refuses(ValueError, "truth", lambda: metrics.ssim(xp.zeros((20, 20)), xp.zeros((20, 21))))


# --- the distance -----------------------------------------------------------------------------------------------------


def naive_distance(f, g):
    total = 0.0
    for i in range(f.shape[0]):
        for j in range(f.shape[1]):
            u, v = (x[i, j] / (math.sqrt((x[i, j] ** 2).sum()) or 1) for x in (f, g))
            total += sum((u[c] - v[c]) ** 2 for c in range(f.shape[2]))
    return total / (f.shape[0] * f.shape[1])


def test_distance_is_its_definition(xp):
    a, b = photos(33, 35, 3, seed=2), photos(33, 35, 3, seed=3)
    vgg = small_vgg(xp, "relu5_3")
    units = [metrics.unit_features(asarray(image, xp), vgg) for image in (a, b)]
    found = metrics.perceptual_distance(*units)
    assert tuple(found) == ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    raw = [small_vgg(np, "relu5_3").forward(image[None], tuple(found), training=False) for image in (a, b)]
    for name, value in found.items():
        assert value == pytest.approx(naive_distance(raw[0][name][0], raw[1][name][0]), rel=1e-8), name
        assert 0 < value < 2
        np.testing.assert_allclose(to_numpy((units[0][name] ** 2).sum(axis=-1)).max(), 1, atol=1e-9)
    assert metrics.perceptual_distance(units[0], units[0]) == dict.fromkeys(found, 0.0)


def test_units_of_nothing_are_nothing(xp):
    f = xp.zeros((2, 3, 4))
    f[0, 1] = asarray(np.array([0.0, 3, 0, 4]), xp)
    unit = to_numpy(metrics._unit(f))
    np.testing.assert_allclose(unit[0, 1], [0, 0.6, 0, 0.8], atol=1e-10)
    assert np.count_nonzero(unit) == 2


def test_more_blur_is_further_at_every_layer():
    photo = images.open_rgb(PHOTOS / "chelsea.jpg").crop((100, 60, 196, 156))
    vgg = VGG16.load()

    def units(scale):
        small = photo.resize((96 // scale, 96 // scale), Image.Resampling.BICUBIC)
        return metrics.unit_features(np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC), np.float32), vgg)

    truth = units(1)
    found = [metrics.perceptual_distance(units(scale), truth) for scale in (2, 4, 8)]
    for name in metrics.DISTANCE_LAYERS:
        assert 0 < found[0][name] < found[1][name] < found[2][name], name
