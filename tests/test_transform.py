"""The style net and the super-resolution net: sizes in and out, Tables 1 and 2 inside, gradients of the
whole, and weights loaded into them."""

import numpy as np
import pytest
from cases import photos, refuses, slope

from tinynst import ops
from tinynst.data.weights import read_thumbnail
from tinynst.device import asarray, to_numpy
from tinynst.networks import style_net, super_resolution_net
from tinynst.samples import STYLES
from tinynst.tools.stylize import load_style
from tinynst.tools.superres import load_superres

VARIANTS = [(norm, upsample) for norm in ("instance", "batch") for upsample in ("transpose", "nearest")]
all_variants = pytest.mark.parametrize(("norm", "upsample"), VARIANTS)


@all_variants
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 30), (33, 64)], ids=str)
def test_the_size_comes_back(norm, upsample, size):
    net = style_net(norm, upsample, width=2)
    images = photos(1, *size, 3, dtype=np.float32)
    y = net.forward(images)
    assert y.shape == (1, *size, 3)
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert np.array_equal(images, photos(1, *size, 3, dtype=np.float32))
    dy = np.ones_like(net.forward(images, training=True))
    dx = net.backward(dy)
    assert dx.shape == images.shape
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("xp", ["strict", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
@all_variants
def test_on_a_gpu(xp, norm, upsample):
    """The numbers of NumPy, forward and backward; training and use differ for batch norm alone."""
    images, dy = photos(2, 6, 5, 3), np.random.default_rng(0).standard_normal((2, 6, 5, 3))
    results = []
    for module in (np, xp):
        net = style_net(norm, upsample, width=2, xp=module, dtype=np.float64)
        y = net.forward(asarray(images, module), training=True)
        dx = net.backward(asarray(dy, module))
        used = net.forward(asarray(images, module))
        arrays = {"y": y, "dx": dx, "used": used, **net.gradients(), **net.buffers()}
        results.append({name: to_numpy(array) for name, array in arrays.items()})
    for name, expected in results[0].items():
        assert np.abs(results[1][name] - expected).max() <= 1e-7 * np.abs(expected).max(), name
    same = np.array_equal(results[1]["y"], results[1]["used"])
    assert same == (norm == "instance")


@all_variants
def test_gradients_of_the_whole(norm, upsample):
    """By the image and by a dozen of the parameters, each as a whole, for a random dy."""
    net, images = style_net(norm, upsample, width=2, dtype=np.float64), photos(1, 6, 5, 3)
    rng = np.random.default_rng(0)
    dy = rng.standard_normal(images.shape)
    net.forward(images, training=True)
    dx = net.backward(dy)
    gradients, parameters = net.gradients(), net.parameters()
    assert list(gradients) == list(parameters)
    assert all(gradients[name].shape == p.shape for name, p in parameters.items())

    def along(name):
        def loss(value):
            parameters[name][...] = value
            return float((net.forward(images, training=True) * dy).sum())

        return loss

    names = ["conv1.w", "conv3_norm.gamma", "residual1.conv2.w", "up1.w", "out.w", "out.b"]
    names += list(rng.choice([name for name in parameters if name not in names], 6, replace=False))
    for name in names:
        at, g = parameters[name].copy(), gradients[name]
        direction = rng.standard_normal(at.shape)
        direction /= np.linalg.norm(direction)
        change = slope(along(name), at, direction, 1e-6)
        along(name)(at)
        assert abs((g * direction).sum() - change) <= 2e-6 * np.linalg.norm(g) + 1e-8, name
    direction = rng.standard_normal(images.shape)
    change = slope(lambda x: float((net.forward(x, training=True) * dy).sum()), images, direction, 1e-5)
    assert abs((dx * direction).sum() - change) <= 2e-6 * np.linalg.norm(dx)


def test_sizes_inside_are_those_of_table_1():
    net = style_net(width=1)
    x, sizes = photos(1, 256, 256, 3, dtype=np.float32), {}
    for name, layer in net.layers.layers.items():
        x = layer.forward(x, False)
        sizes[name] = x.shape[1:]
    table = {
        "pad": (336, 3),
        "conv1": (336, 1),
        "conv2": (168, 2),
        "conv3": (84, 4),
        "residual1": (80, 4),
        "residual5": (64, 4),
    }
    table |= {"up1": (128, 2), "up2": (256, 1), "out": (256, 3), "tanh": (256, 3)}
    assert {name: sizes[name] for name in table} == {
        name: (size, size, c) for name, (size, c) in table.items()
    }


@all_variants
def test_parameters_of_table_1(norm, upsample):
    """By name and shape, at the paper's width."""
    shapes = {name: p.shape for name, p in style_net(norm, upsample).parameters().items()}
    kernels = {
        "conv1": (9, 9, 3, 32),
        "conv2": (3, 3, 32, 64),
        "conv3": (3, 3, 64, 128),
        "out": (9, 9, 32, 3),
    }
    kernels |= {f"residual{k}.conv{i}": (3, 3, 128, 128) for k in range(1, 6) for i in (1, 2)}
    turned = upsample == "nearest"
    kernels |= {
        "up1": (3, 3, 128, 64) if turned else (3, 3, 64, 128),
        "up2": (3, 3, 64, 32) if turned else (3, 3, 32, 64),
    }
    norms = {"conv1": 32, "conv2": 64, "conv3": 128, "up1": 64, "up2": 32}
    expected = {f"{name}.w": shape for name, shape in kernels.items()} | {"out.b": (3,)}
    for array in ("gamma", "beta"):
        expected |= {f"{name}_norm.{array}": (c,) for name, c in norms.items()}
        expected |= {f"residual{k}.norm{i}.{array}": (128,) for k in range(1, 6) for i in (1, 2)}
    assert shapes == expected
    buffers = style_net(norm, upsample, width=2).buffers()
    assert len(buffers) == (2 * 15 if norm == "batch" else 0)


def test_no_residual_block_ends_in_relu_and_each_begins_with_one():
    net = style_net(width=1)
    for k in range(1, 6):
        inner = net.layers.layers[f"residual{k}"].layers
        assert (inner["norm1"].relu, inner["norm2"].relu) == (True, False)


def test_the_output_is_tanh_about_the_mean_colour():
    """A last convolution of zeros gives the mean colour everywhere; a large bias gives 150 to either side of
    it."""
    net = style_net(width=1, dtype=np.float64)
    p = net.parameters()
    p["out.w"][...] = 0
    p["out.b"][...] = [0, 50, -50]
    y = net.forward(photos(1, 5, 6, 3))
    assert np.abs(y - np.array([123.68, 116.779 + 150, 103.939 - 150])).max() < 1e-9


def test_seeds():
    a, b, c = (style_net(width=2, seed=seed).parameters()["residual3.conv1.w"] for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_backward_before_forward():
    net = style_net(width=1)
    dy = np.zeros((1, 8, 8, 3), np.float32)
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(dy)
    net.forward(dy)  # without training nothing is kept
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(dy)


def test_without_the_images_gradient():
    net, images = style_net(width=1, dtype=np.float64), photos(1, 5, 6, 3)
    net.forward(images, training=True)
    net.backward(np.ones_like(images))
    expected = net.gradients()
    net.forward(images, training=True)
    assert net.backward(np.ones_like(images), need=("w",)) is None
    for name, g in net.gradients().items():
        assert np.array_equal(g, expected[name])


@all_variants
def test_loaded_weights_are_the_net(xp, norm, upsample):
    """From NumPy arrays, of another dtype even, into the arrays that an optimiser may hold already."""
    source = style_net(norm, upsample, width=2, seed=1)
    images = photos(2, 6, 5, 3, dtype=np.float32)
    source.forward(images, training=True)  # moves batch norm's statistics
    arrays = {**source.parameters(), **source.buffers()}
    net = style_net(norm, upsample, width=2, xp=xp)
    held = net.parameters()
    net.load({name: array.astype(np.float64) for name, array in arrays.items()})
    assert all(net.parameters()[name] is array for name, array in held.items())
    y = to_numpy(net.forward(asarray(images, xp)))
    assert np.abs(y - source.forward(images)).max() < 0.05  # of 150; float32 on another device


def test_load_refuses_other_weights():
    net, other = style_net(width=2), style_net(width=3)
    own = net.parameters()
    before = {name: p.copy() for name, p in own.items()}
    refuses(ValueError, "conv1.w", lambda: net.load(other.parameters()))
    refuses(ValueError, "out.b", lambda: net.load({name: p for name, p in own.items() if name != "out.b"}))
    refuses(ValueError, "extra", lambda: net.load(own | {"extra": own["out.b"]}))
    late = {name: p + 1 for name, p in own.items()} | {
        "out.b": np.zeros(4, np.float32)
    }  # the last one is wrong
    refuses(ValueError, "out.b", lambda: net.load(late))
    for name, p in net.parameters().items():
        assert np.array_equal(p, before[name]), name


@pytest.mark.parametrize(
    ("options", "named"),
    [({"norm": "layer"}, "norm"), ({"upsample": "bicubic"}, "upsample"), ({"width": 0}, "width")],
)
def test_wrong_options_are_named(options, named):
    refuses(ValueError, named, lambda: style_net(**options))


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 4), (1, 8, 8, 1), (1, 0, 8, 3)])
def test_wrong_images_are_named(shape):
    refuses(ValueError, "images", lambda: style_net(width=1).forward(np.zeros(shape, np.float32)))


