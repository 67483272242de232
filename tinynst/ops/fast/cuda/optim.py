"""Adam on a GPU: adam.cu."""

from ....device import array_module
from .launch import launch


def adam(p, g, m, v, betas, rate, root, eps):
    """Update a parameter p and its moments m and v in place, from its gradient g. One launch per parameter
    needs no copies of the gradients, and no array of changes."""
    xp, (b1, b2) = array_module(p, g, m, v), betas
    own = xp.ascontiguousarray(p)
    numbers = map(float, (b1, 1 - b1, b2, 1 - b2, rate, root, eps))
    launch("adam.cu", "adam", (-(-p.size // 256),), (own, xp.ascontiguousarray(g), m, v, p.size, *numbers))
    if own is not p:
        p[...] = own
