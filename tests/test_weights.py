import hashlib
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tinynst import cli
from tinynst.data import weights
from tinynst.errors import UserError
from tinynst.tools import weights as tool

ABOUT = {
    "kind": "style",
    "summary": "thick brush strokes",
    "style_image": "Münch.jpg",
    "iterations": 400,
    "settings": {"norm": "instance", "width": 8},
    "losses": {"content": 1 / 3, "style": 12.5},
}
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def example():
    draw = np.random.default_rng(0).standard_normal
    shapes = {"conv10.w": (3, 3, 4, 5), "conv2.w": (3, 3, 5, 6), "norm.gamma": (5,)}
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


def message_of(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """The command as it is run, in an empty folder: what it printed, or its one line of error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.run(tool.main, "weights", [str(argument) for argument in arguments])
        out, error = capsys.readouterr()
        assert end.value.code == 0 or (end.value.code, out, error.count("\n")) == (2, "", 1)
        return out if end.value.code == 0 else error

    return run


def test_round_trip_is_exact(tmp_path):
    arrays = example() | {"double": np.full((2, 2), 1 / 3), "one": np.array(2.5)}
    arrays["large"] = np.ones((100, 1000), np.float32)
    for name in ("a.h5", "b.h5"):
        weights.save(tmp_path / name, arrays, ABOUT)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.h5").stat().st_size < 50_000  # compressed: 400,000 bytes of numbers
    loaded, about = weights.load(tmp_path / "a.h5")
    assert about == ABOUT == weights.read_about(tmp_path / "a.h5") and list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == np.float32 and np.array_equal(loaded[name], array.astype(np.float32))
    assert weights.read_thumbnail(tmp_path / "a.h5") is None
    with pytest.raises(ValueError, match="kind"):
        weights.save(tmp_path / "c.h5", arrays, {"iterations": 3})


def test_half_rounds_kernels_and_keeps_vectors(tmp_path):
    outside = np.array([3e5, 1e-9], np.float32)  # of the range of float16
    arrays = example() | {"norm.running_var": outside}
    weights.save(tmp_path / "a.h5", arrays, ABOUT, half=True)
    for name, array in weights.load(tmp_path / "a.h5")[0].items():
        expected = arrays[name].astype(np.float16) if array.ndim > 1 else arrays[name]
        assert array.dtype == np.float32 and np.array_equal(array, expected)


def test_half_refuses_what_float16_cannot_hold(tmp_path):
    arrays = example()
    arrays["conv2.w"][0, 0, 0, 0] = 70_000
    assert "conv2.w has numbers beyond" in message_of(weights.save, tmp_path / "a.h5", arrays, ABOUT, True)
    arrays["conv2.w"][0, 0, 0, 0], arrays["conv10.w"][..., 3] = 0, 1e-9
    assert "conv10.w has a kernel" in message_of(weights.save, tmp_path / "a.h5", arrays, ABOUT, True)
    assert not any(tmp_path.iterdir())
    arrays["conv10.w"][..., 3] = 0
    weights.save(tmp_path / "b.h5", arrays, ABOUT, half=True)  # a kernel that was zero to begin with is fine


def test_shipped_and_find(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "ships")
    assert weights.shipped() == [] and "none ship" in message_of(weights.find, "waves")
    for name, kind in (("waves", "style"), ("candy", "style"), ("x4", "superres")):
        weights.save(tmp_path / "ships" / f"{name}.h5", example(), ABOUT | {"kind": kind})
    weights.save(tmp_path / "own.h5", example(), ABOUT)
    shipped = [weights.shipped(kind) for kind in ("style", "superres", None)]
    assert shipped == [["candy", "waves"], ["x4"], ["candy", "waves", "x4"]]
    assert weights.find("waves") == tmp_path / "ships" / "waves.h5"
    assert weights.find(tmp_path / "own.h5") == tmp_path / "own.h5"
    message = message_of(weights.find, "wave")
    assert "'wave'" in message and "candy, waves" in message and "x4" not in message
    assert "'x4' holds superres weights, not style weights" in message_of(weights.find, "x4")
    assert "no style weights called" in message_of(weights.find, str(tmp_path / "none.h5"))


@pytest.fixture
def narrow(monkeypatch):
    """VGG-16 with few channels, its file small: the number of layers and their names are the true ones."""
    monkeypatch.setattr(weights, "VGG16_CHANNELS", ((2, 3), (4, 3), (5, 4, 6), (4, 7, 4), (3, 4, 8)))
    draw, shapes = np.random.default_rng(0).standard_normal, weights.vgg16_shapes().items()
    return {name: (draw(s).astype(np.float32), draw(s[-1]).astype(np.float32)) for name, s in shapes}


def keras_name(name):
    return f"block{name[4]}_conv{name[6]}"


def write_named(kernel, bias, **others):
    """A file in which {0} is Keras's name of a layer, with other arrays."""

    def write(file, layers):
        for name, (w, b) in layers.items():
            file[kernel.format(keras_name(name))], file[bias.format(keras_name(name))] = w, b
        for name in others:
            file[name.replace("__", "/")] = np.ones((3, 3, 4, 4))

    return write


def write_numbered(root):
    def write(file, layers):
        for index, (w, b) in enumerate(layers.values()):
            name = f"{root}/conv2d_{index}" if index else f"{root}/conv2d"
            file[f"{name}/vars/0"], file[f"{name}/vars/1"] = w, b
        file[f"{root}/dense/vars/0"] = np.ones((4, 4))

    return write


APPLICATIONS = write_named("{0}/{0}_W_1:0", "{0}/{0}_b_1:0")  # the files that Keras downloads
KERAS_3 = write_numbered("layers")
OPTIMIZER = {f"a_optimizer_weights__block1_conv{k}__kernel:0": 0 for k in (1, 2)}  # not to be read
WHOLE = write_named("model_weights/{0}/{0}/kernel:0", "model_weights/{0}/{0}/bias:0", **OPTIMIZER)
KERAS = {
    "applications": APPLICATIONS,
    "with its top": write_named("{0}/{0}/kernel:0", "{0}/{0}/bias:0", **{"fc1__fc1__kernel:0": 0}),
    "whole model": WHOLE,
    "inside another": write_named("model_weights/vgg16/{0}/kernel:0", "model_weights/vgg16/{0}/bias:0"),
    "keras 3, legacy": write_named("{0}/{0}/kernel", "{0}/{0}/bias"),
    "keras 3": KERAS_3,
    "keras 2.13": write_numbered("_layer_checkpoint_dependencies"),
}


@pytest.mark.parametrize("version", KERAS)
def test_read_vgg16_as_keras_wrote_it(tmp_path, narrow, version):
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        KERAS[version](file, narrow)
    assert weights.read_about(tmp_path / "keras.h5")["kind"] == "vgg16"
    layers = weights.read_vgg16(tmp_path / "keras.h5")
    assert list(layers) == list(narrow)
    for name, arrays in narrow.items():
        for found, expected in zip(layers[name], arrays, strict=True):
            assert found.dtype == np.float32 and np.array_equal(found, expected)


def test_read_vgg16_names_the_layer_that_is_wrong(tmp_path, narrow):
    def message(layers, edit=lambda file: None):
        with h5py.File(tmp_path / "keras.h5", "w") as file:
            APPLICATIONS(file, layers)
            edit(file)
        return message_of(weights.read_vgg16, tmp_path / "keras.h5")

    less = {n: layer for n, layer in narrow.items() if n != "conv4_2"}
    assert "kernel of layer conv4_2 (block4_conv2 in Keras's names) is missing" in message(less)
    w, b = narrow["conv3_1"]
    theano = message(narrow | {"conv3_1": (w.transpose(3, 2, 0, 1), b)})
    assert "kernel of layer conv3_1" in theano and "shape (5, 3, 3, 3); it should be an" in theano
    assert "shape (4,); it should be an array of weights of shape (5)" in message(
        narrow | {"conv3_1": (w, b[1:])}
    )
    no_bias = message(narrow, lambda file: file.pop("block5_conv3/block5_conv3_b_1:0"))
    assert "bias of layer conv5_3" in no_bias and "is missing" in no_bias
    assert "is a VGG-19" in message(narrow, lambda file: file.update({"block3_conv4/w": w}))


def test_convert_vgg16_exactly_and_to_half(tmp_path, narrow):
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        APPLICATIONS(file, narrow)
    with h5py.File(tmp_path / "keras3.h5", "w") as file:
        KERAS_3(file, narrow)
    for source, target in (("keras", "full"), ("keras", "half"), ("half", "back"), ("keras3", "half3")):
        tool.convert(tmp_path / f"{source}.h5", tmp_path / f"{target}.h5", half="half" in target)
    assert (tmp_path / "half.h5").read_bytes() == (tmp_path / "half3.h5").read_bytes()
    full, half, back = (weights.read_vgg16(tmp_path / f"{name}.h5") for name in ("full", "half", "back"))
    for name, (w, b) in narrow.items():
        assert np.array_equal(full[name][0], w) and np.array_equal(half[name][0], w.astype(np.float16))
        assert np.array_equal(back[name][0], half[name][0])
        assert all(np.array_equal(layers[name][1], b) for layers in (full, half, back))
    digest = hashlib.sha256(b"".join(w.tobytes() + b.tobytes() for w, b in narrow.values())).hexdigest()
    for name in ("full", "half", "back"):
        assert weights.read_about(tmp_path / f"{name}.h5")["source_sha256"] == digest
    with h5py.File(tmp_path / "half.h5") as file:  # the lists that Keras loads by
        assert list(file.attrs["layer_names"]) == [keras_name(name) for name in narrow]
        names = list(file["block1_conv1"].attrs["weight_names"])
        assert names == ["block1_conv1_W_1:0", "block1_conv1_b_1:0"]
        assert file["block1_conv1/block1_conv1_W_1:0"].dtype == np.float16


def test_the_vgg16_that_ships():
    layers = weights.read_vgg16()
    assert list(layers) == list(weights.vgg16_shapes())
    assert sum(w.size + b.size for w, b in layers.values()) == 14_714_688
    for w, b in layers.values():
        assert np.isfinite(w).all() and np.isfinite(b).all()
        kernels = np.abs(w).max(axis=(0, 1, 2))
        assert kernels.min() > 0.01 and kernels.max() < 1  # float16 has few digits left below 6e-5
    assert "Simonyan" in weights.read_about(weights.find("vgg16", "vgg16"))["credit"]


@pytest.mark.parametrize("name", weights.shipped(None))
def test_each_net_that_ships_has_a_card(name):
    card = (weights.SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    content = (weights.SHIPPED / f"{name}.h5").read_bytes()
    assert f"`{hashlib.sha256(content).hexdigest()}`" in card and f"{len(content):,} bytes" in card
    assert len(content) <= 32_000_000
    if name != "vgg16":
        assert weights.read_about(weights.SHIPPED / f"{name}.h5")["kind"] in card
        assert (weights.SHIPPED / re.search(r"!\[[^]]*\]\((.+?)\)", card)[1]).is_file()


def test_list(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    assert "no weights ship" in run("list")
    weights.save("waves.h5", example(), ABOUT)
    weights.save("x4.h5", example(), {"kind": "superres", "factor": 4, "settings": {"width": 8}})
    lines = [line.split(maxsplit=4) for line in run("list").splitlines()]
    assert lines[0] == ["waves", "style", "0.0", "MB", "thick brush strokes"]
    assert lines[1] == ["x4", "superres", "0.0", "MB", "factor 4"] and len(lines) == 2


def test_show(run):
    weights.save("none.h5", example(), ABOUT, half=True)
    weights.save("a.h5", example(), ABOUT, thumbnail=PICTURE)
    printed = [line.strip() for line in run("show", "none.h5").splitlines()]
    facts = (
        "kind: style",
        "style_image: Münch.jpg",
        "iterations: 400",
        "norm: instance",
        f"content: {1 / 3}",
    )
    arrays = ("picture: none", "parameters: 455", "conv10.w: 3 x 3 x 4 x 5 float16", "norm.gamma: 5 float32")
    assert set(facts + arrays) <= set(printed)
    assert "7 x 5 pixels" in run("show", "a.h5", "--thumbnail", "out.png")
    assert np.array_equal(np.asarray(Image.open("out.png")), PICTURE)
    before = Path("a.h5").read_bytes()
    assert "holds no thumbnail" in run("show", "none.h5", "--thumbnail", "no.png")
    assert "must end in .png" in run("show", "a.h5", "--thumbnail", "a.h5")
    assert Path("a.h5").read_bytes() == before
    shown = run("show", "vgg16")
    assert all(text in shown for text in ("parameters: 14,714,688", "25.9 MB", "CC BY 4.0"))


def test_convert(run, tmp_path):
    weights.save("a.h5", example(), ABOUT, thumbnail=PICTURE)
    Path("link.h5").symlink_to("a.h5")
    Path("text.h5").write_text("hello")
    before = Path("a.h5").read_bytes()
    for source, target, why in (
        ("a.h5", tmp_path / "a.h5", "would overwrite"),
        ("a.h5", "link.h5", "would overwrite"),
        ("text.h5", "out.h5", "not an HDF5 file"),
        ("none.h5", "out.h5", "no such file"),
        ("text.h5", tmp_path, "is a folder"),
        ("a.h5", "/dev/null", "is a pipe or a device"),
    ):
        assert why in run("convert", source, target, "--half")
    assert Path("a.h5").read_bytes() == before and Path("link.h5").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "link.h5", "text.h5"]
    assert "same.h5" in run("convert", "a.h5", "same.h5") and Path("same.h5").read_bytes() == before
    run("convert", "a.h5", "half.h5", "--half")
    arrays, about = weights.load("half.h5")
    assert about == ABOUT and np.array_equal(weights.read_thumbnail("half.h5"), PICTURE)
    assert np.array_equal(arrays["conv2.w"], example()["conv2.w"].astype(np.float16))


@pytest.mark.parametrize(("share", "options"), [(0.7, ()), (0.25, ("--share", "0.25"))])
def test_blend_is_the_net_between(run, share, options):
    first, second = example(), {name: array + 1 for name, array in example().items()}
    weights.save("a.h5", first, {"kind": "superres", "summary": "pixels", "settings": {"width": 8}})
    about = {"kind": "superres", "summary": "features", "loss": "feature"}
    weights.save("b.h5", second, about, thumbnail=PICTURE)
    assert "wrote out.h5" in run("blend", "a.h5", "b.h5", "out.h5", *options)
    arrays, about = weights.load("out.h5")
    assert about["kind"] == "superres" and about["loss"] == "feature"
    assert about["blend"]["share"] == share and about["blend"]["first"]["settings"] == {"width": 8}
    assert f"features, {share:.0%}" in about["summary"]
    assert all(np.abs(array - first[name] - share).max() < 1e-6 for name, array in arrays.items())
    assert np.array_equal(weights.read_thumbnail("out.h5"), PICTURE)


def test_blend_refuses_what_does_not_fit(run):
    weights.save("a.h5", example(), ABOUT)
    weights.save("kind.h5", example(), {"kind": "superres"})
    weights.save("shape.h5", {**example(), "norm.gamma": np.ones(6, np.float32)}, ABOUT)
    before = Path("a.h5").read_bytes()
    for second in ("kind", "shape"):
        assert "not weights of the same net" in run("blend", "a.h5", f"{second}.h5", "out.h5")
    for share in ("-0.1", "nan"):
        assert "--share" in run("blend", "a.h5", "a.h5", "out.h5", f"--share={share}")
    assert "would overwrite" in run("blend", "a.h5", "a.h5", "a.h5")
    assert not Path("out.h5").exists() and Path("a.h5").read_bytes() == before
