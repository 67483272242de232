"""Optimisers: they turn gradients into steps."""

import math

from .device import array_module, copy_arrays


class Adam:
    """Adam, Kingma and Ba, arXiv:1412.6980, algorithm 1. `parameters`: {name: array}, updated in place by `step`.

        m = b1*m + (1 - b1)*g           a running mean of the gradient
        v = b2*v + (1 - b2)*g^2         and of its square
        p -= lr * m^ / (sqrt(v^) + eps)         m^ = m / (1 - b1^t), v^ = v / (1 - b2^t): they started at zero

    Each number moves by about lr, however large its gradient is.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        if not lr >= 0 or not eps > 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam needs lr >= 0, eps > 0 and betas in [0, 1), not lr={lr}, eps={eps}, betas={betas}")
        self.parameters, self.lr, self.betas, self.eps, self.t = dict(parameters), lr, betas, eps, 0
        zeros = {name: array_module(p).zeros_like for name, p in self.parameters.items()}
        self.m = {name: zeros[name](p) for name, p in self.parameters.items()}
        self.v = {name: zeros[name](p) for name, p in self.parameters.items()}

    def step(self, gradients):
        """Move every parameter by its gradient, {name: array} with the parameters' names. Raises ValueError for others."""
        if gradients.keys() != self.parameters.keys():
            odd = sorted(gradients.keys() ^ self.parameters.keys())
            raise ValueError(f"gradients and parameters should have the same names; {odd[0]!r} is only in one of the two")
        for name, p in self.parameters.items():
            if gradients[name].shape != p.shape:
                raise ValueError(f"the gradient of {name} has shape {gradients[name].shape}, the parameter {p.shape}")
        self.t += 1
        b1, b2 = self.betas
        rate, root = self.lr / (1 - b1**self.t), math.sqrt(1 - b2**self.t)
        for name, p in self.parameters.items():
            xp, g, m, v = array_module(p, gradients[name]), gradients[name], self.m[name], self.v[name]
            m *= b1
            m += (1 - b1) * g
            v *= b2
            v += (1 - b2) * (g * g)
            denominator = xp.sqrt(v)
            denominator /= root
            denominator += self.eps
            p -= rate * m / denominator

    def state(self):
        """What a checkpoint needs beside the parameters: {"m": {...}, "v": {...}} and the count of steps."""
        return {"m": self.m, "v": self.v}, self.t

    def load(self, moments, t):
        """Take back what `state` gave (NumPy arrays will do). Raises ValueError unless names and shapes are the same."""
        for kind, own in (("m", self.m), ("v", self.v)):
            copy_arrays(moments[kind], own)
        self.t = t
