"""VGG-16: its features against the definition, its gradient, its taps, and the weights that ship."""

import os

import numpy as np
import pytest
from cases import assert_close, counted, photos, refuses, slope, small_vgg, vgg_weights

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.networks import VGG16
from tinynst.networks.vgg import LAYERS

KERAS = os.environ.get("TINYNST_KERAS_VGG16")  # the original weights, to compare the shipped ones with


def reference_features(images, weights):
    """Simonyan and Zisserman's net: BGR minus the mean colour, 3x3 convolutions, a pool before each block."""
    x, features = images[:, :, :, ::-1] - np.array([103.939, 116.779, 123.68]), {}
    for name, (w, b) in weights.items():
        if name.endswith("_1") and name != "conv1_1":
            x = ops.max_pool2d(x)[0]
        x = np.maximum(ops.conv2d(x, w, b, pad=1)[0], 0)
        features[name.replace("conv", "relu")] = x
    return features


def test_every_layer_is_the_papers(xp):
    images, weights = photos(1, 17, 18, 3), vgg_weights("relu5_3")
    expected = reference_features(images, weights)
    given = asarray(images.copy(), xp)
    features = VGG16(weights, xp).forward(given, LAYERS)
    assert list(features) == list(expected) == list(LAYERS) and len(LAYERS) == 13
    for name, f in features.items():
        assert_close(f, expected[name], 1e-9)
    assert np.array_equal(to_numpy(given), images)
    for name, pair in vgg_weights("relu5_3").items():
        assert all(np.array_equal(*arrays) for arrays in zip(weights[name], pair, strict=True))


@pytest.mark.parametrize("used", [("relu1_1",), ("relu3_1", "relu1_2", "relu2_1"), ("relu1_2",)])
def test_gradient_with_respect_to_the_images(xp, used):
    """Gradients at several layers add; the last layer reached needs none. Nothing stays in memory."""
    vgg, images, rng = small_vgg(xp, "relu3_1"), photos(2, 9, 10, 3), np.random.default_rng(0)
    taps = ("relu1_1",) if "relu1_1" in used else ("relu1_2", "relu2_1", "relu3_1")
    features = vgg.forward(asarray(images, xp), taps)
    drawn = {name: rng.standard_normal(features[name].shape) for name in used}
    upstream = {name: asarray(dy.copy(), xp) for name, dy in drawn.items()}

    def loss(images):
        features = vgg.forward(asarray(images, xp), taps, training=False)
        return sum(float((features[name] * dy).sum()) for name, dy in upstream.items())

    direction = rng.standard_normal(images.shape)
    change = slope(loss, images, direction, 1e-5)  # forward without training leaves what was kept
    dx = to_numpy(vgg.backward(upstream))
    assert dx.shape == images.shape and abs((dx * direction).sum() - change) <= 1e-6 * np.linalg.norm(dx)
    assert all(np.array_equal(to_numpy(upstream[name]), dy) for name, dy in drawn.items())
    assert vgg.layers.gradients() == vgg.layers.learnt() == {}
    for layer in vgg.layers.layers.values():
        with pytest.raises(RuntimeError, match="forward"):
            layer.backward(None)


def test_forward_stops_at_the_last_layer_and_mistakes_are_named(strict, monkeypatch):
    convolved, pooled = counted(monkeypatch, ops, "conv2d"), counted(monkeypatch, ops, "max_pool2d")
    assert set(small_vgg().forward(photos(1, 8, 8, 3), ("relu2_1", "relu1_1"))) == {"relu1_1", "relu2_1"}
    assert (len(convolved), len(pooled)) == (3, 1)
    refuses(TypeError, "to_numpy", lambda: small_vgg().forward(strict.zeros((1, 8, 8, 3))))
    refuses(TypeError, "asarray", lambda: small_vgg(strict).forward(np.zeros((1, 8, 8, 3))))
    vgg, images = small_vgg(), photos(1, 8, 8, 3)
    refuses(ValueError, "relu6_1", lambda: vgg.forward(images, ("relu1_1", "relu6_1")))
    refuses(ValueError, "layer", lambda: vgg.forward(images, ()))
    refuses(ValueError, "images", lambda: vgg.forward(images[0], "relu1_1"))
    refuses(ValueError, "8x8", lambda: vgg.forward(images[:, :, :7], ("relu4_1",)))  # the smallest size
    assert vgg.forward(images, "relu4_1", training=False)["relu4_1"].shape == (1, 1, 1, 6)
    refuses(ValueError, "relu1_1", lambda: vgg.backward({"relu1_1": images}))  # no forward pass yet
    f = vgg.forward(images, ("relu1_2",))["relu1_2"]
    refuses(ValueError, "relu2_1", lambda: vgg.backward({"relu2_1": f}))
    vgg.backward({"relu1_2": f})
    refuses(ValueError, "relu1_2", lambda: vgg.backward({"relu1_2": f}))  # used up


def test_kept_transforms_do_not_go_stale(xp):
    """Kernels wide enough for Winograd, float32 and float64 images in turn: each gets its own numbers."""
    rng, images = np.random.default_rng(0), photos(1, 6, 7, 3)
    w1, w2 = rng.standard_normal((3, 3, 3, 16)), 0.1 * rng.standard_normal((3, 3, 16, 17))
    weights = {"conv1_1": (w1, np.zeros(16)), "conv1_2": (w2, np.zeros(17))}
    vgg, expected = VGG16(weights, xp), reference_features(images, weights)["relu1_2"]
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-10)) * 2:
        f = vgg.forward(asarray(images.astype(dtype), xp), ("relu1_2",))["relu1_2"]
        assert f.dtype == dtype and vgg.backward({"relu1_2": f}).dtype == dtype
        assert_close(f, expected, tolerance)


def test_the_weights_that_ship():
    """A grey image has features that are flat away from the border, an edge has not."""
    vgg, photo = VGG16.load(), photos(1, 35, 34, 3, dtype=np.float32)
    assert repr(vgg).split()[-1] == "14,714,688" and len(vgg.layers.layers) == 13 + 4
    f = vgg.forward(photo, "relu4_3", training=False)["relu4_3"]
    assert f.shape == (1, 4, 4, 512) and f.dtype == np.float32
    assert np.isfinite(f).all() and f.min() == 0 < f.max()
    images = np.full((2, 12, 12, 3), 128, np.float32)
    images[1, :, :6], images[1, :, 6:] = 0, 255
    grey, edge = vgg.forward(images, "relu1_1", training=False)["relu1_1"][:, 2:-2, 2:-2]
    assert np.ptp(grey, axis=(0, 1)).max() < 1e-3 and np.ptp(edge, axis=(0, 1)).max() > 50
    if KERAS:  # ours are stored in half precision
        original = VGG16.load(KERAS).forward(photo, "relu4_3", training=False)["relu4_3"]
        assert np.linalg.norm(f - original) <= 3e-3 * np.linalg.norm(original)
