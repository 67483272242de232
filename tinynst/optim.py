"""Optimisers: Adam, for training, and L-BFGS with a line search, for optimising an image."""

import collections
import math

import numpy as np

from .device import array_module, copy_arrays, on_gpu
from .ops.fast import parallel
from .ops.fast.cuda.optim import adam as adam_kernel


class Adam:
    """Adam, Kingma and Ba, arXiv:1412.6980, algorithm 1. Changes `parameters` {name: array} in place.

        m = b1*m + (1 - b1)*g           a running mean of the gradient
        v = b2*v + (1 - b2)*g^2         and of its square
        p -= lr * m^ / (sqrt(v^) + eps)         m^ = m / (1 - b1^t), v^ = v / (1 - b2^t)

    m^ and v^ correct for the start at zero. Each number moves by about lr, however large its gradient is.
    `rates` {name: factor} scales lr for single parameters. Raises ValueError for settings out of range.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        if not lr >= 0 or not eps > 0 or not all(0 <= beta < 1 for beta in betas):
            given = f"lr={lr}, eps={eps}, betas={betas}"
            raise ValueError(f"Adam needs lr >= 0, eps > 0 and betas in [0, 1), not {given}")
        self.parameters, self.lr, self.betas, self.eps, self.t = dict(parameters), lr, betas, eps, 0
        self.rates = {}
        flat = _flat(self.parameters)  # one vector, which the cores share in equal blocks
        self._m, self._v = (array_module(flat).zeros_like(flat) for _ in "mv")
        self.m, self.v = _parts(self._m, self.parameters), _parts(self._v, self.parameters)

    def step(self, gradients):
        """Update every parameter from {name: gradient}. Raises ValueError for other names or shapes."""
        _check_gradients(gradients, self.parameters)
        self.t += 1
        b1, b2 = self.betas
        rate, root = self.lr / (1 - b1**self.t), math.sqrt(1 - b2**self.t)
        dtypes = {array.dtype for arrays in (self.parameters, gradients) for array in arrays.values()}
        if on_gpu(self._m) and dtypes == {self._m.dtype}:
            for name, p in self.parameters.items():
                own = rate * self.rates.get(name, 1.0), root, self.eps
                adam_kernel(p, gradients[name], self.m[name], self.v[name], self.betas, *own)
            return
        flat = _flat({name: gradients[name] for name in self.parameters})
        xp = array_module(flat)

        def job(block):
            g, m, v = flat[block[1]], self._m[block[1]], self._v[block[1]]
            m *= b1
            m += (1 - b1) * g
            v *= b2
            v += (1 - b2) * (g * g)
            denominator = xp.sqrt(v)
            denominator /= root
            denominator += self.eps
            xp.divide(rate * m, denominator, out=g)

        parallel.run(job, parallel.blocks(xp, 1, flat.size, 6 * flat.itemsize))
        for name, change in _parts(flat, self.parameters).items():
            if name in self.rates:
                change *= self.rates[name]
            self.parameters[name] -= change

    def state(self):
        """What a checkpoint needs: {"m": {...}, "v": {...}} and the number of steps."""
        return {"m": self.m, "v": self.v}, self.t

    def load(self, moments, t):
        """Restore what `state` returned (NumPy will do). Raises ValueError for other names or shapes."""
        for kind, own in (("m", self.m), ("v", self.v)):
            copy_arrays(moments[kind], own)
        self.t = t


class LBFGS:
    """L-BFGS with a strong-Wolfe line search: Nocedal and Wright, Numerical Optimization (2006), algorithms
    7.4, 7.5, 3.5, 3.6.

    Newton's step divides the gradient by the matrix of second derivatives: 4e10 numbers for a 256x256 image.
    L-BFGS estimates the result from the last `memory` steps s and the changes y of the gradient along them.

        for _ in range(evaluations):
            value, gradients = objective(parameters)
            optimizer.step(gradients, value)    # moves the parameters to the next point to evaluate
        parameters = optimizer.best()           # the lowest point that was evaluated

    parameters: {name: array}, or one array, all of one dtype and device, changed in place
    first_step: how far the first step moves the number that moves most
    c1, c2: a step must lower the value by c1 of what the slope predicts and leave at most c2 of the slope
        (3.7); both are loose, so that the first length is mostly accepted: one evaluation per iteration
    longest_search: evaluations on one line, after which the best of them is taken

    When even the gradient leads no further down, `converged` is set and `step` moves nothing. Raises
    ValueError for settings out of range, for gradients with other names or shapes, and for a first value or
    gradient that is not finite; from later ones it steps back.
    """

    def __init__(self, parameters, memory=20, first_step=1.0, c1=1e-4, c2=0.9, longest_search=12):
        if not (memory >= 1 and 0 < first_step < math.inf and 0 < c1 < c2 < 1 and longest_search >= 1):
            needed = "memory >= 1, first_step > 0, 0 < c1 < c2 < 1 and longest_search >= 1"
            given = f"{memory=}, {first_step=}, {c1=}, {c2=}, {longest_search=}"
            raise ValueError(f"L-BFGS needs {needed}, not {given}")
        self.parameters, self.first_step = _named(parameters), first_step
        self.c1, self.c2, self.longest_search = c1, c2, longest_search
        self.pairs = collections.deque(maxlen=memory)  # (s, y, s.y), the newest last
        self.x = _flat(self.parameters)  # where the line starts
        self.value = self.g = self.d = None  # the lowest value, the gradient at x, the line's direction
        self.tried = []  # (length, value, slope) on this line so far; the first is its start
        self.length = 0.0  # where on the line the parameters are
        self.lowest = 0.0, None  # where on the line the value was lowest, and the gradient there
        self.evaluations, self.converged = 0, False

    def step(self, gradients, value):
        """Take the gradients and the value at the parameters; move them to the next point to evaluate."""
        g, value = _flat_gradients(_named(gradients), self.parameters), float(value)
        self.evaluations += 1
        if self.converged:
            return
        if self.d is None:
            if not math.isfinite(value + _dot(g, g)):
                need = "L-BFGS needs a finite value and gradient to start from"
                raise ValueError(f"{need}; the value is {value}")
            self.value, self.g = value, g
            self._turn()
            return
        slope = _dot(g, self.d)
        self.tried.append((self.length, value, slope))
        if value < self.value and math.isfinite(value + slope):
            self.value, self.lowest = value, (self.length, g)
        length = next_length(self.tried, self.c1, self.c2)
        if length is None or len(self.tried) > self.longest_search:
            self._accept()
        else:
            self._move(length)

    def best(self):
        """{name: array}, or the one array: a copy of the lowest point that was evaluated."""
        point = self._at(self.lowest[0])
        return point if None not in point else point[None]

    def _accept(self):
        """The lowest point on the line becomes the start of the next one."""
        length, g = self.lowest
        if length:
            x = self.x + length * self.d
            self._remember(x - self.x, g - self.g)
            self.x, self.g = x, g
        elif self.pairs:
            self.pairs.clear()  # the pairs mislead: go straight down the gradient
        else:
            self.converged = True
        self._turn()

    def _remember(self, s, y):
        sy = _dot(s, y)
        if sy > 1e-10 * math.sqrt(_dot(s, s) * _dot(y, y)):  # positive curvature along s
            self.pairs.append((s, y, sy))

    def _turn(self):
        """Start a new line from x."""
        self.d = self._direction()
        if self.pairs and not _dot(self.g, self.d) < 0:  # rounding
            self.pairs.clear()
            self.d = self._direction()
        slope, largest = _dot(self.g, self.d), float(abs(self.d).max())
        self.tried, self.lowest = [(0.0, self.value, slope)], (0.0, self.g)
        self.converged = self.converged or not (slope < 0 and math.isfinite(largest))
        self._move(0.0 if self.converged else 1.0 if self.pairs else self.first_step / largest)

    def _direction(self):
        """-H g, where H estimates the inverse of the second derivatives: algorithm 7.4, the two loops."""
        q, factors = self.g.copy(), []
        for s, y, sy in reversed(self.pairs):
            factors.append(_dot(s, q) / sy)
            q -= factors[-1] * y
        if self.pairs:
            _, y, sy = self.pairs[-1]
            q *= sy / _dot(y, y)  # (7.20): the newest pair's scale, so that length 1 fits
        for (s, y, sy), factor in zip(self.pairs, reversed(factors), strict=True):
            q += (factor - _dot(y, q) / sy) * s
        return -q

    def _move(self, length):
        """Put the parameters `length` down the line."""
        self.length = length
        for name, array in self._at(length).items():
            self.parameters[name][...] = array

    def _at(self, length):
        """{name: array} of the point `length` down the line."""
        point = self.x + length * self.d if length else self.x.copy()
        return _parts(point, self.parameters)

    def state(self):
        """What a checkpoint needs: ({group: {name: array}}, numbers that JSON can hold)."""
        line = {"x": self.x, "g": self.g, "d": self.d, "lowest_g": self.lowest[1]}
        arrays = {"line": {name: array for name, array in line.items() if array is not None}}
        for k, group in enumerate("sy"):
            arrays[group] = {str(age): pair[k] for age, pair in enumerate(self.pairs)}
        names = ("value", "tried", "length", "evaluations", "converged")
        return arrays, {name: getattr(self, name) for name in names} | {"lowest": self.lowest[0]}

    def load(self, arrays, numbers):
        """Restore what `state` returned, also after a trip through NumPy and JSON, and the parameters' values
        with it: the run continues bit for bit. Raises ValueError unless the parameters have as many
        numbers."""

        def own(array):
            if array.shape != self.x.shape:
                saved = f"the optimiser was saved for {array.size} numbers"
                raise ValueError(f"{saved}, the parameters hold {self.x.size}")
            return array_module(self.x).asarray(array.astype(self.x.dtype))

        line, s, y = ({name: own(a) for name, a in arrays[group].items()} for group in ("line", "s", "y"))
        self.x, self.g, self.d = line["x"], line.get("g"), line.get("d")
        self.lowest = numbers["lowest"], line.get("lowest_g")
        self.pairs.clear()
        for k in range(len(s)):
            self._remember(s[str(k)], y[str(k)])
        self.value, self.tried = numbers["value"], [tuple(point) for point in numbers["tried"]]
        self.evaluations, self.converged = numbers["evaluations"], numbers["converged"]
        self._move(numbers["length"])


def next_length(tried, c1=1e-4, c2=0.9):
    """The next length to try, None to accept the last: strong Wolfe conditions (3.7), algorithms 3.5 and 3.6.

    tried: [(length, value, slope), ...] in the order of evaluation, from the start (0.0, value, slope) on.
    Between `low`, the lowest point that fulfils the first condition, and `high`, on the other side of a
    minimum, there is a point that fulfils both. A value or slope that is not finite counts as high.
    """
    (_, start_value, start_slope), *looked = tried
    before, low, high = tried[0], tried[0], None
    for point in looked:
        length, value, slope = point
        enough = value <= start_value + c1 * length * start_slope and value < low[1] and math.isfinite(slope)
        if not enough:
            high = point
            continue
        if abs(slope) <= -c2 * start_slope:
            return None
        if slope * ((high[0] if high else math.inf) - low[0]) >= 0:  # the minimum lies back towards low
            high = low
        before, low = low, point
    if not looked:
        return 1.0
    if high is None:  # still going down: two to ten times as far
        length = _valley(before, low)
        return min(max(length, 2 * low[0]), 10 * low[0]) if length > low[0] else 10 * low[0]
    width = high[0] - low[0]
    if not math.isfinite(high[1] + high[2]):
        return low[0] + 0.1 * width
    share = (_valley(low, high) - low[0]) / width
    return low[0] + width * min(max(share, 0.1), 0.9)


def _valley(a, b):
    """The minimum of the cubic through two points (length, value, slope), (3.59); NaN if it has none."""
    rise = a[2] + b[2] - 3 * (a[1] - b[1]) / (a[0] - b[0])
    square = rise * rise - a[2] * b[2]
    if not square >= 0:
        return math.nan
    root = math.copysign(math.sqrt(square), b[0] - a[0])
    bottom = b[2] - a[2] + 2 * root
    return b[0] - (b[0] - a[0]) * (b[2] + root - rise) / bottom if bottom else math.nan


def _named(arrays):
    """A dict of arrays, also of a single array."""
    return arrays if isinstance(arrays, dict) else {None: arrays}


def _flat(arrays):
    """The numbers of a dict of arrays in one vector, a copy."""
    xp = array_module(*arrays.values())
    return xp.concatenate([array.ravel() for array in arrays.values()])


def _flat_gradients(gradients, parameters):
    """The gradients in one vector, in the parameters' order."""
    _check_gradients(gradients, parameters)
    return _flat({name: gradients[name] for name in parameters})


def _check_gradients(gradients, parameters):
    """Raise ValueError unless both have the same names and shapes."""
    if odd := sorted(gradients.keys() ^ parameters.keys()):
        needed = "gradients and parameters should have the same names"
        raise ValueError(f"{needed}; {odd[0]!r} is only in one of the two")
    for name, p in parameters.items():
        shape = gradients[name].shape
        if shape != p.shape:
            raise ValueError(f"the gradient of {name} has shape {shape}, the parameter {p.shape}")


def _parts(flat, arrays):
    """The inverse of `_flat`: {name: array in its shape}, views of the vector."""
    ends = np.cumsum([array.size for array in arrays.values()]).tolist()
    places = zip(arrays.items(), ends, strict=True)
    return {name: flat[end - a.size : end].reshape(a.shape) for (name, a), end in places}


def _dot(a, b):
    """The dot product, summed in float64 because an image has hundreds of thousands of terms."""
    xp = array_module(a, b)
    return float(xp.dot(a.astype(np.float64), b.astype(np.float64)))