# --- several styles, and the other ways to pad and to enlarge ---


def gallery(xp=np, padding="each", names=("waves", "dots", "identity"), seed=2):
    """A small net of three styles whose rows differ."""
    net = style_net(upsample="smooth", width=2, styles=names, padding=padding, xp=xp, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for array in net.parameters().values():
        if array.ndim == 2:
            array += asarray(rng.uniform(-0.5, 0.5, array.shape), xp)
    return net


@pytest.mark.parametrize("padding", ["outer", "each"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (17, 30)], ids=str)
def test_the_size_comes_back_with_each_padding(padding, size):
    net, images = gallery(padding=padding), photos(2, *size, 3)
    y = net.forward(images, training=True, style="dots")
    assert y.shape == images.shape and np.isfinite(y).all()
    dx = net.backward(np.ones_like(y))
    assert dx.shape == images.shape and np.isfinite(dx).all()


def test_one_style_is_todays_net_and_several_differ_in_their_norms_alone():
    assert style_net(styles=1, width=2).styles == ()
    plain, several = style_net(width=2).parameters(), style_net(width=2, styles=3).parameters()
    assert list(plain) == list(several)
    for name, p in plain.items():
        if name.endswith(("gamma", "beta")):
            assert several[name].shape == (3, *p.shape)
        else:
            assert np.array_equal(several[name], p)
    assert style_net(width=2, styles=2).styles == ("style1", "style2")


@pytest.mark.parametrize("padding", ["outer", "each"])
def test_a_row_is_the_net_of_one_style_with_its_numbers(padding):
    net, images = gallery(padding=padding), photos(2, 9, 6, 3)
    for row, name in enumerate(net.styles):
        one = style_net(upsample="smooth", width=2, padding=padding, dtype=np.float64)
        one.load({key: p[row] if p.ndim == 2 else p for key, p in net.parameters().items()})
        expected = one.forward(images)
        for style in (row, name, {name: 3.0}):
            assert np.abs(net.forward(images, style=style) - expected).max() < 1e-10
    assert np.array_equal(
        net.forward(images), net.forward(images, style="waves")
    )  # its first, where it is not told
    net.style = net.mixture("dots")
    assert np.array_equal(net.forward(images), net.forward(images, style=1))


def test_a_mixture_mixes_the_rows_and_each_image_may_have_its_own():
    net, images = gallery(), photos(2, 9, 6, 3)
    half = style_net(upsample="smooth", width=2, padding="each", dtype=np.float64)
    half.load({key: p[:2].mean(axis=0) if p.ndim == 2 else p for key, p in net.parameters().items()})
    assert np.abs(net.forward(images, style={"waves": 2, "dots": 2}) - half.forward(images)).max() < 1e-10
    both = net.forward(images, style=np.array([[1.0, 0, 0], [0, 0, 1.0]]))
    for k, name in enumerate(("waves", "identity")):
        assert np.abs(both[k] - net.forward(images[k : k + 1], style=name)[0]).max() < 1e-10


@pytest.mark.parametrize(
    "style", ["stars", 3, -1, {"waves": -1.0}, {"waves": float("nan")}, {"waves": 0.0}, 0.5]
)
def test_wrong_styles_are_named(style):
    with pytest.raises(ValueError, match=r"style|share"):
        gallery().forward(photos(1, 8, 8, 3), style=style)


def test_a_net_of_one_style_takes_none():
    with pytest.raises(ValueError, match="one style only"):
        style_net(width=1).forward(photos(1, 8, 8, 3, dtype=np.float32), style="waves")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"padding": "zero"}, "padding"),
        ({"styles": 0}, "styles"),
        ({"styles": ["a", "a"]}, "styles"),
        ({"styles": 2, "norm": "batch"}, "norm"),
    ],
)
def test_wrong_options_of_many_styles_are_named(options, named):
    refuses(ValueError, named, lambda: style_net(**options))


