"""Layers: the numbers of their operations, their gradients, what they keep, and how they combine."""

import numpy as np
import pytest
from cases import assert_close, slope

from tinynst import layers, ops
from tinynst.device import array_module, asarray, to_numpy
from tinynst.layers import Conv, InstanceNorm, ReflectPad, Residual, Sequential

IMAGE = (2, 7, 6, 3)
MIX = np.array([[0.2, 0.0, 0.8, 0.0], [0.0, 1.0, 0.0, 0.0]])


class Mixed(layers.ConditionalInstanceNorm):
    def forward(self, x, training=False):
        """With a mixture of its own, so that it is called like the other layers."""
        return super().forward(x, training, asarray(MIX, array_module(x)))


def drawn(kind):
    return {**kind, "rng": np.random.default_rng(0)}


def chain(kind):
    norm, conv = layers.BatchNorm(3, True, **kind), Conv(3, 4, 3, 2, 1, True, **drawn(kind))
    block = Residual({"conv": Conv(3, 3, 5, pad=1, **drawn(kind)), "norm": norm}, crop=1)
    return Sequential({"block": block, "conv": conv})


def sequential(x, training, **p):
    norm = {name[11:]: array for name, array in p.items() if name.startswith("block.norm")}
    y, _ = ops.batch_norm(ops.conv2d(x, p["block.conv.w"], pad=1)[0], **norm, training=training, relu=True)
    return ops.conv2d(y + x[:, 1:-1, 1:-1], p["conv.w"], p["conv.b"], stride=2, pad=1)


# The operation, its options, and the layer of it from {"xp", "dtype"}.
LAYERS = [
    (ops.conv2d, {"stride": 2, "pad": 1}, lambda kind: Conv(3, 4, 3, stride=2, pad=1, **drawn(kind))),
    (ops.conv2d, {"pad": 2}, lambda kind: Conv(3, 4, 5, pad=2, bias=True, **drawn(kind))),
    (ops.conv_transpose2d, {}, lambda kind: layers.ConvTranspose(3, 4, **drawn(kind))),
    (ops.instance_norm, {"relu": True}, lambda kind: InstanceNorm(3, relu=True, **kind)),
    (ops.conditional_instance_norm, {"mix": MIX, "relu": True}, lambda kind: Mixed(4, 3, relu=True, **kind)),
    (ops.batch_norm, {"training": None}, lambda kind: layers.BatchNorm(3, **kind)),
    (ops.reflect_pad2d, {"pad": 2}, lambda kind: ReflectPad(2)),
    (ops.max_pool2d, {}, lambda kind: layers.MaxPool()),
    (ops.upsample_nearest, {"scale": 3}, lambda kind: layers.Upsample(3)),
    (ops.upsample_smooth, {}, lambda kind: layers.UpsampleSmooth()),
    (ops.relu, {}, lambda kind: layers.ReLU()),
    (ops.scaled_tanh, {"scale": 7.0}, lambda kind: layers.ScaledTanh(7.0)),
    (sequential, {"training": None}, chain),
]


def image(xp, seed=0):
    return asarray(np.random.default_rng(seed).standard_normal(IMAGE), xp)


def upstream(y):
    return asarray(np.random.default_rng(2).standard_normal(y.shape), array_module(y))


@pytest.fixture(params=LAYERS, ids=lambda row: row[0].__name__)
def row(request, xp):
    """An operation, its options, and its layer, whose parameters and buffers are not all ones and zeros."""
    operation, options, build = request.param
    layer, rng = build({"xp": xp, "dtype": np.float64}), np.random.default_rng(1)
    for array in (*layer.parameters().values(), *layer.buffers().values()):
        array += asarray(rng.uniform(0.1, 0.5, array.shape), xp)
    return operation, options, layer


@pytest.mark.parametrize("training", [True, False])
def test_values_and_running_statistics(xp, row, training):
    operation, options, layer = row
    if "training" in options:
        options = {"training": training}
    elif "mix" in options:
        options = options | {"mix": asarray(MIX, xp)}
    buffers = {name: array.copy() for name, array in layer.buffers().items()}
    expected, _ = operation(image(xp), **layer.parameters(), **buffers, **options)
    y = layer.forward(image(xp), training)
    assert layer.out_shape(IMAGE[1:]) == y.shape[1:]
    for array, reference in ((y, expected), *zip(layer.buffers().values(), buffers.values(), strict=True)):
        assert_close(array, reference, 1e-13)


