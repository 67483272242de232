"""Layers: their operation's numbers, their gradients, what they keep and give up, and how they are put
together."""

import numpy as np
import pytest
from cases import assert_close, counted, slope

from tinynst import ops
from tinynst.device import array_module, asarray, to_numpy
from tinynst.layers import (
    BatchNorm,
    ConditionalInstanceNorm,
    Conv,
    ConvTranspose,
    InstanceNorm,
    ReflectPad,
    ReLU,
    Residual,
    ScaledTanh,
    Sequential,
    Upsample,
    UpsampleSmooth,
)

IMAGE = (2, 7, 6, 3)


def drawn(xp):
    return {"rng": np.random.default_rng(0), "xp": xp, "dtype": np.float64}


def made(xp):
    return {"xp": xp, "dtype": np.float64}


def chain(xp):
    rest = drawn(xp)
    return Sequential(
        {
            "pad": ReflectPad(2),
            "conv": Conv(3, 4, 3, 2, 1, True, **rest),
            "norm": BatchNorm(4, True, **made(xp)),
        }
    )


def residual(xp, last_relu=False):
    rest = drawn(xp)
    inner = {
        "conv1": Conv(3, 3, 3, **rest),
        "norm1": InstanceNorm(3, True, **made(xp)),
        "conv2": Conv(3, 3, 3, **rest),
    }
    if last_relu:
        inner["norm2"] = InstanceNorm(3, True, **made(xp))
    return Residual(inner, crop=2)


class Mixed(ConditionalInstanceNorm):
    """With a mixture of its own, so that it is called as the others are."""

    def forward(self, x, training=False):
        xp = array_module(x)
        return super().forward(
            x, training, xp.asarray(np.array([[0.2, 0.0, 0.8, 0.0], [0.0, 1.0, 0.0, 0.0]]))
        )


LAYERS = {
    "ConditionalInstanceNorm": lambda xp: Mixed(4, 3, relu=True, **made(xp)),
    "UpsampleSmooth": lambda xp: UpsampleSmooth(),
    "Conv": lambda xp: Conv(3, 4, 3, stride=2, pad=1, **drawn(xp)),
    "Conv with bias": lambda xp: Conv(3, 4, 5, pad=2, bias=True, **drawn(xp)),
    "ConvTranspose": lambda xp: ConvTranspose(3, 4, **drawn(xp)),
    "InstanceNorm": lambda xp: InstanceNorm(3, **made(xp)),
    "InstanceNorm, ReLU": lambda xp: InstanceNorm(3, relu=True, **made(xp)),
    "BatchNorm": lambda xp: BatchNorm(3, **made(xp)),
    "BatchNorm, ReLU": lambda xp: BatchNorm(3, relu=True, **made(xp)),
    "ReflectPad": lambda xp: ReflectPad(2),
    "Upsample": lambda xp: Upsample(3),
    "ReLU": lambda xp: ReLU(),
    "ScaledTanh": lambda xp: ScaledTanh(150.0),
    "Sequential": chain,
    "Residual": residual,
    "Residual that ends in ReLU": lambda xp: residual(xp, last_relu=True),
}


@pytest.fixture(params=LAYERS)
def build(request):
    return LAYERS[request.param]


def image(xp, seed=0):
    return asarray(np.random.default_rng(seed).standard_normal(IMAGE), xp)


def start(layer):
    """Give a layer parameters and buffers that are not all ones and zeros; returns it."""
    rng = np.random.default_rng(1)
    for array in (*layer.parameters().values(), *layer.buffers().values()):
        array += asarray(rng.uniform(0.1, 0.5, array.shape), array_module(array))
    return layer


def run(xp, layer, training=True):
    """y, a random dy, and dx."""
    y = layer.forward(image(xp), training)
    dy = asarray(np.random.default_rng(2).standard_normal(y.shape), xp)
    return y, dy, layer.backward(dy)


def test_gradients(xp, build):
    """By the image and every parameter, for a random dy, against differences."""
    layer = start(build(xp))
    x, saved = to_numpy(image(xp)), {name: to_numpy(p).copy() for name, p in layer.parameters().items()}
    _, dy, dx = run(xp, layer)
    gradients = {name: to_numpy(g) for name, g in layer.gradients().items()}
    assert list(gradients) == list(saved)

    def loss(x):
        return float((layer.forward(asarray(x, xp), True) * dy).sum())

    def loss_by(name):
        def loss_of(value):
            layer.parameters()[name][...] = asarray(value, xp)
            result = loss(x)
            layer.parameters()[name][...] = asarray(saved[name], xp)
            return result

        return loss_of

    rng = np.random.default_rng(3)
    for of, at, gradient in [(loss, x, to_numpy(dx)), *((loss_by(n), saved[n], gradients[n]) for n in saved)]:
        assert gradient.shape == at.shape
        direction = rng.standard_normal(at.shape)
        allowed = (
            1e-6 * np.linalg.norm(gradient) + 1e-9
        )  # the norm takes the bias before it out: its gradient is zero
        assert abs((gradient * direction).sum() - slope(of, at, direction, 1e-5)) <= allowed