@pytest.mark.parametrize("padding", ["outer", "each"])
def test_gradients_of_the_whole_with_a_style_for_each_image(padding):
    net, images = gallery(padding=padding), photos(2, 6, 5, 3)
    mix = np.array([[0.3, 0.7, 0.0], [0.0, 0.0, 1.0]])
    rng = np.random.default_rng(0)
    dy = rng.standard_normal(images.shape)
    net.forward(images, training=True, style=mix)
    dx = net.backward(dy)
    gradients, parameters = net.gradients(), net.parameters()
    assert list(gradients) == list(parameters)

    def along(name):
        def loss(value):
            parameters[name][...] = value
            return float((net.forward(images, style=mix) * dy).sum())

        return loss

    for name in (
        "conv1.w",
        "conv2_norm.gamma",
        "residual3.norm1.beta",
        "residual4.conv1.w",
        "up1.w",
        "up2_norm.gamma",
        "out.w",
    ):
        at, g = parameters[name].copy(), gradients[name]
        direction = rng.standard_normal(at.shape)
        change = slope(along(name), at, direction / np.linalg.norm(direction), 1e-6)
        along(name)(at)
        assert (
            abs((g * direction).sum() / np.linalg.norm(direction) - change) <= 2e-6 * np.linalg.norm(g) + 1e-8
        ), name
    direction = rng.standard_normal(images.shape)
    change = slope(lambda x: float((net.forward(x, style=mix) * dy).sum()), images, direction, 1e-5)
    assert abs((dx * direction).sum() - change) <= 2e-6 * np.linalg.norm(dx)