def test_gradients_and_need(xp, row):
    """With respect to the image and each parameter, for a random dy; `need` leaves out what is not needed."""
    *_, layer = row
    parameters = {"x": image(xp), **layer.parameters()}
    dy = upstream(layer.forward(parameters["x"], True))
    gradients = {"x": layer.backward(dy), **layer.gradients()}
    assert list(gradients) == list(parameters)
    rng = np.random.default_rng(3)
    for name, array in parameters.items():
        at, g = to_numpy(array).copy(), to_numpy(gradients[name])

        def loss(value, array=array):
            array[...] = asarray(value, xp)
            return float((layer.forward(parameters["x"], True) * dy).sum())

        direction = rng.standard_normal(at.shape)
        change = slope(loss, at, direction, 1e-5)
        array[...] = asarray(at, xp)
        assert g.shape == at.shape and g.any()
        assert abs((g * direction).sum() - change) <= 1e-6 * np.linalg.norm(g), name

    for need in (("x",), ("w",)):
        layer.forward(parameters["x"], True)
        dx = layer.backward(dy, need=need)
        found = ({} if dx is None else {"x": dx}) | layer.gradients()
        assert list(found) == [name for name in parameters if (name == "x") == ("x" in need)]
        assert all(np.array_equal(to_numpy(g), to_numpy(gradients[name])) for name, g in found.items())


def test_one_training_forward_serves_one_backward(xp, row):
    """Without `training` nothing is kept, and what was kept stays. No array that was passed in is changed."""
    *_, layer = row
    x, results = image(xp), []
    dy = upstream(layer.forward(x, False))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"\.backward needs a forward\(x, training=True\) before it"):
            layer.backward(dy)
        y = layer.forward(x, True)
        kept = to_numpy(y).copy()
        layer.forward(image(xp, seed=9), False)
        results.append(to_numpy(layer.backward(dy)).copy())
    assert np.array_equal(*results)
    for array, before in ((x, image(xp)), (dy, upstream(y)), (y, kept)):
        assert np.array_equal(to_numpy(array), to_numpy(before))


def test_start(xp):
    """Weights are uniform in +-1/sqrt(fan in)."""
    conv = Conv(16, 40, 5, bias=True, **drawn({"xp": xp})).parameters()
    up = layers.ConvTranspose(16, 40, **drawn({"xp": xp})).parameters()
    shapes = {(5, 5, 16, 40): (conv["w"], 400), (40,): (conv["b"], 400), (3, 3, 40, 16): (up["w"], 144)}
    for shape, (p, fan_in) in shapes.items():
        assert p.shape == shape and p.dtype == np.float32
        assert 0.9 < float(abs(p).max()) * fan_in**0.5 <= 1 + 1e-6
        assert abs(float(p.std()) * (3 * fan_in) ** 0.5 - 1) < 0.15


def test_a_sequential_and_its_frozen_layers(xp, monkeypatch):
    """When the norm alone learns, dx and its gradients stay the same, and backward computes nothing else."""
    kind, run, needs = {"xp": xp, "dtype": np.float64}, ops.conv2d_backward, []
    first, last = (Conv(3, 3, 3, **kind, rng=np.random.default_rng(seed)) for seed in (0, 1))
    net = Sequential({"pad": ReflectPad(1), "a": first, "norm": layers.BatchNorm(3, **kind), "c": last})
    assert list(net.parameters()) == ["a.w", "norm.gamma", "norm.beta", "c.w"]
    assert list(net.buffers()) == ["norm.running_mean", "norm.running_var"] and net.gradients() == {}
    assert net.parameters()["a.w"] is first.parameters()["w"]  # itself: Adam changes it in place
    dy = upstream(net.forward(image(xp), True))
    dx, gradients = to_numpy(net.backward(dy)), net.gradients()
    first.frozen = last.frozen = True
    assert list(net.gradients()) == list(net.learnt()) == ["norm.gamma", "norm.beta"]
    monkeypatch.setattr(ops, "conv2d_backward", lambda *a, need: needs.append(need) or run(*a, need=need))
    for need in (("x", "w"), ("w",)):
        net.forward(image(xp), True)
        found = net.backward(dy, need=need)
        assert np.array_equal(to_numpy(found), dx) if "x" in need else found is None
        assert all(np.array_equal(to_numpy(g), to_numpy(gradients[k])) for k, g in net.gradients().items())
    assert len(needs) == 3 and not any("w" in need for need in needs)  # two passes; the second ends above "a"
