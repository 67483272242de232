import hashlib
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tinynst import cli
from tinynst.data import checkpoint, weights
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


def example():
    rng = np.random.default_rng(0)
    return {
        "conv10.w": rng.standard_normal((3, 3, 4, 5)).astype(np.float32),
        "conv2.w": rng.standard_normal((3, 3, 5, 6)).astype(np.float32),
        "norm.gamma": rng.standard_normal(5).astype(np.float32),
    }


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
    arrays = example()
    arrays["double"], arrays["one"] = np.full((2, 2), 1 / 3), np.array(2.5)
    arrays["large"] = np.ones((100, 1000), np.float32)
    for name in ("a.h5", "b.h5"):
        weights.save(tmp_path / name, arrays, ABOUT)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.h5").stat().st_size < 50_000  # compressed: 400,000 bytes of numbers
    loaded, about = weights.load(tmp_path / "a.h5")
    assert about == ABOUT == weights.read_about(tmp_path / "a.h5")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == np.float32
        assert np.array_equal(loaded[name], array.astype(np.float32))
    assert weights.read_thumbnail(tmp_path / "a.h5") is None


def test_half_rounds_kernels_and_keeps_vectors(tmp_path):
    outside = np.array([3e5, 1e-9], np.float32)  # of the range of float16
    arrays = example() | {"norm.running_var": outside}
    weights.save(tmp_path / "a.h5", arrays, ABOUT, half=True)
    loaded, _ = weights.load(tmp_path / "a.h5")
    for name, array in arrays.items():
        assert loaded[name].dtype == np.float32
        expected = array.astype(np.float16) if array.ndim > 1 else array
        assert np.array_equal(loaded[name], expected)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["arrays/conv2.w"].dtype == np.float16


