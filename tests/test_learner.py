"""A learner's file is graded forward first, one mistake at a time; each is named, and nothing that they write crashes us."""

import numpy as np
import pytest

from tinynst.errors import UserError
from tinynst.gradcheck import forwards, main
from tinynst.gradcheck.grading import EASIEST_FIRST
from tinynst.gradcheck.learner import check_file, grades
from tinynst.optim import Adam

RELU = """
import numpy as np

def relu(x):
    return np.maximum(x, 0), x

def relu_backward(dy, x):
    return (dy * (x > 0),)
"""
CONV = """
import numpy as np
from tinynst.ops import upsample_nearest, upsample_nearest_backward  # only used, not checked

def conv2d(x, w, b=None, stride=1, pad=0):
    n, h, v, c = x.shape
    kh, kw, _, o = w.shape
    xp = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    oh, ow = (h + 2 * pad - kh) // stride + 1, (v + 2 * pad - kw) // stride + 1
    y = np.zeros((n, oh, ow, o)) + (0 if b is None else b)
    for i in range(kh):
        for j in range(kw):
            y += xp[:, i : i + stride * oh : stride, j : j + stride * ow : stride][:, :oh, :ow] @ w[i, j]
    return y, (x, xp, w, b, stride, pad)

def conv2d_backward(dy, cache):
    x, xp, w, b, stride, pad = cache
    oh, ow = dy.shape[1:3]
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            at = np.s_[:, i : i + stride * oh : stride, j : j + stride * ow : stride]
            dxp[at] += dy @ w[i, j].T
            dw[i, j] = np.tensordot(xp[at], dy, ((0, 1, 2), (0, 1, 2)))
    dx = dxp[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]
    return dx, dw, None if b is None else dy.sum(axis=(0, 1, 2))
"""
INSTANCE_NORM = """
import numpy as np

def instance_norm(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(axis=(1, 2), keepdims=True), x.var(axis=(1, 2), keepdims=True)
    xhat = (x - mean) / np.sqrt(var + eps)
    return gamma * xhat + beta, (xhat, np.sqrt(var + eps), gamma)

def instance_norm_backward(dy, cache):
    xhat, std, gamma = cache
    mean_term, xhat_term = dy.mean(axis=(1, 2), keepdims=True), xhat * (dy * xhat).mean(axis=(1, 2), keepdims=True)
    return gamma / std * (dy - mean_term - xhat_term), (dy * xhat).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))
"""
BATCH_NORM = """
import numpy as np

def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    mean, var = running_mean.copy(), running_var.copy()
    if training:
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (x.var(axis=(0, 1, 2), ddof=1) - running_var)
    xhat = (x - mean) / np.sqrt(var + eps)
    return gamma * xhat + beta, (xhat, np.sqrt(var + eps), gamma, training)

def batch_norm_backward(dy, cache):
    xhat, std, gamma, training = cache
    axes = (0, 1, 2)
    dx = dy - dy.mean(axis=axes) - xhat * (dy * xhat).mean(axis=axes) if training else dy
    return gamma / std * dx, (dy * xhat).sum(axis=axes), dy.sum(axis=axes)
"""
POOL = """
import numpy as np

def max_pool2d(x, size=2):
    n, h, w, c = x.shape
    a, b = h // size, w // size
    squares = x[:, : a * size, : b * size].reshape(n, a, size, b, size, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, a, b, c, -1)
    return squares.max(axis=-1), (x.shape, squares, size)

def max_pool2d_backward(dy, cache):
    (n, h, w, c), squares, size = cache
    a, b = dy.shape[1:3]
    mask = np.arange(size * size) == squares.argmax(axis=-1)[..., None]
    spread = (mask * dy[..., None]).reshape(n, a, b, c, size, size).transpose(0, 1, 4, 2, 5, 3)
    dx = np.zeros((n, h, w, c))
    dx[:, : a * size, : b * size] = spread.reshape(n, a * size, b * size, c)
    return dx
"""
PAD = """
import numpy as np

def reflect_pad2d(x, pad):
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), "reflect"), None

def reflect_pad2d_backward(dy, cache):
    raise NotImplementedError
"""
GRAM = """
def gram_matrix(f):
    n, h, w, c = f.shape
    pixels = f.reshape(n, h * w, c)
    return pixels.transpose(0, 2, 1) @ pixels / (c * h * w), f

def gram_matrix_backward(dgram, f):
    n, h, w, c = f.shape
    return (f.reshape(n, h * w, c) @ (dgram + dgram.transpose(0, 2, 1)) / (c * h * w)).reshape(f.shape)
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
RESIDUAL = """
class Residual:
    def __init__(self, layers, crop=0):
        self.layers, self.crop = layers, crop

    def inner(self, x):
        c = self.crop
        return x[:, c : x.shape[1] - c, c : x.shape[2] - c]

    def forward(self, x, training):
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


