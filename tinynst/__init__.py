"""Perceptual losses for real-time style transfer and super-resolution, from scratch in NumPy and CuPy."""

__version__ = "0.1.0"