def test_half_refuses_what_float16_cannot_hold(tmp_path):
    large = example()
    large["conv2.w"][0, 0, 0, 0] = 70_000
    assert "conv2.w has numbers beyond" in message_of(weights.save, tmp_path / "a.h5", large, ABOUT, True)
    small = example()
    small["conv10.w"][..., 3] = 1e-9
    assert "conv10.w has a kernel" in message_of(weights.save, tmp_path / "a.h5", small, ABOUT, True)
    assert not any(tmp_path.iterdir())
    weights.save(tmp_path / "a.h5", small, ABOUT)  # in float32 they are no trouble
    small["conv10.w"][..., 3] = 0
    weights.save(tmp_path / "b.h5", small, ABOUT, half=True)  # nor is a kernel that was zero to begin with


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="kind"):
        weights.save(tmp_path / "a.h5", example(), {"iterations": 3})
    with pytest.raises(ValueError, match=r"\(4, 4\) uint8"):
        weights.save(tmp_path / "a.h5", example(), ABOUT, thumbnail=np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        weights.save(tmp_path / "a.h5", example(), ABOUT, thumbnail=np.zeros((4, 4, 3), np.float32))
    assert not any(tmp_path.iterdir())


def test_load_says_what_is_wrong(tmp_path):
    assert "does not exist; expected weights" in message_of(weights.load, tmp_path / "none.h5")
    assert "is a folder" in message_of(weights.load, tmp_path)
    (tmp_path / "photo.h5").write_bytes(b"\x89PNG" * 100)
    assert "not an HDF5 file" in message_of(weights.load, tmp_path / "photo.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["images"] = np.zeros(3)
    assert "some other program" in message_of(weights.load, tmp_path / "foreign.h5")
    checkpoint.save(tmp_path / "run.h5", {"weights": example()}, {})
    assert "tinynst checkpoint; expected weights" in message_of(weights.load, tmp_path / "run.h5")
    weights.save(tmp_path / "new.h5", example(), ABOUT)
    with h5py.File(tmp_path / "new.h5", "a") as file:
        file.attrs["version"] = weights.VERSION + 1
    assert "newer tinynst" in message_of(weights.load, tmp_path / "new.h5")


def test_truncated_and_damaged(tmp_path):
    path = tmp_path / "a.h5"
    weights.save(path, example(), ABOUT)
    content = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["arrays/conv2.w"].id.get_chunk_info(0)
    path.write_bytes(content[:-10])
    assert "cut short" in message_of(weights.load, path)
    inside = chunk.byte_offset + chunk.size // 2
    path.write_bytes(content[:inside] + bytes(20) + content[inside + 20 :])
    assert "is damaged" in message_of(weights.load, path)


def test_shipped_and_find(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "ships")
    assert weights.shipped() == []
    assert "none ship" in message_of(weights.find, "waves", "style")
    for name, kind in (("waves", "style"), ("candy", "style"), ("x4", "superres")):
        weights.save(tmp_path / "ships" / f"{name}.h5", example(), ABOUT | {"kind": kind})
    weights.save(tmp_path / "own.h5", example(), ABOUT)
    assert weights.shipped() == ["candy", "waves"]
    assert weights.shipped("superres") == ["x4"]
    assert weights.shipped(None) == ["candy", "waves", "x4"]
    assert weights.find("waves", "style") == tmp_path / "ships" / "waves.h5"
    assert weights.find(tmp_path / "own.h5", "style") == tmp_path / "own.h5"
    message = message_of(weights.find, "wave", "style")
    assert "'wave'" in message and "candy, waves" in message and "x4" not in message
    assert "'x4' holds superres weights, not style weights" in message_of(weights.find, "x4", "style")
    assert "no style weights called" in message_of(weights.find, str(tmp_path / "none.h5"), "style")
    (tmp_path / "photo.jpg").write_bytes(b"no")
    assert "not an HDF5 file" in message_of(weights.find, tmp_path / "photo.jpg", "style")


@pytest.fixture
def narrow(monkeypatch):
    """VGG-16 with few channels, its file small: the number of layers and their names are the true ones."""
    monkeypatch.setattr(weights, "VGG16_CHANNELS", ((2, 3), (4, 3), (5, 4, 6), (4, 7, 4), (3, 4, 8)))
    draw = np.random.default_rng(0).standard_normal
    shapes = weights.vgg16_shapes().items()
    return {name: (draw(s).astype(np.float32), draw(s[-1]).astype(np.float32)) for name, s in shapes}


def keras_names(layers):
    return {f"block{name[4]}_conv{name[6]}": arrays for name, arrays in layers.items()}


def write_keras(file, layers, kernel="{0}/{0}/kernel:0", bias="{0}/{0}/bias:0"):
    for name, (w, b) in keras_names(layers).items():
        file[kernel.format(name)], file[bias.format(name)] = w, b


def write_applications(file, layers):
    write_keras(file, layers, "{0}/{0}_W_1:0", "{0}/{0}_b_1:0")
    file.create_group("block1_pool")


def write_with_top(file, layers):
    write_keras(file, layers)
    file["fc1/fc1/kernel:0"], file["fc1/fc1/bias:0"] = np.ones((9, 4)), np.ones(4)


def write_whole_model(file, layers):
    write_keras(file, layers, "model_weights/{0}/{0}/kernel:0", "model_weights/{0}/{0}/bias:0")
    moments = {name: (0 * w, 0 * b) for name, (w, b) in layers.items()}  # the optimizer's: not to be read
    write_keras(file, moments, "a_optimizer_weights/{0}/{0}/kernel:0", "a_optimizer_weights/{0}/{0}/bias:0")


def write_inside_another(file, layers):
    write_keras(file, layers, "model_weights/vgg16/{0}/kernel:0", "model_weights/vgg16/{0}/bias:0")
    file["model_weights/dense/dense/kernel:0"] = np.ones((4, 4))


def write_keras_3_legacy(file, layers):
    write_keras(file, layers, "{0}/{0}/kernel", "{0}/{0}/bias")


def write_keras_3(file, layers, root="layers"):
    for index, (w, b) in enumerate(layers.values()):
        name = f"conv2d_{index}" if index else "conv2d"
        file[f"{root}/{name}/vars/0"], file[f"{root}/{name}/vars/1"] = w, b
    file[f"{root}/dense/vars/0"] = np.ones((4, 4))
    file.create_group(f"{root}/max_pooling2d/vars")


def write_keras_213(file, layers):
    write_keras_3(file, layers, "_layer_checkpoint_dependencies")


KERAS = [
    write_applications,
    write_keras,
    write_with_top,
    write_whole_model,
    write_inside_another,
    write_keras_3_legacy,
    write_keras_3,
    write_keras_213,
]


@pytest.mark.parametrize("write", KERAS)
def test_read_vgg16_as_keras_wrote_it(tmp_path, narrow, write):
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        write(file, narrow)
    assert weights.read_about(tmp_path / "keras.h5")["kind"] == "vgg16"
    layers = weights.read_vgg16(tmp_path / "keras.h5")
    assert list(layers) == list(narrow)
    for name, (w, b) in narrow.items():
        assert layers[name][0].dtype == layers[name][1].dtype == np.float32
        assert np.array_equal(layers[name][0], w)
        assert np.array_equal(layers[name][1], b)


def test_read_vgg16_names_the_layer_that_is_wrong(tmp_path, narrow):
    def message(layers, edit=None):
        with h5py.File(tmp_path / "keras.h5", "w") as file:
            write_applications(file, layers)
            if edit:
                edit(file)
        return message_of(weights.read_vgg16, tmp_path / "keras.h5")

    less = {n: layer for n, layer in narrow.items() if n != "conv4_2"}
    assert "kernel of layer conv4_2 (block4_conv2 in Keras's names) is missing" in message(less)
    w, b = narrow["conv3_1"]
    theano = narrow | {"conv3_1": (w.transpose(3, 2, 0, 1), b)}
    assert "kernel of layer conv3_1 (block3_conv1 in Keras's names) has shape (5, 3, 3, 3), not (3, 3, 3, 5)" in message(theano)
    assert "names) has shape (4,), not (5,)" in message(narrow | {"conv3_1": (w, b[1:])})

    def remove_bias(file):
        del file["block5_conv3/block5_conv3_b_1:0"]

    def add_layer(file):
        file["block3_conv4/block3_conv4_W_1:0"] = np.ones((3, 3, 6, 6))

    assert "bias of layer conv5_3 (block5_conv3 in Keras's names) is missing" in message(narrow, remove_bias)
    assert "is a VGG-19" in message(narrow, add_layer)


def test_read_vgg16_refuses_other_files(tmp_path):
    assert "does not exist; expected a VGG-16 file" in message_of(weights.read_vgg16, tmp_path / "none.h5")
    weights.save(tmp_path / "style.h5", example(), ABOUT)
    assert "kernel of layer conv1_1" in message_of(weights.read_vgg16, tmp_path / "style.h5")


def test_convert_vgg16_exactly_and_to_half(tmp_path, narrow):
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        write_applications(file, narrow)
    tool.convert(tmp_path / "keras.h5", tmp_path / "full.h5")
    tool.convert(tmp_path / "keras.h5", tmp_path / "half.h5", half=True)
    tool.convert(tmp_path / "half.h5", tmp_path / "back.h5")
    full, half, back = (weights.read_vgg16(tmp_path / f"{name}.h5") for name in ("full", "half", "back"))
    for name, (w, b) in narrow.items():
        assert np.array_equal(full[name][0], w)
        assert np.array_equal(half[name][0], w.astype(np.float16))
        assert np.array_equal(back[name][0], half[name][0])
        assert all(np.array_equal(layers[name][1], b) for layers in (full, half, back))
    digest = hashlib.sha256(b"".join(w.tobytes() + b.tobytes() for w, b in narrow.values())).hexdigest()
    for name in ("full", "half", "back"):
        assert weights.read_about(tmp_path / f"{name}.h5")["source_sha256"] == digest
    with h5py.File(tmp_path / "half.h5") as file:  # the lists that Keras loads by
        assert list(file.attrs["layer_names"]) == list(keras_names(narrow))
        assert list(file["block1_conv1"].attrs["weight_names"]) == [
            "block1_conv1_W_1:0",
            "block1_conv1_b_1:0",
        ]
        assert file["block1_conv1/block1_conv1_W_1:0"].dtype == np.float16


def test_equal_numbers_convert_to_equal_bytes(tmp_path, narrow):
    outputs = []
    for index, write in enumerate((write_applications, write_applications, write_keras_3)):
        with h5py.File(tmp_path / f"{index}.h5", "w") as file:
            write(file, narrow)
        tool.convert(tmp_path / f"{index}.h5", tmp_path / f"{index}.out.h5", half=True)
        outputs.append((tmp_path / f"{index}.out.h5").read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_vgg16_that_ships():
    layers = weights.read_vgg16()
    assert list(layers) == list(weights.vgg16_shapes())
    assert sum(w.size + b.size for w, b in layers.values()) == 14_714_688
    assert layers["conv1_1"][0].shape == (3, 3, 3, 64)
    assert layers["conv5_3"][0].shape == (3, 3, 512, 512)
    for w, b in layers.values():
        assert np.isfinite(w).all() and np.isfinite(b).all()
        kernels = np.abs(w).max(axis=(0, 1, 2))
        assert kernels.min() > 0.01  # none is lost; float16 has few digits left below 6e-5
        assert kernels.max() < 1
    assert weights.find("vgg16", "vgg16") == weights.SHIPPED / "vgg16.h5"
    assert "Simonyan" in weights.read_about(weights.SHIPPED / "vgg16.h5")["credit"]


def test_list(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    assert "no weights ship" in run("list")
    weights.save("waves.h5", example(), ABOUT)
    weights.save("x4.h5", example(), {"kind": "superres", "factor": 4, "settings": {"width": 8}})
    lines = [line.split(maxsplit=4) for line in run("list").splitlines()]
    assert lines[0] == ["waves", "style", "0.0", "MB", "thick brush strokes"]
    assert lines[1] == ["x4", "superres", "0.0", "MB", "factor 4"] and len(lines) == 2


def test_show(run):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    weights.save("none.h5", example(), ABOUT, half=True)
    weights.save("a.h5", example(), ABOUT, thumbnail=picture)
    printed = [line.strip() for line in run("show", "none.h5").splitlines()]
    facts = ("kind: style", "style_image: Münch.jpg", "iterations: 400", "norm: instance", f"content: {1 / 3}")
    arrays = ("picture: none", "parameters: 455", "conv10.w: 3 x 3 x 4 x 5 float16", "norm.gamma: 5 float32")
    assert all(line in printed for line in facts + arrays)
    assert "7 x 5 pixels" in run("show", "a.h5", "--thumbnail", "out.png")
    assert np.array_equal(np.asarray(Image.open("out.png")), picture)
    before = Path("a.h5").read_bytes()
    assert "holds no thumbnail" in run("show", "none.h5", "--thumbnail", "no.png")
    assert "must end in .png" in run("show", "a.h5", "--thumbnail", "a.h5")
    assert Path("a.h5").read_bytes() == before
    shown = run("show", "vgg16")
    assert all(text in shown for text in ("parameters: 14,714,688", "25.9 MB", "CC BY 4.0"))


def test_convert(run, tmp_path):
    picture = np.full((4, 4, 3), 7, np.uint8)
    weights.save("a.h5", example(), ABOUT, thumbnail=picture)
    Path("link.h5").symlink_to("a.h5")
    Path("text.h5").write_text("hello")
    before = Path("a.h5").read_bytes()
    for source, target, why in (
        ("a.h5", "a.h5", "would overwrite"),
        ("a.h5", tmp_path / "a.h5", "would overwrite"),
        ("a.h5", "link.h5", "would overwrite"),
        ("text.h5", "out.h5", "not an HDF5 file"),
        ("none.h5", "out.h5", "does not exist"),
        ("text.h5", tmp_path, "is a folder"),
    ):
        assert why in run("convert", source, target, "--half")
    assert Path("a.h5").read_bytes() == before and Path("link.h5").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "link.h5", "text.h5"]
    assert "same.h5" in run("convert", "a.h5", "same.h5")
    assert Path("same.h5").read_bytes() == before
    run("convert", "a.h5", "half.h5", "--half")
    arrays, about = weights.load("half.h5")
    assert about == ABOUT and np.array_equal(weights.read_thumbnail("half.h5"), picture)
    assert np.array_equal(arrays["conv2.w"], example()["conv2.w"].astype(np.float16))


@pytest.mark.parametrize("name", weights.shipped(None))
def test_each_net_that_ships_has_a_card(name):
    card = (weights.SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    content = (weights.SHIPPED / f"{name}.h5").read_bytes()
    assert f"`{hashlib.sha256(content).hexdigest()}`" in card and f"{len(content):,} bytes" in card
    assert len(content) <= 32_000_000
    if name != "vgg16":
        assert weights.read_about(weights.SHIPPED / f"{name}.h5")["kind"] in card
        assert (weights.SHIPPED / re.search(r"!\[[^]]*\]\((.+?)\)", card)[1]).is_file()


def test_blend_is_the_net_between(run):
    first, second = example(), {name: array + 1 for name, array in example().items()}
    picture = np.full((2, 3, 3), 9, np.uint8)
    weights.save("a.h5", first, {"kind": "superres", "summary": "pixels", "settings": {"width": 8}})
    about = {"kind": "superres", "summary": "features", "loss": "feature"}
    weights.save("b.h5", second, about, thumbnail=picture)
    for share, options in ((0.7, ()), (0.25, ("--share", "0.25")), (0.0, ("--share", "0"))):
        assert "wrote out.h5" in run("blend", "a.h5", "b.h5", "out.h5", *options)
        arrays, about = weights.load("out.h5")
        assert about["kind"] == "superres" and about["loss"] == "feature"
        assert about["blend"]["share"] == share and about["blend"]["first"]["settings"] == {"width": 8}
        assert f"features, {share:.0%}" in about["summary"]
        assert all(np.abs(array - first[name] - share).max() < 1e-6 for name, array in arrays.items())
        assert np.array_equal(weights.read_thumbnail("out.h5"), picture)


def test_blend_refuses_what_does_not_fit(run):
    weights.save("a.h5", example(), ABOUT)
    weights.save("kind.h5", example(), {"kind": "superres"})
    weights.save("name.h5", {"other": np.ones(3)}, ABOUT)
    weights.save("shape.h5", {**example(), "norm.gamma": np.ones(6, np.float32)}, ABOUT)
    before = Path("a.h5").read_bytes()
    for second in ("kind", "name", "shape"):
        assert "not weights of the same net" in run("blend", "a.h5", f"{second}.h5", "out.h5")
    for share in ("-0.1", "1.5", "nan"):
        assert "--share" in run("blend", "a.h5", "a.h5", "out.h5", f"--share={share}")
    assert "would overwrite" in run("blend", "a.h5", "a.h5", "a.h5")
    assert not Path("out.h5").exists() and Path("a.h5").read_bytes() == before
