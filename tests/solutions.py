"""The exercises solved as a learner would, plainly: what the grader must pass, and where bugs are planted."""

RELU = """
import numpy as np

def relu(x):
    return np.maximum(x, 0), x

def relu_backward(dy, x):
    return dy * (x > 0)
"""

TANH = """
import numpy as np

def scaled_tanh(x, scale=150.0):
    t = np.tanh(x)
    return scale * t, (x, t, scale)

def scaled_tanh_backward(dy, cache):
    x, t, scale = cache
    return dy * scale * (1 - t**2)
"""

FEATURE = """
def feature_loss(f, target):
    d = f - target
    df = 2 * d / f.size
    return (d**2).sum() / f.size, df
"""

TV = """
import numpy as np

def tv_loss(y):
    down, across, n = y[:, 1:] - y[:, :-1], y[:, :, 1:] - y[:, :, :-1], len(y)
    dy = np.zeros_like(y)
    dy[:, 1:] += down
    dy[:, :-1] -= down
    dy[:, :, 1:] += across
    dy[:, :, :-1] -= across
    return 0.5 * ((down**2).sum() + (across**2).sum()) / n, dy / n
"""

GRAM = """
def gram_matrix(f):
    n, h, w, c = f.shape
    p = f.reshape(n, h * w, c)
    return p.transpose(0, 2, 1) @ p / (c * h * w), (f.shape, p)

def gram_matrix_backward(dgram, cache):
    (n, h, w, c), p = cache
    df = p @ (dgram + dgram.transpose(0, 2, 1)) / (c * h * w)
    return df.reshape(n, h, w, c)
"""

STYLE = """
def style_loss(f, target_gram):
    n, h, w, c = f.shape
    p = f.reshape(n, h * w, c)
    gram = p.transpose(0, 2, 1) @ p / (c * h * w)
    d = gram - target_gram
    df = 2 * p @ (2 * d) / (c * h * w) / n
    return (d**2).sum() / n, df.reshape(f.shape)
"""

PAD = """
import numpy as np

def reflect_pad2d(x, pad):
    rows, columns = (np.pad(np.arange(size), pad, "reflect") for size in x.shape[1:3])
    return x[:, rows][:, :, columns], (x.shape, rows, columns)

def reflect_pad2d_backward(dy, cache):
    (n, h, w, c), rows, columns = cache
    tall, dx = np.zeros_like(dy[:, :h]), np.zeros_like(dy[:, :h, :w])
    for i, row in enumerate(rows):
        tall[:, row] += dy[:, i]
    for j, column in enumerate(columns):
        dx[:, :, column] += tall[:, :, j]
    return dx
"""

CROP = """
import numpy as np

def center_crop(x, crop):
    return x[:, crop : x.shape[1] - crop, crop : x.shape[2] - crop], (x, crop)

def center_crop_backward(dy, cache):
    x, crop = cache
    dx, top, left = np.zeros_like(x), crop, crop
    dx[:, top : top + dy.shape[1], left : left + dy.shape[2]] = dy
    return dx
"""

UPSAMPLE = """
def upsample_nearest(x, scale=2):
    return x.repeat(scale, 1).repeat(scale, 2), (x.shape, scale)

def upsample_nearest_backward(dy, cache):
    (n, h, w, c), s = cache
    return dy.reshape(n, h, s, w, s, c).sum(axis=(2, 4))
"""

POOL = """
import numpy as np

def max_pool2d(x, size=2):
    n, h, w, c = x.shape
    a, b = h // size, w // size
    squares = x[:, : a * size, : b * size].reshape(n, a, size, b, size, c).transpose(0, 1, 3, 5, 2, 4)
    squares = squares.reshape(n, a, b, c, -1)
    return squares.max(axis=-1), (x.shape, squares, size)

def max_pool2d_backward(dy, cache):
    (n, h, w, c), squares, size = cache
    a, b = dy.shape[1:3]
    mask = np.arange(size * size) == squares.argmax(axis=-1)[..., None]
    spread = (mask * dy[..., None]).reshape(n, a, b, c, size, size).transpose(0, 1, 4, 2, 5, 3)
    dx = np.zeros((n, h, w, c), dy.dtype)
    dx[:, : a * size, : b * size] = spread.reshape(n, a * size, b * size, c)
    return dx
"""

CONV = """
import numpy as np

def conv2d(x, w, b=None, stride=1, pad=0):
    (n, h, v, c), (kh, kw, _, o) = x.shape, w.shape
    xp = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    oh, ow = (h + 2 * pad - kh) // stride + 1, (v + 2 * pad - kw) // stride + 1
    y = np.zeros((n, oh, ow, o), x.dtype) + (0 if b is None else b)
    for i in range(kh):
        for j in range(kw):
            y += xp[:, i : i + stride * oh : stride, j : j + stride * ow : stride][:, :oh, :ow] @ w[i, j]
    return y, (x, xp, w, b, stride, pad)

def conv2d_backward(dy, cache):
    x, xp, w, b, stride, pad = cache
    (n, oh, ow, o), (kh, kw) = dy.shape, w.shape[:2]
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            at = np.s_[:, i : i + stride * oh : stride, j : j + stride * ow : stride]
            dxp[at] += dy @ w[i, j].T
            dw[i, j] = np.tensordot(xp[at], dy, ((0, 1, 2), (0, 1, 2)))
    dx = dxp[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]
    db = None if b is None else dy.sum(axis=(0, 1, 2))
    return dx, dw, db
"""

