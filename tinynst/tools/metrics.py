"""How far an image is from the truth: PSNR and SSIM of the brightness, and a distance as VGG-16 sees it.

The first two are what papers on super-resolution report, and both prefer blur to sharp detail that is a
little off. The third is the paper's point: it asks what a network that knows objects makes of the two images.

A stylised picture has no truth. For it there are measures of what the eye sees at once and the losses hardly:
threads and checkerboards, frames along the border, spots without any drawing.
"""

import math

import numpy as np

from .. import ops
from ..device import array_module
from ..ops import arguments

# Where Zhang et al. compare VGG-16's features: after the last convolution of each block
DISTANCE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


def luma(image):
    """Y of BT.601 in 16..235, float64 (H, W), from an image (H, W, 3), RGB, 0..255: MATLAB's rgb2ycbcr, which
    the field uses.

    Not rounded. (MATLAB rounds Y of 8-bit images, and then PSNR is 0.01 dB lower.)
    """
    xp = array_module(image)
    arguments.shape("image", image, "H", "W", 3)
    return 16 + image.astype("float64") @ (xp.array([65.481, 128.553, 24.966]) / 255)


def psnr(y, truth):
    """The peak signal-to-noise ratio in dB of y against `truth`, two arrays of one shape, 0..255:
    10*log10(255^2 / MSE).

    Infinite where they are equal. Raises ValueError for two shapes.
    """
    arguments.floating(y=y, truth=truth)
    arguments.shape("y", y, *truth.shape)
    difference = y - truth
    error = float((difference * difference).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(y, truth):
    """The structural similarity of y and `truth`, (H, W), 0..255, H and W >= 11: 1 where they are equal, 0
    for strangers.

        SSIM = (2*m_y*m_t + c1) (2*s_yt + c2) / ((m_y^2 + m_t^2 + c1) (s_yy + s_tt + c2))

    with means m, variances and covariance s under a Gaussian window of 11x11 pixels and sigma 1.5, c1 =
    (0.01*255)^2 and c2 = (0.03*255)^2, averaged over all places where the window fits. Wang et al., "Image
    Quality Assessment: From Error Visibility to Structural Similarity" (2004), equation 13, as in the
    authors' code. Raises ValueError for a wrong shape.
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
        window = gauss.reshape(shape)
        products, _ = ops.conv2d(products, window)
    my, mt, yy, tt, yt = products[..., 0]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = (2 * (yt - my * mt) + c2) / (yy - my * my + tt - mt * mt + c2)
    return float((structure * (2 * my * mt + c1) / (my * my + mt * mt + c1)).mean())


def unit_features(image, vgg, layers=DISTANCE_LAYERS):
    """{layer: (H', W', C)}: what `vgg` sees in an image (H, W, 3), RGB, 0..255, at each place a vector of
    length 1."""
    features = vgg.forward(image[None], layers, training=False)
    return {name: _unit(f[0]) for name, f in features.items()}


def _unit(f):
    """f with its last axis brought to length 1; a vector of zeros stays."""
    length = array_module(f).sqrt((f * f).sum(axis=-1, keepdims=True))
    return f / (length + 1e-10)


def perceptual_distance(a, b):
    """{layer: distance} of two images' `unit_features`: ||a - b||^2, its mean over all places; 0 (equal) to
    2.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv:1801.03924,
    equation 1, with all channels weighted alike: LPIPS without the weights that it learnt from people's
    answers.
    """
    return {name: float(((a[name] - b[name]) ** 2).sum(axis=-1).mean()) for name in a}


# --- what the eye sees in a stylised picture ----------------------------------------------------------------


def axis_peaks(picture):
    """How far patterns that repeat every 2 and every 4 pixels, along rows or columns, stand out: {2: ratio,
    4: ratio}.

    The ratio is the mean power about that frequency, over all frequencies across, to that of the frequencies
    beside it; of the two directions the larger. 1 is nothing: of photos at 256x256 nine in ten are below
    1.25. Threads that are plain to see have 2 and more. picture (H, W, 3), NumPy, 0..255. Raises ValueError
    for sides below 32.
    """
    arguments.shape("picture", picture, "H", "W", 3)
    if min(picture.shape[:2]) < 32:
        raise ValueError(f"picture has shape {picture.shape}; its sides should be at least 32")
    # sides that 4 divides: then 1/4 is one of the frequencies
    grey = luma(picture)[tuple(slice(side - side % 4) for side in picture.shape[:2])]
    # without a window the border would appear as a cross in the spectrum
    down, across = (np.hanning(side + 1)[:-1] for side in grey.shape)
    window = down[:, None] * across
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
    return {period: max(_peak(power.mean(axis), period) for axis in (0, 1)) for period in (2, 4)}


def _peak(line, period):
    """The mean of `line`, power by frequency, about 1 / `period`, to that of as many frequencies on both
    sides, or of twice as many below where there are none above."""
    half = max(1, len(line) // 128)  # a thread that comes and goes is a little wider than one frequency
    width, middle, line = 2 * half + 1, len(line) // period, line[: len(line) // 2 + 1]
    low, high = middle - half, middle + half + 1
    sides = [line[low - width : low], line[high : high + width]]
    if high > len(line):
        sides = [line[low - 2 * width : low]]
    tiny = 1e-6  # grey levels squared: a picture without anything has no peaks
    return float((line[low:high].mean() + tiny) / (np.concatenate(sides).mean() + tiny))


def border_lines(picture, width=32):
    """How strong lines along the border are, by their distance from it: (width,), 1 is as strong as inside.

    At distance d: the mean absolute difference of the pixels at d and at d + 1 from a side, over its whole
    length, averaged over the four sides, to the mean difference of neighbours farther than `width` from every
    side. picture (H, W, 3), NumPy, 0..255. Raises ValueError where nothing would be left inside.
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
    tiny = 1e-3  # grey levels: a picture without anything has no lines
    return (np.mean(profiles, axis=0) + tiny) / (np.mean(inside) + tiny)


def saturated(picture, edge=10.0):
    """The share of the pixels, 0..1, that are white or black within `edge` grey levels in all three channels,
    once the picture (H, W, 3) is clipped to 0..255."""
    arguments.shape("picture", picture, "H", "W", 3)
    white, black = (picture >= 255 - edge).all(axis=2), (picture <= edge).all(axis=2)
    return float((white | black).mean())