def test_norms_alone_can_be_learnt():
    net, images = gallery(), photos(1, 6, 5, 3)
    net.forward(images, training=True, style="dots")
    dx = net.backward(np.ones_like(images))
    everything = net.gradients()
    net.learn_norms_only()
    net.forward(images, training=True, style="dots")
    assert np.array_equal(net.backward(np.ones_like(images)), dx)
    assert (
        list(net.gradients())
        == list(net.learnt())
        == [n for n in everything if n.endswith(("gamma", "beta"))]
    )
    for name, gradient in net.gradients().items():
        assert np.array_equal(gradient, everything[name])
        assert (
            not gradient[0].any() and gradient[1].any() and not gradient[2].any()
        )  # of the style in use alone


@pytest.mark.parametrize("xp", ["strict", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
def test_many_styles_on_a_gpu(xp):
    images, dy = photos(2, 6, 5, 3), np.random.default_rng(0).standard_normal((2, 6, 5, 3))
    results = []
    for module in (np, xp):
        net = gallery(
            module, "outer"
        )  # with "each" some shifts are taken out again by the next norm: gradients of zero
        y = net.forward(asarray(images, module), training=True, style={"waves": 1, "identity": 2})
        dx = net.backward(asarray(dy, module))
        results.append(
            {name: to_numpy(array) for name, array in {"y": y, "dx": dx, **net.gradients()}.items()}
        )
    for name, expected in results[0].items():
        assert np.abs(results[1][name] - expected).max() <= 1e-7 * np.abs(expected).max(), name


# --- super-resolution ---

SUPERRES = [
    {"factor": 2},
    {"factor": 4, "norm": "none", "residual": True},
    {"factor": 4, "upsample": "nearest", "residual": True},
    {"factor": 8, "norm": "none", "upsample": "nearest"},
]
all_superres = pytest.mark.parametrize("options", SUPERRES, ids=str)


@all_superres
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 5)], ids=str)
def test_the_size_times_the_factor(options, size):
    net, images = super_resolution_net(**options, width=2), photos(2, *size, 3, dtype=np.float32)
    before = images.copy()
    y = net.forward(images, training=True)
    assert y.shape == (2, *(options["factor"] * side for side in size), 3) and y.dtype == np.float32
    dx = net.backward(np.ones_like(y))
    assert dx.shape == images.shape and np.isfinite(dx).all() and np.isfinite(y).all()
    assert np.array_equal(images, before)
    if net.buffers():
        assert not np.array_equal(net.forward(images), y)  # the running statistics, not the batch's