def test_without_the_input_gradient(xp, build):
    """The gradients by the parameters are the same."""
    layer = start(build(xp))
    run(xp, layer)
    expected = {name: to_numpy(g) for name, g in layer.gradients().items()}
    other = start(build(xp))
    y = other.forward(image(xp), True)
    other.backward(asarray(np.random.default_rng(2).standard_normal(y.shape), xp), need=("w",))
    assert other.gradients().keys() == expected.keys()
    for name, gradient in other.gradients().items():
        assert np.array_equal(to_numpy(gradient), expected[name])


def test_the_input_gradient_alone(xp, build):
    _, dy, expected = run(xp, start(build(xp)))
    layer = start(build(xp))
    layer.forward(image(xp), True)
    assert np.array_equal(to_numpy(layer.backward(dy, need=("x",))), to_numpy(expected))
    assert layer.gradients() == {}


def test_the_shape_that_a_layer_promises(xp, build):
    layer = build(xp)
    assert layer.out_shape(IMAGE[1:]) == layer.forward(image(xp)).shape[1:]


def test_memory_of_one_forward_for_one_backward(xp, build):
    layer = build(xp)
    dy = xp.ones(layer.forward(image(xp), False).shape)
    message = r"\.backward needs a forward\(x, training=True\) before it"
    with pytest.raises(RuntimeError, match=message):  # training=False kept nothing
        layer.backward(dy)
    layer.forward(image(xp), True)
    layer.backward(dy)
    with pytest.raises(RuntimeError, match=message):  # used up
        layer.backward(dy)
    layer = start(build(xp))
    _, dy, expected = run(xp, layer)
    layer.forward(image(xp), True)
    layer.forward(image(xp, seed=9), False)  # leaves alone what the training pass kept
    assert np.array_equal(to_numpy(layer.backward(dy)), to_numpy(expected))


def test_training_and_use_leave_the_arguments_alone(xp, build):
    layer = build(xp)
    x = image(xp)
    y = layer.forward(x, True)
    kept = to_numpy(y).copy()
    dy = xp.ones(y.shape)
    layer.backward(dy)
    assert np.array_equal(to_numpy(x), to_numpy(image(xp)))
    assert np.array_equal(to_numpy(dy), np.ones(y.shape))
    assert np.array_equal(to_numpy(y), kept)


def test_each_layer_is_its_operation(xp):
    x = image(xp)
    rng, rest = np.random.default_rng(1), drawn(xp)

    conv = Conv(3, 4, 3, 2, 1, True, **rest)
    p = conv.parameters()
    assert_close(conv.forward(x, False), ops.conv2d(x, p["w"], p["b"], stride=2, pad=1)[0], 0)
    up = ConvTranspose(3, 4, **rest)
    assert_close(up.forward(x, False), ops.conv_transpose2d(x, up.parameters()["w"])[0], 0)
    assert up.forward(x, False).shape == (2, 14, 12, 4)
    for kind, op in ((InstanceNorm, ops.instance_norm), (BatchNorm, ops.batch_norm)):
        norm = kind(3, relu=True, **made(xp))
        for array in norm.parameters().values():
            array[...] = asarray(rng.standard_normal(3), xp)
        buffers = {name: b.copy() for name, b in norm.buffers().items()}
        y, _ = op(x, **norm.parameters(), **buffers)
        assert_close(norm.forward(x, True), xp.maximum(y, 0), 1e-14)
        for name, b in buffers.items():
            assert_close(norm.buffers()[name], b, 1e-14)
    assert_close(ReflectPad(3).forward(x, False), ops.reflect_pad2d(x, 3)[0], 0)
    assert_close(Upsample(3).forward(x, False), ops.upsample_nearest(x, 3)[0], 0)
    assert_close(ReLU().forward(x, False), ops.relu(x)[0], 0)
    assert_close(ScaledTanh(7.0).forward(x, False), ops.scaled_tanh(x, 7.0)[0], 0)


