"""PSNR, SSIM and the distance in VGG's features against their definitions in plain loops."""

import math

import numpy as np
import pytest
from cases import photos, refuses, small_vgg

from tinynst.data import images
from tinynst.device import asarray, to_numpy
from tinynst.samples import PHOTOS
from tinynst.tools import metrics


def pair(xp, dtype=np.float64):
    """Two correlated brightnesses (14, 19), 0..255."""
    truth = photos(14, 19, seed=0)
    y = 0.7 * truth + 0.3 * photos(14, 19, seed=1)
    return tuple(asarray(a.astype(dtype), xp) for a in (y, truth))


def test_luma_of_known_colours(xp):
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    y = metrics.luma(asarray(colours, xp))
    assert y.shape == (1, 5) and y.dtype == np.float64
    np.testing.assert_allclose(to_numpy(y)[0], [16, 235, 81.481, 144.553, 40.966], rtol=0, atol=1e-12)


def test_psnr_by_hand(xp):
    truth = asarray(np.array([[10.0, 20, 30], [40, 50, 60]]), xp)
    off = asarray(np.array([[0.0, 0, 3], [-3, 0, 0]]), xp)
    assert metrics.psnr(truth + off, truth) == pytest.approx(20 * math.log10(255) - 10 * math.log10(3))
    assert metrics.psnr(truth, truth) == math.inf


def naive_ssim(y, truth):
    """The definition: for each place where the window fits, weighted means, variances and covariance."""
    gauss = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(gauss, gauss) / gauss.sum() ** 2
    c1, c2, values = 6.5025, 58.5225, []
    for i in range(y.shape[0] - 10):
        for j in range(y.shape[1] - 10):
            a, t = y[i : i + 11, j : j + 11], truth[i : i + 11, j : j + 11]
            ma, mt = (w * a).sum(), (w * t).sum()
            aa, tt, at = (
                (w * p * q).sum() for p, q in ((a - ma, a - ma), (t - mt, t - mt), (a - ma, t - mt))
            )
            values.append((2 * ma * mt + c1) * (2 * at + c2) / ((ma * ma + mt * mt + c1) * (aa + tt + c2)))
    return np.mean(values)


def test_ssim_is_its_definition(xp):
    expected = naive_ssim(*pair(np))
    assert 0.5 < expected < 0.95
    assert metrics.ssim(*pair(xp)) == pytest.approx(expected, abs=1e-10)
    assert metrics.ssim(*pair(xp, np.float32)) == pytest.approx(expected, abs=1e-3)
    y, _ = pair(xp)
    assert metrics.ssim(y[:11, :11], y[:11, :11]) == pytest.approx(1, abs=1e-12)
    assert metrics.ssim(255 - y, y) < -0.5


def test_distance_is_its_definition(xp):
    a, c = photos(33, 35, 3, seed=2), photos(33, 35, 3, seed=3)
    vgg = small_vgg(xp, "relu5_3")
    found = metrics.perceptual_distance(*(metrics.unit_features(asarray(image, xp), vgg) for image in (a, c)))
    assert tuple(found) == ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    f, g = (small_vgg(np, "relu5_3").forward(image[None], tuple(found), training=False) for image in (a, c))
    for name, value in found.items():
        u, v = (x[name] / np.maximum(np.linalg.norm(x[name], axis=-1, keepdims=True), 1e-300) for x in (f, g))
        assert value == pytest.approx(((u - v) ** 2).sum() / u[..., 0].size, rel=1e-8) and 0 < value < 2, name


def noisy(side, slope, seed=0):
    """A grey picture (side, side, 3), amplitude as frequency^-slope: 0 is white noise, 1 as in photos."""
    noise = np.random.default_rng(seed).standard_normal((side, side))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = 1
    grey = np.fft.ifft2(np.fft.fft2(noise) / frequency**slope).real
    return np.repeat(128 + 30 * (grey / grey.std())[..., None], 3, axis=2)


def wave(period, levels, side):
    """`levels` up and down every `period` pixels along a row, (side,)."""
    return levels * np.sqrt(2) * np.cos(2 * np.pi * np.arange(side) / period + np.pi / 4)


