"""Low-resolution images made from high ones: what a super-resolution net learns from and is measured on."""

import numpy as np
from PIL import Image

DEGRADATIONS = ("bicubic", "paper")
SIGMA = 1.0  # the paper's Gaussian, in pixels of the high-resolution image


def cut(image, factor):
    """`image` (H, W, ...) without the last rows and columns that `factor` does not divide, as in the standard
    tests. Raises ValueError if nothing would be left."""
    height, width = (size - size % factor for size in image.shape[:2])
    if not height or not width:
        raise ValueError(f"{image.shape[1]}x{image.shape[0]} is too small to be shrunk by {factor}")
    return image[:height, :width]


def shrink(image, factor, degradation="bicubic"):
    """`image` (H, W, 3), 0..255, shrunk to (H/factor, W/factor, 3) uint8, as a camera or a file holds it.

    degradation: "bicubic": antialiased, on 8-bit RGB, as the standard test sets are made
                 "paper": a Gaussian of sigma 1.0 first, as the paper trained and tested

    Raises ValueError for another degradation and for a size that `factor` does not divide.
    """
    if degradation not in DEGRADATIONS:
        raise ValueError(f"degradation is {degradation!r}; choose from {', '.join(DEGRADATIONS)}")
    height, width = image.shape[:2]
    if height % factor or width % factor or not height or not width:
        raise ValueError(f"{width}x{height} cannot be shrunk by {factor}: use cut(image, {factor})")
    if degradation == "paper":
        image = blur(image, SIGMA)
    picture = Image.fromarray(np.rint(image).clip(0, 255).astype(np.uint8))
    return np.asarray(picture.resize((width // factor, height // factor), Image.Resampling.BICUBIC))


def blur(image, sigma):
    """`image` (H, W, C) under a Gaussian of `sigma` pixels (cut at 4 sigma, edges repeated): float32."""
    reach = int(np.ceil(4 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        around = [(reach, reach) if k == axis else (0, 0) for k in range(image.ndim)]
        padded = np.pad(np.asarray(image, np.float32), around, mode="edge")
        image = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis) @ weights
    return image
