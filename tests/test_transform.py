"""The style net and the super-resolution net: sizes, Tables 1 and 2, gradients, styles, files."""

import hashlib
from functools import partial

import numpy as np
import pytest
from cases import assert_close, photos, refuses, slope

from tinynst import ops
from tinynst.data.weights import read_thumbnail
from tinynst.device import asarray, to_numpy
from tinynst.networks import style_net, super_resolution_net
from tinynst.samples import STYLES
from tinynst.tools.stylize import load_style
from tinynst.tools.superres import load_superres

# The super-resolution net's factor, or None for a style net; options; a checksum of names, shapes and values.
NETS = {
    "style": (None, {}, "aff232f8"),
    "batch, nearest": (None, {"norm": "batch", "upsample": "nearest"}, "fa887a64"),
    "3 styles": (None, {"styles": ("waves", "dots", "identity")}, "45d2ded5"),
    "3 styles, smooth": (None, {"styles": 3, "upsample": "smooth", "padding": "each"}, "f4e00225"),
    "x2": (2, {}, "6be6ee34"),
    "x4, none": (4, {"norm": "none", "residual": True}, "5d6ab283"),
    "x4, nearest": (4, {"upsample": "nearest", "residual": True}, "90eb1da9"),
    "x8, none, nearest": (8, {"norm": "none", "upsample": "nearest"}, "854ec2d3"),
}
MIX = np.array([[0.3, 0.7, 0.0], [0.1, 0.0, 0.9]])
nets = pytest.mark.parametrize("name", NETS)


def make(name, vary=True, dtype=np.float64, **kind):
    """A small net. With `vary`, its norms and biases are not all ones and zeros, and its styles differ."""
    factor, options, _ = NETS[name]
    options, rng = {**options, "width": 2, "dtype": dtype, **kind}, np.random.default_rng(1)
    net = super_resolution_net(factor, **options) if factor else style_net(**options)
    for p in net.parameters().values():
        if vary and p.ndim < 3:
            p += asarray(rng.uniform(-0.4, 0.4, p.shape).astype(dtype), net.xp)
    return net


def run(net, images):
    """A training forward; a style net of several styles mixes them differently in each image."""
    return net.forward(images, True, *([MIX] if getattr(net, "styles", ()) else []))


@nets
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (17, 30)], ids=str)
def test_sizes(name, size):
    net, images = make(name, dtype=np.float32), photos(2, *size, 3, dtype=np.float32)
    before, y, factor = images.copy(), run(net, images), NETS[name][0] or 1
    dx = net.backward(np.ones_like(y))
    assert y.shape == (2, factor * size[0], factor * size[1], 3) and dx.shape == images.shape
    assert dx.dtype == y.dtype == np.float32 and np.isfinite(y).all() and np.isfinite(dx).all()
    assert np.array_equal(images, before)
    if not getattr(net, "styles", ()):  # outside training, batch norm takes its running statistics
        assert np.array_equal(net.forward(images), y) == (not net.buffers())


@nets
def test_gradients_and_loaded_weights(xp, name):
    """With respect to the images, and to all parameters at once, along a direction in which each counts."""
    net, source, images = make(name, False, seed=1, xp=xp), make(name), photos(2, 6, 5, 3)
    rng = np.random.default_rng(0)
    parameters = net.parameters()
    net.load(source.parameters() | source.buffers())  # into the arrays that an optimiser may hold already
    expected, y = run(source, images), run(net, asarray(images, xp))
    for a, reference in ((y, expected), *zip(net.buffers().values(), source.buffers().values(), strict=True)):
        assert_close(a, reference, 1e-9)
    dy = asarray(rng.standard_normal(y.shape), xp)
    dx, gradients = to_numpy(net.backward(dy)), {key: to_numpy(g) for key, g in net.gradients().items()}
    run(net, asarray(images, xp))
    assert net.backward(dy, need=("w",)) is None and list(net.gradients()) == list(parameters)
    assert all(np.array_equal(to_numpy(g), gradients[key]) for key, g in net.gradients().items())
    norms = {key: np.linalg.norm(g) for key, g in gradients.items()}
    least = 1e-2 * max(norms.values())  # a shift that the next norm removes has a gradient of zero
    start = {key: to_numpy(p).copy() for key, p in parameters.items()}
    along = {key: rng.standard_normal(g.shape) / max(norms[key], least) for key, g in gradients.items()}

    def loss(step, toward=0.0):
        for key, p in parameters.items():
            p[...] = asarray(start[key] + step * along[key], xp)
        return float((run(net, asarray(images + toward, xp)) * dy).sum())

    change = slope(loss, 0.0, 1.0, 1e-6 * least)
    predicted = {key: float((g * along[key]).sum()) for key, g in gradients.items()}
    assert abs(sum(predicted.values()) - change) <= 1e-5, predicted
    toward = rng.standard_normal(images.shape)
    change = slope(lambda x: loss(0.0, x), 0 * images, toward, 1e-5)
    assert abs((dx * toward).sum() - change) <= 1e-5 * np.linalg.norm(dx)


