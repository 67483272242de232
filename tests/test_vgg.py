"""VGG-16 against a chain of operations, its gradients, its colours, and the weights that ship."""

import os

import numpy as np
import pytest
from cases import assert_close, counted, photos, refuses, slope, small_vgg, vgg_weights

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.networks import VGG16
from tinynst.networks.vgg import LAYERS

KERAS = os.environ.get("TINYNST_KERAS_VGG16")
TAPS = ("relu1_2", "relu2_1", "relu3_1")


def reference_features(images, weights):
    """Simonyan and Zisserman's net as they write it: BGR less the mean, 3x3 convolutions, a pool before each
    new block."""
    x, features = images[:, :, :, ::-1] - np.array([103.939, 116.779, 123.68]), {}
    for name, (w, b) in weights.items():
        if name.endswith("_1") and name != "conv1_1":
            x = ops.max_pool2d(x)[0]
        x = np.maximum(ops.conv2d(x, w, b, pad=1)[0], 0)
        features[name.replace("conv", "relu")] = x
    return features


def test_every_layer_is_the_papers(xp):
    images = photos(1, 17, 18, 3)
    expected = reference_features(images, vgg_weights("relu5_3"))
    features = small_vgg(xp, "relu5_3").forward(asarray(images, xp), LAYERS)
    assert list(features) == list(expected) == list(LAYERS)
    for name, f in features.items():
        assert f.shape == expected[name].shape
        assert_close(f, expected[name], 1e-9)
    assert features["relu5_3"].shape == (1, 1, 1, 7)


def test_the_colours_of_a_red_image(xp):
    """The first kernel shows its input: blue, green, red in that order, each less its mean (plus 200, for the
    ReLU)."""
    w = np.zeros((3, 3, 3, 3))
    w[1, 1] = np.eye(3)
    vgg = VGG16({"conv1_1": (w, np.full(3, 200.0))}, xp)
    red = np.zeros((1, 2, 2, 3))
    red[..., 0] = 255
    seen = to_numpy(vgg.forward(asarray(red, xp), ("relu1_1",))["relu1_1"])
    assert_close(seen[0, 0, 0], np.array([200 - 103.939, 200 - 116.779, 455 - 123.68]), 1e-14)


def test_forward_stops_at_the_last_layer_asked_for(monkeypatch):
    convolved, pooled = counted(monkeypatch, ops, "conv2d"), counted(monkeypatch, ops, "max_pool2d")
    features = small_vgg().forward(photos(1, 8, 8, 3), ("relu2_1", "relu1_1"))
    assert sorted(features) == ["relu1_1", "relu2_1"]
    assert len(convolved) == 3
    assert len(pooled) == 1


@pytest.mark.parametrize("taps", [("relu1_1",), ("relu3_1",), TAPS])
def test_gradient_by_the_images(xp, taps):
    vgg, images, rng = small_vgg(xp, "relu3_1"), photos(2, 9, 10, 3), np.random.default_rng(0)
    features = vgg.forward(asarray(images, xp), taps)
    upstream = {name: asarray(rng.standard_normal(f.shape), xp) for name, f in features.items()}
    dx = to_numpy(vgg.backward(upstream))
    assert dx.shape == images.shape

    def loss(images):
        features = vgg.forward(asarray(images, xp), taps, training=False)
        return sum(float((features[name] * dy).sum()) for name, dy in upstream.items())

    for _ in range(2):
        direction = rng.standard_normal(images.shape)
        assert abs((dx * direction).sum() - slope(loss, images, direction, 1e-5)) <= 1e-6 * np.linalg.norm(dx)


def test_gradients_at_several_layers_add(xp):
    vgg, images, rng = small_vgg(xp, "relu3_1"), asarray(photos(2, 9, 10, 3), xp), np.random.default_rng(0)
    shapes = {name: f.shape for name, f in vgg.forward(images, TAPS).items()}
    drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    upstream = {name: asarray(dy.copy(), xp) for name, dy in drawn.items()}
    together = vgg.backward(upstream)
    apart = 0
    for name, dy in upstream.items():
        vgg.forward(images, TAPS)
        apart = apart + vgg.backward({name: dy})
    assert_close(together, apart, 1e-12)
    for name, before in drawn.items():
        assert np.array_equal(to_numpy(upstream[name]), before)


def test_looking_without_training_leaves_the_kept_pass_alone(xp):
    vgg, images = small_vgg(xp, "relu2_1"), asarray(photos(1, 8, 9, 3), xp)
    f = vgg.forward(images, ("relu2_1",))["relu2_1"]
    expected = vgg.backward({"relu2_1": f})
    vgg.forward(images, ("relu2_1",))
    vgg.forward(asarray(photos(2, 5, 6, 3, seed=9), xp), ("relu1_2",), training=False)
    assert_close(vgg.backward({"relu2_1": f}), expected, 0)


def test_backward_is_refused_where_forward_was_not():
    vgg, images = small_vgg(), photos(1, 8, 8, 3)
    refuses(ValueError, "relu1_1", lambda: vgg.backward({"relu1_1": images}))  # nothing went forward
    f = vgg.forward(images, ("relu1_2",))["relu1_2"]
    refuses(ValueError, "relu2_1", lambda: vgg.backward({"relu2_1": f}))
    vgg.backward({"relu1_2": f})
    refuses(ValueError, "relu1_2", lambda: vgg.backward({"relu1_2": f}))  # used up