def learner(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def graded(tmp_path, text):
    """The one grade of a file."""
    (grade,) = grades(learner(tmp_path, text))
    return grade


def changed(text, old, new):
    assert old in text, f"{old!r} is not in the right solution"
    return text.replace(old, new)


# --- what is right passes -------------------------------------------------------------------------------------------


def test_a_learners_right_file_passes(tmp_path, capsys):
    assert main([learner(tmp_path, RELU + CONV)]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(names) == {"relu", "conv2d"} and names.count("conv2d") == 6


@pytest.mark.parametrize(
    "text",
    [TV, GRAM, POOL, INSTANCE_NORM, BATCH_NORM, RESIDUAL, ADAM],
    ids=lambda text: text.split("(")[0][-15:],
)
def test_right_solutions_pass(tmp_path, text):
    grade = graded(tmp_path, text)
    assert grade.passed is True, grade.text
    assert {line.split()[1] for line in grade.text.splitlines()} == {"ok"}


def test_learners_files_are_graded_where_the_arrays_live(tmp_path, xp):
    text = (
        GRAM
        + "\n\ndef relu(x):\n    return x * (x > 0), x > 0\n\n\ndef relu_backward(dy, mask):\n    return dy * mask\n"
    )
    assert check_file(learner(tmp_path, text), xp=xp)


# --- the forward ----------------------------------------------------------------------------------------------------

FORWARDS = [  # right solution, what is changed, into what, what is said
    (RELU, "maximum(x, 0)", "minimum(x, 0)", "min(x, 0)"),
    (RELU, "maximum(x, 0)", "maximum(x, 0.25)", "FAIL: y[0, 0, "),
    (
        RELU,
        "np.maximum(x, 0), x",
        "np.maximum(x, 0)[0], x",
        "FAIL: y has shape (5, 7, 3), it should be (2, 5, 7, 3)",
    ),
    (
        RELU,
        "np.maximum(x, 0), x",
        "np.maximum(x, 0).transpose(0, 3, 1, 2), x",
        "the sizes are right but not their order",
    ),
    (RELU, "np.maximum(x, 0), x", "0 * x, x", "it is zero everywhere"),
    (RELU, "np.maximum(x, 0), x", "np.maximum(x, 0) / 0, x", "inf or nan: look for"),
    (RELU, "np.maximum(x, 0), x", "np.maximum(x, 0) + 0.5, x", "every element is 0.5 too large"),
    (RELU, "np.maximum(x, 0), x", "np.maximum(x, 0)[:, ::-1], x", "it runs backwards along H"),
    (RELU, "np.maximum(x, 0), x", "np.roll(np.maximum(x, 0), 1, axis=2), x", "shifted by one pixel along W"),
    (
        RELU,
        "np.maximum(x, 0), x",
        "np.maximum(x, np.array([0, -9])[:, None, None, None]), x",
        "right in image 0, wrong in image 1",
    ),
    (
        RELU,
        "np.maximum(x, 0), x",
        "np.maximum(x, np.array([0, -9, 0])), x",
        "right in channel 0, 2, wrong in channel 1",
    ),
    (
        RELU,
        "np.maximum(x, 0), x",
        "np.pad(np.maximum(x, 0)[:, 1:-1, 1:-1], [(0, 0), (1, 1), (1, 1), (0, 0)]), x",
        "within 1 of the border",
    ),
    (RELU, "np.maximum(x, 0), x", "np.maximum(x, 0).astype(np.float32), x", "float32's digits"),
    (CONV, "@ w[i, j]\n", "@ w[-1 - i, -1 - j]\n", "turned by 180 degrees"),
    (CONV, " + (0 if b is None else b)", "", "comes out without b"),
    (
        CONV,
        " + (0 if b is None else b)",
        " + (0 if b is None else b**2)",
        "every channel is off by a number of its own",
    ),
    (CONV, "- kh) // stride + 1", "- kh) // stride", "axis 1: 2 instead of 3"),
    (INSTANCE_NORM, "(1, 2)", "(0, 1, 2)", "that is batch norm"),
    (INSTANCE_NORM, "gamma * xhat + beta", "xhat + beta", "without gamma"),
    (INSTANCE_NORM, "/ np.sqrt(var + eps)", "/ (np.sqrt(var) + eps)", "after the root"),
    (INSTANCE_NORM, "keepdims=True)\n    xhat", "keepdims=True, ddof=1)\n    xhat", "the count - 1"),
    (
        BATCH_NORM,
        "(x - mean) / np.sqrt(var + eps)",
        "(x - running_mean) / np.sqrt(var + eps)",
        "FAIL: y[0, 0, ",
    ),
    (BATCH_NORM, "if training:", "if True:", "with training=False the running ones count"),
    (BATCH_NORM, ", ddof=1", "", "running_var after the forward[0] is"),
    (BATCH_NORM, ", ddof=1", "", "the variance divided by N*H*W;"),
    (
        BATCH_NORM,
        "running_mean += momentum * (mean - running_mean)",
        "running_mean = 0.9 * running_mean + 0.1 * mean",
        "stays as it was",
    ),
    (BATCH_NORM, "momentum * (mean - running_mean)", "momentum * mean", "all of the old"),
    (PAD, '"reflect"', '"symmetric"', "'symmetric'"),
    (PAD, '"reflect"', '"edge"', "'edge'"),
    (GRAM, "pixels / (c * h * w)", "pixels / (h * w)", "3 times what it should be; 3 is C"),
    (TV, "0.5 * ", "", "it is 2 times what it should be; 2 is 2"),
    (TV, " + (across**2).sum()", "", "differences down only"),
    (RESIDUAL, "return y + self.inner(x)", "return y", "without the identity"),
    (
        RESIDUAL,
        "return y + self.inner(x)",
        "return y + x[:, : y.shape[1], : y.shape[2]]",
        "cropped at the bottom and right only",
    ),
]


@pytest.mark.parametrize(("right", "old", "new", "said"), FORWARDS, ids=[said for *_, said in FORWARDS])
def test_a_wrong_forward_is_explained_before_any_gradient(tmp_path, right, old, new, said):
    grade = graded(tmp_path, changed(right, old, new))
    assert grade.passed is False and grade.report is None
    assert said in " ".join(grade.text.split()) and ": FAIL: " in grade.text.splitlines()[0]
    assert len(grade.text.splitlines()) <= 14


def test_the_forward_is_checked_in_every_case_before_the_gradients(tmp_path):
    text = changed(
        changed(CONV, "xp = np.pad(x, ((0, 0), (pad, pad)", "xp = np.pad(x, ((0, 0), (0, 2 * pad)"),
        "dw[i, j] =",
        "dw[i, j] = 2 *",
    )
    grade = graded(tmp_path, text)  # wrong where there is padding; dw is wrong everywhere
    assert grade.report is None and "pad=1): FAIL: y[" in grade.text


def test_a_map_shows_where_a_forward_is_wrong(tmp_path):
    grade = graded(
        tmp_path,
        changed(RELU, "return np.maximum(x, 0), x", "y = np.maximum(x, 0); y[:, 2, 4] += 1; return y, x"),
    )
    rows = [line.strip() for line in grade.text.splitlines()[-5:]]
    assert rows == [*2 * ["· · · · · · ·"], "· · · · ██· ·", *2 * ["· · · · · · ·"]]


def test_explanations_are_not_given_where_none_fits():
    rng = np.random.default_rng(0)
    right, noise = rng.standard_normal((2, 5, 7, 3)), rng.standard_normal((2, 5, 7, 3))
    assert forwards.fault("y", right + 1e-12 * noise, right) == []
    first, heading, *rows = forwards.fault("y", right + noise, right)
    assert first.endswith(f"it should be {right[0, 0, 0, 0]:.9g}; 210 of 210 elements differ")
    assert heading.startswith("largest |yours - right| of a pixel, H down, W across") and len(rows) == 5
    assert forwards.fault("value", np.array(3.7), np.array(2.0)) == ["value is 3.7, it should be 2"]


# --- the gradients --------------------------------------------------------------------------------------------------

BACKWARDS = [  # right solution, what is changed, into what, cause and gradient of the first diagnosis
    (RELU, "(x > 0)", "(x > -9)", "wrong-mask", "dx"),
    (RELU, "(x > 0)", "(x >= 0)", "wrong-mask", "dx"),
    (
        POOL,
        "np.arange(size * size) == squares.argmax(axis=-1)[..., None]",
        "squares == squares.max(axis=-1)[..., None]",
        "wrong-mask",
        "dx",
    ),
    (CONV, "xp[at], dy, (", "xp[at][:1], dy[:1], (", "partial-batch", "dw"),
    (CONV, "dxp[at] += dy", "dxp[at] = dy", "overwritten", "dx"),
    (CONV, "dy @ w[i, j].T", "dy @ w[-1 - i, -1 - j].T", "flipped", "dx"),
    (CONV, "else dy.sum", "else dy.mean", "scaled", "db"),
    (INSTANCE_NORM, " - mean_term", "", "missing-term", "dx"),
    (
        INSTANCE_NORM,
        "(dy * xhat).sum(axis=(0, 1, 2))",
        "(dy * xhat).sum(axis=(1, 2))",
        "wrong-shape",
        "dgamma",
    ),
    (TV, "dy / n", "2 * dy / n", "scaled", "dy"),
    (RESIDUAL, "self.inner(dx)[...] += dy", "pass", "missing-term", "dx"),
    (RESIDUAL, "for layer in reversed(self.layers.values()):", "for layer in []:", "zero", "dconv1.w"),
]


@pytest.mark.parametrize(("right", "old", "new", "cause", "gradient"), BACKWARDS)
def test_a_wrong_gradient_is_named_and_shown_alone(tmp_path, right, old, new, cause, gradient):
    grade = graded(tmp_path, changed(right, old, new))
    assert grade.passed is False
    found = [(d.cause, d.gradient) for d in grade.report.diagnoses]
    assert (cause, gradient) in found
    first = grade.report.diagnoses[0]
    assert first.cause in grade.text and first.hint.split()[0] in grade.text
    assert "right: the forward" in grade.text


def test_several_mistakes_come_one_at_a_time(tmp_path):
    text = changed(changed(CONV, "dy @ w[i, j].T", "2 * dy @ w[i, j].T"), "dw[i, j] =", "dw[i, j] = 3 *")
    both = graded(tmp_path, text)
    assert {d.gradient for d in both.report.diagnoses} == {"dx", "dw"}
    first, second = (d.gradient for d in both.report.diagnoses)
    shown = [line for line in both.text.splitlines() if line.startswith("  d")]
    assert [line.split()[0] for line in shown if "FAIL" in line] == [first]
    assert both.text.splitlines()[-1] == f"also wrong, but one at a time: {second}"


def test_what_is_right_already_is_said(tmp_path):
    grade = graded(
        tmp_path,
        changed(CONV, "pad : pad + x.shape[1], pad :", "pad : pad + x.shape[1], 0 :").replace(
            "pad + x.shape[2]", "x.shape[2]"
        ),
    )
    assert grade.report.title == "conv2d (x 2x5x7x3, w 3x3x3x4, pad=1)"
    assert "right: the forward, and the gradients on 1 of 6 kinds of inputs" in grade.text


# --- Adam -----------------------------------------------------------------------------------------------------------


def test_the_path_of_adam_is_the_librarys():
    rng = np.random.default_rng(0)
    p, gradients = rng.standard_normal((3, 4)), list(rng.standard_normal((5, 3, 4)))
    settings = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}
    own = {"p": p.copy()}
    optimiser = Adam(own, **settings)
    for value, g in zip(forwards.adam(p, gradients, **settings), gradients, strict=True):
        optimiser.step({"p": g})
        assert np.allclose(own["p"], value, rtol=1e-13)


def test_no_two_slips_of_adam_are_the_same():
    rng = np.random.default_rng(0)
    p, gradients = rng.standard_normal((3, 4)), list(rng.standard_normal((3, 3, 4)))
    settings = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}
    with np.errstate(invalid="ignore"):
        paths = [wrong() for _, wrong in forwards.adam_slips(p, gradients, settings, 1, 2)]
    paths.append(forwards.adam(p, gradients, **settings)[-1])
    for k, one in enumerate(paths):
        assert not any(np.allclose(one, other) for other in paths[:k])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("p -= self", "p += self", "goes up the gradient"),
        (
            "self.m[name] / (1 - b1**t), self.v[name] / (1 - b2**t)",
            "self.m[name], self.v[name]",
            "not divided by 1 - b1^t",
        ),
        ("p -= self.lr * m", "p = p - self.lr * m", "step 1 leaves w as it was before"),
        ("self.t += 1", "self.t = 1", "t is 1 in every step"),
        ("np.sqrt(v) + self.eps", "np.sqrt(v + self.eps)", "before the root"),
        ("b1, b2 = self.betas", "b2, b1 = self.betas", "exchanged"),
        ("g**2", "g", "v is a mean of g"),
        (
            "g, t = gradients[name], self.t",
            "g, t = gradients[name], self.t\n            g *= 1.0 + 1e-9",
            "changes the gradient of w in place",
        ),
        ("eps=1e-8", "eps=1e-6", "Adam (the defaults): FAIL: after step 2 w[0, 3] is "),
    ],
)
def test_a_wrong_step_of_adam_is_named(tmp_path, old, new, said):
    grade = graded(tmp_path, changed(ADAM, old, new))
    assert grade.passed is False and said in " ".join(grade.text.split())