@nets
def test_names_and_seeds(name):
    """All names, shapes and values, pinned: a seed means the same net in each version."""
    digests = [hashlib.sha256(), hashlib.sha256()]
    for seed, digest in enumerate(digests):
        net = make(name, False, np.float32, seed=seed)
        for key, array in (net.parameters() | net.buffers()).items():
            digest.update(f"{key}{array.shape}".encode() + array.tobytes())
    assert digests[0].hexdigest()[:8] == NETS[name][2] != digests[1].hexdigest()[:8]


TABLE_1 = """336x336x3 336x336x32 168x168x64 84x84x128 80x80x128 76x76x128 72x72x128 68x68x128 64x64x128
    128x128x64 256x256x32 256x256x3 256x256x3 1,677,635"""
TABLE_2 = f"{'64x64x64 ' * 5} 128x128x64 256x256x64 256x256x3 256x256x3 401,155"


@pytest.mark.parametrize(("net", "table"), [(style_net(), TABLE_1), (super_resolution_net(4), TABLE_2)])
def test_layers_of_the_papers_tables(net, table):
    """The output sizes that a net prints; ReLU after every norm but the second of each residual block."""
    rows = [line.split() for line in repr(net).splitlines()[2:]]
    assert [row[2] for row in rows if "norm" not in row[0]] == table.split()
    norms = [layer for layer in net.layers.leaves().values() if "gamma" in layer.parameters()]
    blocks = [layer for name, layer in net.layers.layers.items() if name.startswith("residual")]
    assert [norm for norm in norms if not norm.relu] == [block.layers["norm2"] for block in blocks]


@pytest.mark.parametrize(("name", "count"), [("style", 0), ("x2", 0), ("x4, none", 7)])
def test_the_output_is_tanh_about_the_mean_colour_or_the_bicubic_enlargement(name, count):
    """Without norms, ReLU is a layer: after conv1, up1, up2 and inside the four residual blocks."""
    net, images, mean = make(name, vary=False), photos(1, 8, 4, 3), np.array([123.68, 116.779, 103.939])
    assert [type(layer).__name__ for layer in net.layers.leaves().values()].count("ReLU") == count
    base = ops.upsample_bicubic(images, 4)[0] if net.options.get("residual") else mean
    inner = net.layers.forward((images - mean) / (1 if net.kind == "style" else 150))
    assert np.abs(net.forward(images) - base - inner).max() < 1e-9
    assert np.abs(inner).max() < 5 or base is mean  # it starts as the enlargement
    net.parameters()["out.w"][...] = 0
    net.parameters()["out.b"][...] = [0, 50, -50]
    assert np.abs(net.forward(images) - base - [0, 150, -150]).max() < 1e-9


def test_wrong_options_are_named():
    for build, wrong in (
        (style_net, {"norm": ["layer"], "upsample": ["bicubic"], "padding": ["zero"], "width": [0]}),
        (partial(style_net, styles=2), {"norm": ["batch"], "styles": [0, ["a", "a"]]}),
        (super_resolution_net, {"factor": [3]}),
        (partial(super_resolution_net, 2), {"norm": ["instance"], "upsample": ["smooth"], "width": [0]}),
    ):
        for name, value in ((name, value) for name, values in wrong.items() for value in values):
            refuses(ValueError, name, partial(build, **{name: value}))


