"""PSNR, SSIM and the distance in VGG's features against their definitions in plain loops."""

import math

import numpy as np
import pytest
from cases import photos, refuses, small_vgg
from PIL import Image

from tinynst.data import images
from tinynst.device import asarray, to_numpy
from tinynst.networks import VGG16
from tinynst.samples import PHOTOS
from tinynst.tools import metrics

HEIGHT, WIDTH = 14, 19


def pair(xp, dtype=np.float64):
    """Two brightnesses (HEIGHT, WIDTH) that have something in common, 0..255."""
    truth = photos(HEIGHT, WIDTH, seed=0)
    y = 0.7 * truth + 0.3 * photos(HEIGHT, WIDTH, seed=1)
    return tuple(asarray(a.astype(dtype), xp) for a in (y, truth))


# --- brightness ---------------------------------------------------------------------------------------------


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


# --- PSNR ---------------------------------------------------------------------------------------------------


def test_psnr_by_hand(xp):
    truth = asarray(np.array([[10.0, 20, 30], [40, 50, 60]]), xp)
    off = asarray(np.array([[0.0, 0, 3], [-3, 0, 0]]), xp)
    assert metrics.psnr(truth + off, truth) == pytest.approx(
        20 * math.log10(255) - 10 * math.log10((9 + 9) / 6), abs=1e-12
    )
    assert metrics.psnr(truth + 255, truth) == pytest.approx(0, abs=1e-12)
    assert metrics.psnr(truth, truth) == math.inf


def test_psnr_wants_one_shape(xp):
    refuses(ValueError, "y", lambda: metrics.psnr(xp.zeros((4, 5)), xp.zeros((1, 5))))
    refuses(TypeError, "y", lambda: metrics.psnr(xp.zeros((4, 5), np.uint8), xp.zeros((4, 5))))


# --- SSIM ---------------------------------------------------------------------------------------------------


def naive_ssim(y, truth):
    """The definition: for each place where the window fits, weighted means, variances (of what is left) and
    covariance."""
    weights = [
        [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)
    ]
    total, values = sum(map(sum, weights)), []
    for top in range(y.shape[0] - 10):
        for left in range(y.shape[1] - 10):
            places = [
                (w / total, top + i, left + j) for i, row in enumerate(weights) for j, w in enumerate(row)
            ]
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


# --- the distance -------------------------------------------------------------------------------------------


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
        return metrics.unit_features(
            np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC), np.float32), vgg
        )

    truth = units(1)
    found = [metrics.perceptual_distance(units(scale), truth) for scale in (2, 4, 8)]
    for name in metrics.DISTANCE_LAYERS:
        assert 0 < found[0][name] < found[1][name] < found[2][name], name


# --- what the eye sees --------------------------------------------------------------------------------------


def noisy(side, slope, seed=0):
    """A grey picture (side, side, 3) about 128 whose amplitude falls as frequency^-slope: 0 is white noise, 1
    as in photos."""
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
    for seed in range(6):
        peaks = metrics.axis_peaks(noisy(side, slope, seed))
        assert list(peaks) == [2, 4] and all(0.8 < ratio < 1.25 for ratio in peaks.values()), peaks


@pytest.mark.parametrize("direction", [0, 1])
def test_threads_of_a_few_grey_levels_are_an_axis_peak_at_their_period(direction):
    """In a photo and in noise that has a photo's spectrum; threads that run over half of the picture only,
    too."""
    for picture in (images.load(PHOTOS / "chelsea.jpg", 256)[:256, :256], noisy(256, 1)):
        plain = metrics.axis_peaks(picture)
        threads = np.expand_dims(wave(4, 4, 256), (1 - direction, 2))
        found = metrics.axis_peaks(picture + threads)
        assert found[4] > 2.5 and abs(found[2] - plain[2]) < 0.05
        half = np.arange(256).reshape((1, 256, 1) if direction == 0 else (256, 1, 1)) < 128
        assert metrics.axis_peaks(picture + 1.5 * threads * half)[4] > 2
        found = metrics.axis_peaks(picture + np.expand_dims(wave(2, 3, 256), (1 - direction, 2)))
        assert found[2] > 2.5 and abs(found[4] - plain[4]) < 0.05


def test_a_checkerboard_is_an_axis_peak_and_other_periods_are_not():
    picture = noisy(258, 1)  # 256x256 are looked at
    board = 3 * (-1.0) ** np.add.outer(np.arange(258), np.arange(258))[..., None]
    assert metrics.axis_peaks(picture + board)[2] > 2.5
    for period in (3, 8):
        assert max(metrics.axis_peaks(picture + wave(period, 6, 258)[None, :, None]).values()) < 1.25


def test_a_blank_picture_has_no_peaks_and_a_small_one_is_refused():
    assert metrics.axis_peaks(np.full((64, 40, 3), 200.0)) == {2: 1.0, 4: 1.0}
    refuses(ValueError, "picture", lambda: metrics.axis_peaks(np.zeros((31, 64, 3))))


def test_border_lines_by_hand():
    """A ramp of 2 levels a pixel down and 1 across: the same everywhere, but for a frame of 4 pixels that is
    10 lighter."""
    ramp = 2.0 * np.arange(80)[:, None] + np.arange(100)
    picture = np.repeat(ramp[..., None], 3, axis=2)
    np.testing.assert_allclose(metrics.border_lines(picture, 8), 1, atol=1e-9)
    picture[4:-4, 4:-4] -= 10
    lines = metrics.border_lines(picture, 8)
    assert lines.shape == (8,) and lines.argmax() == 3
    row, column = ((length - 8) / length for length in (100, 80))  # the corners see no step
    expected = (row * (8 + 12) + (1 - row) * 2 * 2 + column * (9 + 11) + (1 - column) * 2 * 1) / 4 / 1.5
    assert lines[3] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(np.delete(lines, 3), 1, atol=1e-9)


def test_border_lines_of_noise_and_of_a_soft_border():
    picture = noisy(256, 1)
    lines = metrics.border_lines(picture)
    assert lines.shape == (32,) and 0.8 < lines.min() and lines.max() < 1.25
    picture[:10] = picture[:10].mean(axis=(0, 1))
    assert metrics.border_lines(picture)[2] < 0.85
    picture[20, :] += 40
    assert metrics.border_lines(picture).argmax() in (19, 20)
    refuses(ValueError, "picture", lambda: metrics.border_lines(np.zeros((65, 100, 3))))
    refuses(ValueError, "width", lambda: metrics.border_lines(picture, 0))


def test_saturated_counts_white_and_black_after_clipping():
    picture = np.full((4, 5, 3), 128.0)
    picture[0, 0], picture[0, 1], picture[0, 2] = (255, 254, 300), (0, 1, -20), (255, 255, 250)
    picture[1, 0], picture[1, 1] = (253.5, 255, 255), (255, 0, 0)
    assert metrics.saturated(picture, edge=1) == 2 / 20
    assert metrics.saturated(picture) == 4 / 20
    assert metrics.saturated(picture.astype(np.uint8)[2:]) == 0
    assert metrics.saturated(np.full((4, 5, 3), 255, np.uint8)) == 1