def test_batch_norm_used_alone_reads_its_statistics(xp):
    norm = BatchNorm(3, **made(xp))
    norm.buffers()["running_mean"][...] = 2.0
    norm.buffers()["running_var"][...] = 9.0
    y = norm.forward(image(xp), False)
    assert_close(y, (image(xp) - 2) / (9 + 1e-5) ** 0.5, 1e-14)
    assert to_numpy(norm.buffers()["running_mean"]).tolist() == [2, 2, 2]


def test_start(xp):
    """Uniform in +-1/sqrt(fan in), from the generator given; norms begin as the identity; kinds as asked
    for."""
    conv = Conv(16, 40, 5, bias=True, rng=np.random.default_rng(0), xp=xp)
    w = to_numpy(conv.parameters()["w"])
    limit = 1 / np.sqrt(5 * 5 * 16)
    assert w.shape == (5, 5, 16, 40)
    assert w.dtype == np.float32
    assert np.abs(w).max() <= limit
    assert abs(w.std() - limit / np.sqrt(3)) < 0.02 * limit
    assert to_numpy(conv.parameters()["b"]).shape == (40,)
    again = Conv(16, 40, 5, bias=True, rng=np.random.default_rng(0), xp=xp)
    assert np.array_equal(to_numpy(again.parameters()["w"]), w)
    assert list(Conv(3, 4, 3, rng=np.random.default_rng(0)).parameters()) == ["w"]
    norm = BatchNorm(2, xp=xp)
    arrays = {**norm.parameters(), **norm.buffers()}
    values = {name: to_numpy(a).tolist() for name, a in arrays.items()}
    assert values == {"gamma": [1, 1], "beta": [0, 0], "running_mean": [0, 0], "running_var": [1, 1]}
    assert all(a.dtype == np.float32 for a in arrays.values())


def test_sequential_names(xp):
    net = chain(xp)
    assert list(net.parameters()) == ["conv.w", "conv.b", "norm.gamma", "norm.beta"]
    assert list(net.buffers()) == ["norm.running_mean", "norm.running_var"]
    assert net.gradients() == {}
    assert (
        net.parameters()["conv.w"] is net.layers["conv"].parameters()["w"]
    )  # the arrays themselves: Adam works in place


def test_sequential_stops_where_nothing_is_learnt(monkeypatch):
    """Without the input's gradient neither the padding goes backward nor the first convolution to its
    input."""
    net = chain(np)
    y = net.forward(image(np), True)
    folded = counted(monkeypatch, net.layers["pad"], "backward")
    assert net.backward(np.ones(y.shape), need=("w",)) is None
    assert folded == []
    assert list(net.gradients()) == list(net.parameters())


def test_residual_by_hand(xp):
    """With weights of zero the block is its centre crop, and the gradient by x is dy with a border of
    zeros."""
    block = residual(xp)
    for p in block.parameters().values():
        p[...] = 0.0
    x = image(xp)
    y = block.forward(x, True)
    dy = asarray(np.random.default_rng(2).standard_normal((2, 3, 2, 3)), xp)
    dx = block.backward(dy)
    assert_close(y, to_numpy(x)[:, 2:-2, 2:-2], 0)
    assert_close(dx, np.pad(to_numpy(dy), ((0, 0), (2, 2), (2, 2), (0, 0))), 0)


def test_a_frozen_layer_has_the_same_dx_and_no_gradients(xp):
    """Two convolutions about a norm, the norm alone learning: nothing else has a gradient, and what it has is
    the same."""
    wanted = None
    for frozen in (False, True):
        layers = {
            "a": Conv(3, 4, 3, **drawn(xp)),
            "norm": InstanceNorm(4, True, **made(xp)),
            "b": Conv(4, 2, 3, **drawn(xp)),
        }
        net = start(Sequential(layers))
        layers["a"].frozen = layers["b"].frozen = frozen
        _, _, dx = run(xp, net)
        gradients = net.gradients()
        if not frozen:
            wanted = dx, gradients
            continue
        assert list(gradients) == list(net.learnt()) == ["norm.gamma", "norm.beta"]
        assert len(net.parameters()) == 4
        assert np.array_equal(to_numpy(dx), to_numpy(wanted[0]))
        for name, gradient in gradients.items():
            assert np.array_equal(to_numpy(gradient), to_numpy(wanted[1][name]))
        y = net.forward(image(xp), True)
        net.backward(xp.ones(y.shape), need=("w",))
        assert list(net.gradients()) == list(gradients)
        assert layers["a"]._cache is not None  # the walk ended at the norm: below it nothing is learnt
