"""Gram matrices on a GPU: gram.cu."""

from ... import arguments
from .launch import launch

TILE = {"COLS": 64, "PER_ROWS": 4, "PER_COLS": 4}  # of product.cuh: 64 x 64 numbers
BLOCKS = 512  # enough for every multiprocessor of a large GPU
LEAST_PIXELS, MOST_PIXELS = 256, 2048  # of a part; a longer sum in float32 would drift


def gram_matrix(f):
    xp = arguments.floating(f=f)
    arguments.shape("f", f, "N", "H", "W", "C")
    n, h, w, c = f.shape
    f, pixels, tiles = xp.ascontiguousarray(f), h * w, -(-c // TILE["COLS"])
    tiles = tiles * (tiles + 1) // 2
    parts = max(-(-pixels // MOST_PIXELS), min(BLOCKS // (n * tiles), -(-pixels // LEAST_PIXELS)))
    per_block = -(-pixels // parts)
    parts = -(-pixels // per_block)
    sums, gram = xp.empty((n, parts, c, c), f.dtype), xp.empty((n, c, c), f.dtype)
    launch("gram.cu", "gram_parts", (tiles, parts, n), (f, sums, pixels, c, per_block), **TILE)
    launch("gram.cu", "gram_sum", (-(-c * c // 256), n), (sums, gram, c, parts, 1 / (c * pixels)), **TILE)
    return gram, f


def gram_matrix_backward(dgram, cache):
    """One product of (H*W, C) and (C, C) for each image: large and plain, so cuBLAS does it well."""
    f = cache
    xp = arguments.floating(f=f, dgram=dgram)
    n, h, w, c = f.shape
    arguments.shape("dgram", dgram, n, c, c)
    both = (dgram + dgram.transpose(0, 2, 1)) / (c * h * w)
    return (xp.matmul(f.reshape(n, h * w, c), both).reshape(f.shape),)