@all_superres
def test_superres_gradients_of_the_whole(options):
    """By the image and by every parameter, each as a whole, for a random dy."""
    net, images = super_resolution_net(**options, width=3, dtype=np.float64), photos(2, 4, 5, 3)
    rng = np.random.default_rng(0)
    for p in net.parameters().values():  # from the start's zeros and ones, where a lost term would not show
        p += 0.1 * rng.standard_normal(p.shape) * (p.ndim == 1)
    dy = rng.standard_normal(net.forward(images, training=True).shape)
    dx = net.backward(dy)
    gradients, parameters = net.gradients(), net.parameters()
    assert list(gradients) == list(parameters)

    def loss(x):
        return float((net.forward(x, training=True) * dy).sum())

    for name, p in parameters.items():
        at, g = p.copy(), gradients[name]
        direction = rng.standard_normal(at.shape)
        direction /= np.linalg.norm(direction)

        def along(value, p=p):
            p[...] = value
            return loss(images)

        change = slope(along, at, direction, 1e-6)
        p[...] = at
        assert abs((g * direction).sum() - change) <= 1e-5 * np.linalg.norm(g) + 2e-5, name
    direction = rng.standard_normal(images.shape)
    assert abs((dx * direction).sum() - slope(loss, images, direction, 1e-5)) <= 1e-5 * np.linalg.norm(dx)


@pytest.mark.parametrize("xp", ["strict", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
@all_superres
def test_superres_on_a_gpu(xp, options):
    images, results = photos(2, 4, 5, 3), []
    for module in (np, xp):
        net = super_resolution_net(**options, width=2, xp=module, dtype=np.float64)
        y = net.forward(asarray(images, module), training=True)
        dx = net.backward(asarray(np.random.default_rng(0).standard_normal(y.shape), module))
        arrays = {"y": y, "dx": dx, **net.gradients(), **net.buffers()}
        results.append({name: to_numpy(array) for name, array in arrays.items()})
    for name, expected in results[0].items():
        assert np.abs(results[1][name] - expected).max() <= 1e-7 * np.abs(expected).max() + 1e-12, name


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_parameters_of_table_2(factor):
    """By name and shape, at the paper's width and with the paper's options."""
    net = super_resolution_net(factor)
    ups = [f"up{k}" for k in range(1, {2: 1, 4: 2, 8: 3}[factor] + 1)]
    kernels = {"conv1": (9, 9, 3, 64), "out": (9, 9, 64, 3)} | {up: (3, 3, 64, 64) for up in ups}
    kernels |= {f"residual{k}.conv{i}": (3, 3, 64, 64) for k in range(1, 5) for i in (1, 2)}
    norms = [
        "conv1_norm",
        *(f"{up}_norm" for up in ups),
        *(f"residual{k}.norm{i}" for k in range(1, 5) for i in (1, 2)),
    ]
    expected = {f"{name}.w": shape for name, shape in kernels.items()} | {"out.b": (3,)}
    expected |= {f"{name}.{array}": (64,) for name in norms for array in ("gamma", "beta")}
    assert {name: p.shape for name, p in net.parameters().items()} == expected
    assert set(net.buffers()) == {f"{name}.running_{what}" for name in norms for what in ("mean", "var")}


def test_without_norm_there_are_biases_and_relus_in_the_same_places():
    layers = super_resolution_net(4, norm="none", width=2).layers.layers
    assert [name for name in layers if "relu" in name] == ["conv1_relu", "up1_relu", "up2_relu"]
    assert list(layers["residual1"].layers) == ["conv1", "relu1", "conv2"]
    names = super_resolution_net(4, norm="none", upsample="nearest", width=2).parameters()
    assert {name for name in names if not name.endswith(".w")} == {
        f"{name[:-2]}.b" for name in names if name.endswith(".w")
    }


def test_with_residual_it_starts_as_bicubic_and_saturates_about_it():
    images = photos(1, 9, 7, 3)
    bicubic, _ = ops.upsample_bicubic(images, 4)
    net = super_resolution_net(4, residual=True, dtype=np.float64)
    assert np.abs(net.forward(images, training=True) - bicubic).max() < 5
    net.parameters()["out.w"][...] = 0
    net.parameters()["out.b"][...] = [0, 50, -50]
    assert np.abs(net.forward(images) - bicubic - np.array([0, 150, -150])).max() < 1e-9


def test_without_residual_the_output_is_tanh_about_the_mean_colour():
    net = super_resolution_net(2, width=1, dtype=np.float64)
    net.parameters()["out.w"][...] = 0
    net.parameters()["out.b"][...] = [0, 50, -50]
    y = net.forward(photos(1, 5, 6, 3))
    assert np.abs(y - np.array([123.68, 116.779 + 150, 103.939 - 150])).max() < 1e-9


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"factor": 3}, "factor"),
        ({"norm": "instance"}, "norm"),
        ({"upsample": "bicubic"}, "upsample"),
        ({"width": 0}, "width"),
    ],
)
def test_wrong_superres_options_are_named(options, named):
    refuses(ValueError, named, lambda: super_resolution_net(**{"factor": 2, **options}))