@pytest.mark.parametrize("slope", [0, 1])
@pytest.mark.parametrize("side", [256, 384])
def test_noise_has_no_axis_peaks(side, slope):
    for seed in range(3):
        peaks = metrics.axis_peaks(noisy(side, slope, seed))
        assert list(peaks) == [2, 4] and all(0.8 < ratio < 1.25 for ratio in peaks.values()), peaks


@pytest.mark.parametrize("direction", [0, 1])
def test_threads_are_an_axis_peak_at_their_period(direction):
    """In a photo and in noise with a photo's spectrum; also threads in one half of the picture only."""
    half = np.expand_dims(np.arange(256) < 128, (direction, 2))
    for picture in (images.load(PHOTOS / "chelsea.jpg", 256)[:256, :256], noisy(256, 1)):
        plain = metrics.axis_peaks(picture)
        for period, levels, other in ((4, 4, 2), (2, 3, 4)):
            threads = np.expand_dims(wave(period, levels, 256), (1 - direction, 2))
            found = metrics.axis_peaks(picture + threads)
            assert found[period] > 2.5 and abs(found[other] - plain[other]) < 0.05
        assert metrics.axis_peaks(picture + 2 * threads * half)[2] > 2


def test_a_checkerboard_is_an_axis_peak_and_other_periods_are_not():
    picture = noisy(258, 1)  # 256x256 of it are used
    board = 3 * (-1.0) ** np.add.outer(np.arange(258), np.arange(258))[..., None]
    assert metrics.axis_peaks(picture + board)[2] > 2.5
    for period in (3, 8):
        assert max(metrics.axis_peaks(picture + wave(period, 6, 258)[None, :, None]).values()) < 1.25
    assert metrics.axis_peaks(np.full((64, 40, 3), 200.0)) == {2: 1.0, 4: 1.0}


def test_border_lines_by_hand():
    """A ramp of 2 levels a pixel down and 1 across, without and with a frame of 4 pixels, 10 lighter."""
    picture = np.repeat((2.0 * np.arange(80)[:, None] + np.arange(100))[..., None], 3, axis=2)
    np.testing.assert_allclose(metrics.border_lines(picture, 8), 1, atol=1e-9)
    picture[4:-4, 4:-4] -= 10
    lines = metrics.border_lines(picture, 8)
    row, column = ((length - 8) / length for length in (100, 80))  # the corners have no step
    expected = (row * (8 + 12) + (1 - row) * 2 * 2 + column * (9 + 11) + (1 - column) * 2 * 1) / 4 / 1.5
    assert lines[3] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(np.delete(lines, 3), 1, atol=1e-9)
    lines = metrics.border_lines(noisy(256, 1))
    assert lines.shape == (32,) and 0.8 < lines.min() and lines.max() < 1.25


def test_saturated_counts_white_and_black_after_clipping():
    picture = np.full((4, 5, 3), 128.0)
    picture[0, 0], picture[0, 1], picture[0, 2] = (255, 254, 300), (0, 1, -20), (255, 255, 250)
    picture[1, 0], picture[1, 1] = (253.5, 255, 255), (255, 0, 0)
    assert metrics.saturated(picture, edge=1) == 2 / 20
    assert metrics.saturated(picture) == 4 / 20
    assert metrics.saturated(np.full((4, 5, 3), 255, np.uint8)) == 1


def test_wrong_arguments_are_refused(xp):
    zeros = xp.zeros
    refuses(ValueError, "image", lambda: metrics.luma(zeros((4, 5), np.uint8)))
    refuses(ValueError, "y", lambda: metrics.psnr(zeros((4, 5)), zeros((1, 5))))
    refuses(TypeError, "y", lambda: metrics.psnr(zeros((4, 5), np.uint8), zeros((4, 5))))
    refuses(ValueError, "y", lambda: metrics.ssim(zeros((10, 20)), zeros((10, 20))))
    refuses(ValueError, "truth", lambda: metrics.ssim(zeros((20, 20)), zeros((20, 21))))
    refuses(ValueError, "picture", lambda: metrics.axis_peaks(np.zeros((31, 64, 3))))
    refuses(ValueError, "picture", lambda: metrics.border_lines(np.zeros((65, 100, 3))))
    refuses(ValueError, "width", lambda: metrics.border_lines(np.zeros((99, 99, 3)), 0))