@pytest.mark.parametrize("name", ["style", "x2"])
def test_wrong_images_weights_and_dy_are_named(name):
    """A wrong weights file changes nothing, also where only its last array is wrong."""
    net, images = make(name), photos(1, 8, 8, 3)
    for wrong in (images[0], images[..., :2], images[:, :0]):
        refuses(ValueError, "images", partial(net.forward, wrong))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="forward"):
            net.backward(images)
        net.forward(images)  # keeps nothing
    net.forward(images, training=True)
    refuses(ValueError, "dy", lambda: net.backward(images[:, :6]))
    before = {key: p.copy() for key, p in (net.parameters() | net.buffers()).items()}
    other = {key: p + 1 for key, p in before.items()}
    for key, array in {"conv1.w": images, "out.b": np.zeros(4), "more": images}.items():
        refuses(ValueError, key, partial(net.load, other | {key: array}))
    del other["out.b"]
    refuses(ValueError, "out.b", partial(net.load, other))
    assert all(np.array_equal(p, before[key]) for key, p in net.parameters().items())


@pytest.mark.parametrize("name", ["3 styles", "3 styles, smooth"])
def test_a_mixture_is_the_net_of_one_style_with_mixed_rows(name):
    """By number, name, or shares, which need not sum to one; or one for each image."""
    net, images = make(name), photos(2, 9, 6, 3)
    first, second, third = net.styles
    assert net.style.tolist() == [1, 0, 0]
    net.style = net.mixture(second)

    def of(*mix):
        one = style_net(**net.options, dtype=np.float64)
        one.load({key: np.array(mix) @ p if p.ndim == 2 else p for key, p in net.parameters().items()})
        return one.forward(images)

    for style, expected in (
        (0, of(1, 0, 0)),
        ({third: 3.0}, of(0, 0, 1)),
        ({first: 2, second: 6}, of(0.25, 0.75, 0)),
        (None, of(0, 1, 0)),  # the net's own
        (MIX, np.stack([of(*row)[k] for k, row in enumerate(MIX)])),
    ):
        assert np.abs(net.forward(images, style=style) - expected).max() < 1e-9
    for wrong in ("stars", 3, -1, 0.5, {first: -1.0}, {first: float("nan")}, {first: 0.0}):
        with pytest.raises(ValueError, match=r"style|share"):
            net.forward(images, style=wrong)
    refuses(ValueError, "style", partial(make("style").forward, images, style=first))
    assert style_net(styles=1, width=1).styles == () and make("3 styles, smooth").styles[2] == "style3"


def test_norms_alone_can_be_learnt():
    net, images = make("3 styles"), photos(1, 6, 5, 3)
    net.learn_norms_only()
    net.forward(images, training=True, style="dots")
    assert net.backward(np.ones_like(images)).any()
    assert list(net.gradients()) == list(net.learnt()) == [key for key in net.parameters() if "norm" in key]
    for g in net.gradients().values():
        assert g.any(axis=1).tolist() == [False, True, False]  # of the style in use alone


@pytest.mark.parametrize("name", ["style", "batch, nearest", "3 styles, smooth", "x4, nearest"])
def test_a_saved_net_is_loaded_by_the_commands(tmp_path, name):
    net, images = make(name, dtype=np.float32), photos(1, 7, 9, 3, dtype=np.float32)
    painting = STYLES / "starry_night.jpg" if name == "style" else None
    net.save(tmp_path / "mine.h5", style=painting)
    thumbnail = read_thumbnail(tmp_path / "mine.h5")
    assert max(thumbnail.shape) == 128 if painting else thumbnail is None
    load = load_style if net.kind == "style" else lambda path: load_superres(path)[0]
    loaded = load(tmp_path / "mine.h5")
    assert np.array_equal(loaded.forward(images), net.forward(images)) and loaded.options == net.options
    assert getattr(loaded, "styles", ()) == getattr(net, "styles", ())