# --- whatever they write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            changed(RELU, "return np.maximum(x, 0), x", "return x"),
            "relu must return (y, cache), it returns ndarray",
        ),
        (changed(RELU, "return np.maximum(x, 0), x", "return 'y', x"), "relu's y is of type str"),
        (changed(RELU, "return np.maximum(x, 0), x", "return None, x"), "relu's y is of type NoneType"),
        (
            changed(RELU, "return (dy * (x > 0),)", "return {'dx': dy}"),
            "relu_backward's result 0 is of type dict",
        ),
        (
            changed(RELU, "return (dy * (x > 0),)", "return dy, dy"),
            "backward returns 2 gradients for 1 input",
        ),
        (
            changed(RELU, "return (dy * (x > 0),)", "return [[0]], 'dw'"),
            "relu_backward's result 1 is of type str",
        ),
        (
            changed(RELU, "return (dy * (x > 0),)", "return dy * y"),
            "NameError: name 'y' is not defined (line 8)",
        ),
        (changed(RELU, "return (dy * (x > 0),)", "return dy * y"), "in relu_backward:  return dy * y"),
        (changed(RELU, "return (dy * (x > 0),)", "return relu_backward(dy, x)"), "RecursionError"),
        (
            changed(RELU, "return (dy * (x > 0),)", "raise SystemExit('enough')"),
            "SystemExit: enough (line 8)",
        ),
        (changed(RELU, "return np.maximum(x, 0), x", "raise KeyError"), "relu (x 2x5x7x3): FAIL: KeyError"),
        (changed(RELU, "def relu(x):", "def relu(x, y):"), "missing 1 required positional argument: 'y'"),
        (changed(RELU, "relu_backward", "relu_back"), "relu is there but no relu_backward"),
        (changed(RELU, "def relu(", "def rel("), "relu_backward is there but no relu"),
        (RELU + "def conv2_backward(dy, cache):\n    return dy\n", "did you mean conv2d_backward?"),
        ("def tv_loss(y):\n    return 1.0\n", "tv_loss must return (value, gradient), it returns float"),
        ("def tv_loss(y):\n    return 1.0, y\n", "tv_loss (y 2x5x7x3): FAIL: value is 1, it should be "),
        (changed(TV, "return 0.5", "return np.nan * 0.5"), "inf or nan"),
        (changed(TV, "dy / n", "None"), "tv_loss's gradient is of type NoneType"),
        ("class Adam:\n    pass\n", "Adam() takes no arguments"),
        (changed(RESIDUAL, "return dx", "return 'dx'"), "Residual.backward's dx is of type str"),
        (
            changed(RESIDUAL, "layer.backward(dx)", "layer.backward(dx, 1, 2)"),
            "in Residual.backward:  dx = layer.backward(dx, 1, 2)",
        ),
    ],
)
def test_a_learners_error_is_told_and_the_status_is_1(tmp_path, capsys, text, words):
    assert main([learner(tmp_path, text)]) == 1
    out, err = capsys.readouterr()
    assert words in out and err == "" and "Traceback" not in out