def test_superres_backward_without_forward_and_with_a_wrong_dy():
    net = super_resolution_net(2, width=1)
    dy = np.zeros((1, 8, 8, 3), np.float32)
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(dy)
    net.forward(dy, training=True)
    refuses(ValueError, "dy", lambda: net.backward(dy))
    refuses(ValueError, "images", lambda: net.forward(dy[..., :2]))
    net.forward(dy, training=True)
    assert net.backward(np.zeros((1, 16, 16, 3), np.float32), need=("w",)) is None


# --- printed and saved ---


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (style_net(width=2), (256, 256)),
        (style_net(upsample="smooth", width=2, styles=2, padding="each"), (256, 256)),
        (super_resolution_net(4, norm="none", upsample="nearest", width=2), (64, 64)),
    ],
)
def test_a_net_prints_its_layers(net, size):
    """The table's shapes are those of a forward pass, and its parameters those of the net."""
    rows = [line.split() for line in repr(net).splitlines()[2:]]
    x = photos(1, *size, 3, dtype=np.float32)
    mix = np.full((1, 2), 0.5, np.float32)
    for (name, layer), row in zip(net.layers.layers.items(), rows[:-1], strict=True):
        x = layer.forward(x, False, mix) if layer.conditional else layer.forward(x)
        assert row[:3] == [name, type(layer).__name__, "x".join(map(str, x.shape[1:]))]
    counts = [int(row[3].replace(",", "")) for row in rows[:-1] if len(row) > 3]
    assert sum(counts) == int(rows[-1][-1].replace(",", "")) == sum(p.size for p in net.parameters().values())


@pytest.mark.parametrize(
    "options", [{}, {"upsample": "smooth", "padding": "each"}, {"styles": ("dots", "waves")}]
)
def test_a_saved_style_net_is_loaded_by_the_commands(tmp_path, options):
    net, images = style_net(width=2, seed=3, **options), photos(1, 7, 9, 3, dtype=np.float32)
    net.save(tmp_path / "mine.h5", style=None if net.styles else STYLES / "starry_night.jpg")
    loaded = load_style(tmp_path / "mine.h5")
    assert np.array_equal(loaded.forward(images), net.forward(images))
    assert loaded.options == net.options and loaded.styles == net.styles
    thumbnail = read_thumbnail(tmp_path / "mine.h5")
    assert thumbnail is None if net.styles else max(thumbnail.shape) == 128


def test_a_saved_super_resolution_net_is_loaded_by_the_commands(tmp_path):
    net, images = super_resolution_net(2, "none", "nearest", True, 2), photos(1, 7, 9, 3, dtype=np.float32)
    net.save(tmp_path / "mine.h5")
    loaded, about = load_superres(tmp_path / "mine.h5")
    assert np.array_equal(loaded.forward(images), net.forward(images))
    assert about["factor"] == 2


def test_images_on_another_device_are_named(strict):
    refuses(TypeError, "to_numpy", lambda: style_net(width=1).forward(strict.zeros((1, 8, 8, 3))))