def test_wrong_layers_and_images_are_named():
    vgg = small_vgg()
    refuses(ValueError, "relu6_1", lambda: vgg.forward(photos(1, 8, 8, 3), ("relu1_1", "relu6_1")))
    refuses(ValueError, "layer", lambda: vgg.forward(photos(1, 8, 8, 3), ()))
    refuses(ValueError, "8x8", lambda: vgg.forward(photos(1, 8, 7, 3), ("relu4_1",)))  # the least it takes
    assert vgg.forward(photos(1, 8, 8, 3), ("relu4_1",))["relu4_1"].shape == (1, 1, 1, 6)


def test_the_weights_and_the_images_are_left_alone(xp):
    weights = vgg_weights("relu2_1")
    vgg, images = VGG16(weights, xp), asarray(photos(1, 8, 8, 3), xp)
    vgg.backward({"relu2_1": vgg.forward(images, ("relu2_1",))["relu2_1"]})
    for name, (w, b) in vgg_weights("relu2_1").items():
        assert np.array_equal(weights[name][0], w)
        assert np.array_equal(weights[name][1], b)
    assert np.array_equal(to_numpy(images), photos(1, 8, 8, 3))


def test_kept_transforms_do_not_go_stale(xp):
    """Kernels wide enough for Winograd, float32 and float64 images in turn: each gets its own numbers, each
    time."""
    rng = np.random.default_rng(0)
    w1, w2 = rng.standard_normal((3, 3, 3, 16)), 0.1 * rng.standard_normal((3, 3, 16, 17))
    weights = {"conv1_1": (w1, np.zeros(16)), "conv1_2": (w2, np.zeros(17))}
    vgg, images = (
        VGG16({name: (w.astype(np.float32), b.astype(np.float32)) for name, (w, b) in weights.items()}, xp),
        photos(1, 6, 7, 3),
    )
    weights = {name: (w.astype(np.float32).astype(np.float64), b) for name, (w, b) in weights.items()}
    expected = reference_features(images, weights)["relu1_2"]
    for dtype, tolerance in (
        (np.float32, 1e-4),
        (np.float64, 1e-10),
        (np.float32, 1e-4),
        (np.float64, 1e-10),
    ):
        f = vgg.forward(asarray(images.astype(dtype), xp), ("relu1_2",))["relu1_2"]
        assert f.dtype == dtype
        assert_close(f, expected, tolerance)
        assert vgg.backward({"relu1_2": f}).dtype == dtype


def test_images_on_another_device_are_named(strict):
    refuses(TypeError, "to_numpy", lambda: small_vgg().forward(strict.zeros((1, 8, 8, 3)), ("relu1_1",)))
    refuses(TypeError, "asarray", lambda: small_vgg(strict).forward(np.zeros((1, 8, 8, 3)), ("relu1_1",)))


@pytest.fixture(scope="module")
def shipped():
    return VGG16.load()


def test_the_weights_that_ship(shipped):
    parameters, convs = shipped.layers.parameters(), [name.replace("relu", "conv") for name in LAYERS]
    assert list(parameters) == [f"{name}.{array}" for name in convs for array in "wb"]
    assert len(LAYERS) == 13
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    for name, c, o in zip(convs, channels, channels[1:], strict=False):
        w, b = parameters[f"{name}.w"], parameters[f"{name}.b"]
        assert w.shape == (3, 3, c, o)
        assert b.shape == (o,)
        assert w.dtype == b.dtype == np.float32
    f = shipped.forward(photos(1, 35, 34, 3, dtype=np.float32), ("relu4_3",), training=False)["relu4_3"]
    assert f.shape == (1, 4, 4, 512)
    assert f.dtype == np.float32
    assert np.isfinite(f).all()
    assert f.min() == 0 < f.max()


def test_they_see_edges_and_not_grey(shipped):
    """A grey image has features that are flat away from the border; a black and white edge has not, and they
    are larger."""
    grey = np.full((1, 12, 12, 3), 128, np.float32)
    edge = grey.copy()
    edge[:, :, :6], edge[:, :, 6:] = 0, 255
    of_grey, of_edge = (
        shipped.forward(image, ("relu1_1",), training=False)["relu1_1"][0, 2:-2, 2:-2]
        for image in (grey, edge)
    )
    assert np.ptp(of_grey, axis=(0, 1)).max() < 1e-3
    assert np.ptp(of_edge, axis=(0, 1)).max() > 50


@pytest.mark.skipif(
    not KERAS, reason="set TINYNST_KERAS_VGG16 to Keras's VGG-16 file to compare what ships with it"
)
def test_what_ships_sees_what_the_original_sees(shipped):
    """It is stored in half precision: features at relu4_3 within 3e-3."""
    original = VGG16.load(KERAS)
    images = photos(1, 35, 34, 3, dtype=np.float32)
    a, b = (vgg.forward(images, ("relu4_3",), training=False)["relu4_3"] for vgg in (shipped, original))
    assert np.linalg.norm(a - b) <= 3e-3 * np.linalg.norm(b)