@pytest.mark.parametrize(
    ("text", "function"),
    [
        (changed(RELU, "return (dy * (x > 0),)", "raise NotImplementedError"), "relu_backward"),
        (changed(RELU, "return np.maximum(x, 0), x", "raise NotImplementedError"), "relu"),
        (changed(ADAM, "self.t += 1", "raise NotImplementedError"), "Adam.step"),
        (changed(RESIDUAL, "dx = dy", "raise NotImplementedError"), "Residual.backward"),
    ],
)
def test_what_is_not_yet_written_is_said(tmp_path, capsys, text, function):
    assert main([learner(tmp_path, text)]) == 1
    assert capsys.readouterr().out == f"{function}: not yet written\n"


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(forwards, "fault", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check_file(learner(tmp_path, RELU))


def test_what_the_code_prints_does_not_hide_the_grade(tmp_path, capsys):
    text = changed(RELU, "def relu(x):\n", "print('loaded')\n\ndef relu(x):\n    print('x is', x.shape)\n")
    assert main([learner(tmp_path, text)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("relu ")
        and lines[1].startswith("mine.py printed ")
        and int(lines[1].split()[2]) > 200
    )
    assert lines[2:] == ["    loaded", *["    x is (2, 5, 7, 3)"] * 3]


def test_warnings_of_the_code_are_no_failure(tmp_path):
    text = changed(
        RELU,
        "return np.maximum(x, 0), x",
        "y = np.log(np.zeros(3)); import warnings; warnings.warn('so'); return np.maximum(x, 0), x",
    )
    assert check_file(learner(tmp_path, text))


def test_a_backward_that_changes_dy_is_named(tmp_path):
    text = changed(RELU, "return (dy * (x > 0),)", "dy *= x > 0\n    return dy")
    grade = graded(tmp_path, text)
    assert [(d.cause, d.gradient) for d in grade.report.diagnoses] == [("changed-input", "dy")]
    assert grade.passed is False and "changed-input (dy)" in grade.text


def test_a_forward_that_changes_its_input_is_named(tmp_path):
    text = changed(RELU, "return np.maximum(x, 0), x", "old = x.copy(); x[x < 0] = 0; return x.copy(), old")
    assert [(d.cause, d.gradient) for d in graded(tmp_path, text).report.diagnoses] == [
        ("changed-input", "dx")
    ]


def test_an_imported_function_is_used_and_not_graded(tmp_path):
    learner(tmp_path, changed(GRAM, "def gram_matrix_backward", "def another"), "my_gram.py")
    text = """
from my_gram import gram_matrix
from tinynst.ops import relu, relu_backward

def style_loss(f, target_gram):
    gram, _ = gram_matrix(f)
    n, h, w, c = f.shape
    d = gram - target_gram
    return (d**2).sum() / n, (f.reshape(n, h * w, c) @ (d + d.transpose(0, 2, 1)) * (2 / (n * c * h * w))).reshape(f.shape)
"""
    (grade,) = grades(learner(tmp_path, text))
    assert (grade.name, grade.passed) == ("style_loss", True)


def test_a_changed_file_is_read_again(tmp_path):
    assert graded(tmp_path, RELU).passed is True
    grade = graded(tmp_path, changed(RELU, "(x > 0)", "(x > 0) * nothing"))
    assert "return (dy * (x > 0) * nothing,)" in grade.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "nothing to check"),
        ("from tinynst.ops import relu, relu_backward\n", "nothing to check"),
        ("import no_such_module_here\n", "does not import: ModuleNotFoundError.*line 1"),
        ("def relu(:\n", r"does not import: SyntaxError: .*def relu\(: \(line 1"),
        ("raise SystemExit(3)\n", "does not import: SystemExit"),
    ],
)
def test_a_file_that_gives_nothing_to_check_is_the_users_mistake(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        main([learner(tmp_path, text)])


# --- a folder -------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_easiest_first_with_what_is_solved(tmp_path, capsys):
    for name, text in {
        "norm": changed(INSTANCE_NORM, " - mean_term", ""),
        "tv": TV,
        "activation": RELU,
        "broken": "def relu(:\n",
        "gram": changed(GRAM, "return pixels", "return 2 * pixels"),
        "pad": PAD,
        "helpers": "def twice(x):\n    return 2 * x\n",
    }.items():
        learner(tmp_path, text, f"{name}.py")
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["activation", "tv", "gram", "pad", "norm", "broken"]
    states = [line[12:] for line in lines[:-1]]
    assert states[:2] == ["solved", "solved"] and states[3] == "not yet written"
    assert states[2].startswith("gram_matrix (f 2x5x7x3): FAIL: gram") or states[2].startswith(
        "gram_matrix (f 2x5x7x3): FAIL: y["
    )
    assert states[4] == "instance_norm (x 2x5x7x3, gamma 3): missing-term (dx)"
    assert "SyntaxError" in states[5]
    assert lines[-1] == f"2 of 6 solved; next: tinynst gradcheck {tmp_path / 'gram.py'}"


def test_a_folder_all_solved(tmp_path, capsys):
    learner(tmp_path, RELU)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "mine  solved\n1 of 1 solved\n"


def test_a_folder_with_nothing_to_check_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no Python file with anything to check"):
        main([str(tmp_path)])


def test_every_operation_and_loss_has_its_place():
    from tinynst.gradcheck.cases import LOSSES, OPERATIONS

    assert set(EASIEST_FIRST) == {name for name, *_ in [*OPERATIONS, *LOSSES]} | {"Residual", "Adam"}
