"""Quality in numbers: how far an image is from the truth, and artefacts of a stylised picture.

PSNR and SSIM of the brightness are what papers on super-resolution report; both prefer blur to detail that is
slightly displaced. The perceptual distance compares features of VGG-16 instead. A stylised picture has no
truth; axis_peaks, border_lines and saturated measure artefacts that are easy to see and that the loss hardly
penalises: threads and checkerboards, frames along the border, blank spots.
"""

import math

import numpy as np

from .. import ops
from ..device import array_module
from ..ops import arguments

# Where Zhang et al. compare the features of VGG-16: after the last convolution of each block
DISTANCE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


def luma(image):
    """Y of BT.601 in 16..235, float64 (H, W), of an image (H, W, 3), RGB, 0..255, as MATLAB's rgb2ycbcr,
    but not rounded: rounding Y of 8-bit images, as MATLAB does, lowers the PSNR by 0.01 dB."""
    xp = array_module(image)
    arguments.shape("image", image, "H", "W", 3)
    return 16 + image.astype("float64") @ (xp.array([65.481, 128.553, 24.966]) / 255)


def psnr(y, truth):
    """Peak signal-to-noise ratio in dB, 10*log10(255^2 / MSE), of two float arrays of one shape, 0..255;
    infinite if they are equal. Raises ValueError for different shapes."""
    arguments.floating(y=y, truth=truth)
    arguments.shape("y", y, *truth.shape)
    difference = y - truth
    error = float((difference * difference).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(y, truth):
    """Structural similarity of two float arrays (H, W), 0..255, H and W >= 11: 1 if equal, 0 if unrelated.

        SSIM = (2*m_y*m_t + c1) (2*s_yt + c2) / ((m_y^2 + m_t^2 + c1) (s_yy + s_tt + c2))

    m are means, s variances and covariance under a Gaussian window of 11x11 pixels and sigma 1.5; c1 =
    (0.01*255)^2 and c2 = (0.03*255)^2. The result is the average over all places where the window fits. Wang
    et al., "Image Quality Assessment" (2004), eq. 13. Raises ValueError for a wrong shape.
    """
    xp = arguments.floating(y=y, truth=truth)
    arguments.shape("y", y, "H", "W")
    arguments.shape("truth", truth, *y.shape)
    if min(y.shape) < 11:
        raise ValueError(f"y has shape {tuple(y.shape)}; SSIM's window needs at least (11, 11)")
    gauss = xp.exp(-(xp.arange(-5, 6, dtype=y.dtype) ** 2) / (2 * 1.5**2))
    gauss /= gauss.sum()
    products = xp.stack([y, truth, y * y, truth * truth, y * truth])[..., None]
    for shape in ((11, 1, 1, 1), (1, 11, 1, 1)):  # the Gaussian is separable
        products, _ = ops.conv2d(products, gauss.reshape(shape))
    my, mt, yy, tt, yt = products[..., 0]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = (2 * (yt - my * mt) + c2) / (yy - my * my + tt - mt * mt + c2)
    return float((structure * (2 * my * mt + c1) / (my * my + mt * mt + c1)).mean())


def unit_features(image, vgg, layers=DISTANCE_LAYERS):
    """{layer: (H', W', C)}: VGG's features of an image (H, W, 3), RGB, 0..255, each pixel's vector scaled to
    length 1. Vectors of zeros stay zero."""
    features, units = vgg.forward(image[None], layers, training=False), {}
    for name, f in features.items():
        length = vgg.xp.sqrt((f * f).sum(axis=-1, keepdims=True))
        units[name] = (f / (length + 1e-10))[0]
    return units


def perceptual_distance(f, f_truth):
    """{layer: mean of ||f - f_truth||^2 over the pixels}, 0 (equal) to 2, of two images' `unit_features`:
    LPIPS without its learned channel weights (Zhang et al., arXiv:1801.03924, eq. 1)."""
    return {name: float(((f[name] - f_truth[name]) ** 2).sum(axis=-1).mean()) for name in f}


def axis_peaks(picture):
    """{2: ratio, 4: ratio}: how far patterns that repeat every 2 and 4 pixels in rows or columns stand out.

    The ratio is the mean power around that frequency to that of the frequencies next to it; the larger of the
    two directions counts. 1 means no peak: nine in ten photos at 256x256 are below 1.25. Visible threads have
    2 and more. picture: (H, W, 3), NumPy, 0..255. Raises ValueError for sides below 32.
    """
    arguments.shape("picture", picture, "H", "W", 3)
    if min(picture.shape[:2]) < 32:
        raise ValueError(f"picture has shape {picture.shape}; its sides should be at least 32")
    # with sides that 4 divides, 1/4 is one of the frequencies
    grey = luma(picture)[tuple(slice(side - side % 4) for side in picture.shape[:2])]
    # without a window the border would appear as a cross in the spectrum
    down, across = (np.hanning(side + 1)[:-1] for side in grey.shape)
    window = down[:, None] * across
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
    return {period: max(_peak(power.mean(axis), period) for axis in (0, 1)) for period in (2, 4)}


def _peak(line, period):
    """Mean power around the frequency 1/period to that of as many frequencies on each side of it, or of twice
    as many below it where there are none above. `line`: power by frequency."""
    half = max(1, len(line) // 128)  # a thread that comes and goes is a little wider than one frequency
    width, middle, line = 2 * half + 1, len(line) // period, line[: len(line) // 2 + 1]
    low, high = middle - half, middle + half + 1
    sides = [line[low - width : low], line[high : high + width]]
    if high > len(line):
        sides = [line[low - 2 * width : low]]
    tiny = 1e-6  # grey levels squared: a blank picture has no peaks
    return float((line[low:high].mean() + tiny) / (np.concatenate(sides).mean() + tiny))


def border_lines(picture, width=32):
    """Strength of lines along the border by distance from it, (width,): 1 is as strong as in the middle.

    At distance d: the mean absolute difference of the pixels at d and d + 1 from a side, averaged over the
    four sides, to the mean difference of neighbours farther than `width` from every side. picture: (H, W, 3),
    NumPy, 0..255. Raises ValueError if no pixels are left in the middle.
    """
    arguments.shape("picture", picture, "H", "W", 3)
    width = arguments.whole("width", width, 1)
    if min(picture.shape[:2]) < 2 * width + 2:
        raise ValueError(f"picture has shape {picture.shape}; its sides should be at least {2 * width + 2}")
    picture = picture.astype(np.float64)
    profiles, inside = [], []
    for image in (picture, picture.swapaxes(0, 1)):
        difference = np.abs(np.diff(image, axis=0))
        lines = difference.mean(axis=(1, 2))
        profiles += [lines[:width], lines[::-1][:width]]
        inside.append(difference[width:-width, width:-width].mean())
    tiny = 1e-3  # grey levels: a blank picture has no lines
    return (np.mean(profiles, axis=0) + tiny) / (np.mean(inside) + tiny)


def saturated(picture, edge=10.0):
    """Share of the pixels, 0..1, of a picture (H, W, 3) that are white or black: all three channels within
    `edge` grey levels of 255 or 0, or beyond."""
    arguments.shape("picture", picture, "H", "W", 3)
    white, black = (picture >= 255 - edge).all(axis=2), (picture <= edge).all(axis=2)
    return float((white | black).mean())