TRANSPOSE = """
import numpy as np

def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    (n, h, v, _), (kh, kw, c, _) = x.shape, w.shape
    large = np.zeros((n, (h - 1) * stride + kh + output_pad, (v - 1) * stride + kw + output_pad, c), x.dtype)
    for i in range(kh):
        for j in range(kw):
            large[:, i : i + h * stride : stride, j : j + v * stride : stride][:, :h, :v] += x @ w[i, j].T
    y = large[:, pad : large.shape[1] - pad, pad : large.shape[2] - pad]
    return y + (0 if b is None else b), (x, w, b, stride, pad, large.shape)

def conv_transpose2d_backward(dy, cache):
    x, w, b, stride, pad, shape = cache
    (n, h, v, _), (kh, kw) = x.shape, w.shape[:2]
    large = np.zeros(shape, dy.dtype)
    large[:, pad : shape[1] - pad, pad : shape[2] - pad] = dy
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            seen = large[:, i : i + h * stride : stride, j : j + v * stride : stride][:, :h, :v]
            dx += seen @ w[i, j]
            dw[i, j] = np.tensordot(seen, x, ((0, 1, 2), (0, 1, 2)))
    db = None if b is None else dy.sum(axis=(0, 1, 2))
    return dx, dw, db
"""

INSTANCE_NORM = """
import numpy as np

AXES = (1, 2)

def instance_norm(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(axis=AXES, keepdims=True), x.var(axis=AXES, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    return gamma * xhat + beta, (x, xhat, std, gamma)

def instance_norm_backward(dy, cache):
    x, xhat, std, gamma = cache
    mean_term = dy.mean(axis=AXES, keepdims=True)
    std_term = xhat * (dy * xhat).mean(axis=AXES, keepdims=True)
    dx = gamma / std * (dy - mean_term - std_term)
    dgamma, dbeta = (dy * xhat).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))
    return dx, dgamma, dbeta
"""

BATCH_NORM = """
import numpy as np

AXES = (0, 1, 2)

def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    mean, var = running_mean.copy(), running_var.copy()
    if training:
        mean, var = x.mean(axis=AXES), x.var(axis=AXES)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (x.var(axis=AXES, ddof=1) - running_var)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    return gamma * xhat + beta, (xhat, std, gamma, training, running_mean, running_var)

def batch_norm_backward(dy, cache):
    xhat, std, gamma, training, running_mean, running_var = cache
    dx = gamma / std * dy
    if training:
        dx = gamma / std * (dy - dy.mean(axis=AXES) - xhat * (dy * xhat).mean(axis=AXES))
    dgamma, dbeta = (dy * xhat).sum(axis=AXES), dy.sum(axis=AXES)
    return dx, dgamma, dbeta
"""

RESIDUAL = """
class Residual:
    def __init__(self, layers, crop=0):
        self.layers, self.crop = layers, crop

    def inner(self, x):
        c = self.crop
        return x[:, c : x.shape[1] - c, c : x.shape[2] - c]

    def forward(self, x, training=False):
        y = x
        for layer in self.layers.values():
            y = layer.forward(y, training)
        return y + self.inner(x)

    def backward(self, dy):
        dx = dy
        for layer in reversed(self.layers.values()):
            dx = layer.backward(dx)
        self.inner(dx)[...] += dy
        return dx
"""

ADAM = """
import numpy as np

class Adam:
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.parameters, self.lr, self.betas, self.eps, self.t = parameters, lr, betas, eps, 0
        self.m = {name: np.zeros_like(p) for name, p in parameters.items()}
        self.v = {name: np.zeros_like(p) for name, p in parameters.items()}

    def step(self, gradients):
        self.t += 1
        b1, b2 = self.betas
        for name, p in self.parameters.items():
            g, t = gradients[name], self.t
            self.m[name] = b1 * self.m[name] + (1 - b1) * g
            self.v[name] = b2 * self.v[name] + (1 - b2) * g**2
            m, v = self.m[name] / (1 - b1**t), self.v[name] / (1 - b2**t)
            p -= self.lr * m / (np.sqrt(v) + self.eps)
"""

BLOCK = """
import numpy as np

def block(x, w, u):
    hidden = np.maximum(x @ w, 0)
    return hidden @ u + x, (x, w, u, hidden)

def block_backward(dy, cache):
    x, w, u, hidden = cache
    du = np.tensordot(hidden, dy, ((0, 1, 2), (0, 1, 2)))
    dhidden = (dy @ u.T) * (hidden > 0)
    dw = np.tensordot(x, dhidden, ((0, 1, 2), (0, 1, 2)))
    dx = dhidden @ w.T + dy
    return dx, dw, du
"""

SOLUTIONS = {
    "relu": RELU,
    "tanh": TANH,
    "feature_loss": FEATURE,
    "tv_loss": TV,
    "gram": GRAM,
    "style_loss": STYLE,
    "reflect_pad": PAD,
    "max_pool": POOL,
    "conv": CONV,
    "conv_transpose": TRANSPOSE,
    "instance_norm": INSTANCE_NORM,
    "batch_norm": BATCH_NORM,
    "residual": RESIDUAL,
    "adam": ADAM,
}


def changed(text, *edits):
    """`text` with each old text replaced by the new; the old text must be there."""
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in text, f"{old!r} is not in the solution"
        text = text.replace(old, new)
    return text
