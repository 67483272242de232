"""Stylising: the net's pixels land in the right file, at the right size, and nothing else is touched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import strict_cupy
from PIL import Image

from tinynst import cli
from tinynst.data import images, styles, weights
from tinynst.errors import UserError
from tinynst.networks import TransformNet, style_net
from tinynst.tools import stylize
from tinynst.tools.stylize import load_style

SETTINGS = {"norm": "instance", "upsample": "transpose", "width": 2}


def picture(height, width, seed=0):
    """A smooth colour picture (H, W, 3) uint8."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def write_style(path, settings=SETTINGS, **change):
    """A style file with a tiny net whose every array is random; `change` replaces arrays (None: takes one out)."""
    net = style_net(**SETTINGS | {key: settings[key] for key in SETTINGS if key in settings}, seed=3)
    rng = np.random.default_rng(4)
    arrays = {**net.parameters(), **net.buffers()}
    for array in arrays.values():
        array += rng.uniform(0.1, 0.5, array.shape).astype(np.float32) * (array.ndim == 1)
    arrays = {name: array for name, array in (arrays | change).items() if array is not None}
    weights.save(path, arrays, {"kind": "style", "summary": "thick brush strokes", "settings": settings})
    return net


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.h5"
    write_style(path)
    return path


@pytest.fixture(scope="module")
def net(style):
    return load_style(style)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, made the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here):
    """photos/a.jpg, photos/sub/a.jpg, photos/sub/b.png: pictures of three sizes."""
    (here / "photos" / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "sub/a.jpg", "sub/b.png")):
        images.save(here / "photos" / name, picture(20 + 4 * i, 30, i))
    return here / "photos"


def styled(net, photo, *arguments):
    """The pixels that a result should have, straight from the library."""
    return images.to_uint8(stylize.stylize(net, photo, *arguments))


def read(path):
    with Image.open(path) as file:
        return np.asarray(file)


def command(capsys, *arguments):
    """The command as it is run: (exit status, standard output, standard error)."""
    with pytest.raises(SystemExit) as end:
        cli.run(stylize.main, "stylize", [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def refused(capsys, *arguments):
    """The one line on standard error of a command that must end with exit status 2 and print nothing else."""
    status, out, err = command(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and err.endswith("\n")
    return err


def tree(folder):
    """{name below the folder: bytes} of all its files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# --- loading a style --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
def test_a_loaded_net_is_the_net_that_was_saved(tmp_path, norm, upsample):
    saved = write_style(tmp_path / "a.h5", SETTINGS | {"norm": norm, "upsample": upsample, "iterations": 9})
    loaded = load_style(tmp_path / "a.h5")
    photo = picture(24, 20)[None].astype(np.float32)
    np.testing.assert_array_equal(loaded.forward(photo), saved.forward(photo))
    np.testing.assert_array_equal(load_style(str(tmp_path / "a.h5")).forward(photo), saved.forward(photo))


def without(name):
    return {key: value for key, value in SETTINGS.items() if key != name}


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        (without("norm"), {}, "does not record all of its net's settings (norm, upsample, width)"),
        (without("width"), {}, "does not record all of its net's settings"),
        (SETTINGS, {"conv2.w": None}, "'conv2.w' is only in one of the two"),
        (SETTINGS, {"other.w": np.ones(3)}, "'other.w' is only in one of the two"),
        (
            SETTINGS,
            {"conv2.w": np.ones((3, 3, 2, 5))},
            "conv2.w has shape (3, 3, 2, 5) there, (3, 3, 2, 4) here",
        ),
        (SETTINGS, {"out.b": np.array([0, np.nan, 0])}, "numbers that are not finite"),
    ],
)
def test_wrong_style_files(tmp_path, settings, change, message):
    write_style(tmp_path / "a.h5", settings, **change)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_style(tmp_path / "a.h5")
    assert str(tmp_path / "a.h5") in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "does not record all"),
        ("instance", "does not record all"),
        (SETTINGS | {"norm": "layer"}, "norm is 'layer'; choose from instance, batch"),
        (SETTINGS | {"norm": ["batch"]}, "does not make a style net"),
        (SETTINGS | {"upsample": "bicubic"}, "upsample is 'bicubic'; choose from transpose, nearest"),
        (SETTINGS | {"width": 3}, "there,"),
        (SETTINGS | {"width": 0}, "width is 0"),
        (SETTINGS | {"width": "wide"}, "does not make a style net"),
    ],
)
def test_wrong_settings(tmp_path, settings, message):
    net = style_net(**SETTINGS)
    weights.save(tmp_path / "a.h5", net.parameters(), {"kind": "style", "settings": settings})
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_style(tmp_path / "a.h5")
    assert str(tmp_path / "a.h5") in str(error.value)


@pytest.mark.parametrize("name", weights.shipped("style"))
def test_shipped_styles_paint(name):
    photo = picture(16, 24)
    result = stylize.stylize(load_style(name), photo)
    assert result.shape == photo.shape
    assert np.abs(result - photo).mean() > 5


def test_a_style_by_its_shipped_name(here, style, net, monkeypatch, capsys):
    monkeypatch.setattr(weights, "SHIPPED", style.parent)
    images.save("a.png", picture(9, 8))
    assert command(capsys, "a.png", "--style", "tiny", "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(read("b.png"), styled(net, picture(9, 8)))
    assert command(capsys, "--list-styles") == (0, f"{'tiny':24} thick brush strokes\n", "")
    assert "shipped name (tiny)" in refused(capsys, "a.png", "--style", "none", "-o", "c.png")


def test_list_styles(capsys, tmp_path, monkeypatch):
    status, out, err = command(capsys, "--list-styles")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(styles.shipped())
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    status, out, err = command(capsys, "--list-styles")
    assert (status, err) == (0, "")
    assert out.startswith("no styles ship") and out.count("\n") == 1


# --- the library function ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 50), (41, 7), (64, 64)])
def test_what_the_net_paints_at_the_size_of_the_image(net, size):
    photo = picture(*size).astype(np.float32)
    before = photo.copy()
    result = stylize.stylize(net, photo)
    assert (result.shape, result.dtype) == (photo.shape, np.float32)
    np.testing.assert_array_equal(result, np.clip(net.forward(photo[None])[0], 0, 255))
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(result, stylize.stylize(net, photo.astype(np.uint8)))
    np.testing.assert_array_equal(result, stylize.stylize(net, photo.astype(np.float64)))


def test_result_is_clipped(net):
    photo = picture(48, 48)
    assert net.forward(photo[None].astype(np.float32)).min() < 0  # or this test says nothing
    result = stylize.stylize(net, photo)
    assert result.min() == 0 and result.max() <= 255


def test_strength_blends(net):
    photo = picture(20, 30)
    full = stylize.stylize(net, photo)
    np.testing.assert_array_equal(stylize.stylize(net, photo, 0), photo)
    np.testing.assert_array_equal(stylize.stylize(net, photo, 1), full)
    part = stylize.stylize(net, photo, np.float64(0.25))
    assert part.dtype == np.float32
    np.testing.assert_allclose(part, photo + 0.25 * (full - photo), atol=1e-4)
    assert np.abs(full - photo).mean() > 5


def test_preserve_color_changes_brightness_only(net):
    photo = picture(20, 30).astype(np.float32)
    result = stylize.stylize(net, photo, preserve_color=True)
    inside = np.all((result > 0) & (result < 255), axis=2)  # where nothing was clipped
    assert inside.mean() > 0.2
    difference = (result - photo)[inside]
    np.testing.assert_allclose(difference - difference[:, :1], 0, atol=1e-3)  # the same in R, G and B
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(result[inside] @ luma, stylize.stylize(net, photo)[inside] @ luma, atol=1e-2)
    half = stylize.stylize(net, photo, 0.5, preserve_color=True)
    np.testing.assert_allclose(half, (photo + result) / 2, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (8, 8, 1), (0, 8, 3), (1, 8, 8, 3)])
def test_wrong_shapes(net, shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        stylize.stylize(net, np.zeros(shape, np.float32))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_wrong_strengths(net, strength):
    with pytest.raises(ValueError, match="from 0 to 1"):
        stylize.stylize(net, picture(8, 8), strength)


@pytest.mark.parametrize("size", [(1, 1), (23, 34)])
def test_devices_agree(style, net, xp, size):
    photo = picture(*size)
    there = load_style(style, xp)
    near = 1e-3 if xp in (np, strict_cupy.cupy) else 0.1  # grey levels; a real GPU adds up in another order
    for image in (photo, xp.asarray(photo)):
        result = stylize.stylize(there, image)
        assert isinstance(result, np.ndarray)
        np.testing.assert_allclose(result, stylize.stylize(net, photo), atol=near)
    expected = stylize.stylize(net, photo, 0.5, True)
    np.testing.assert_allclose(stylize.stylize(there, photo, 0.5, True), expected, atol=near)


# --- the command: what is written where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "written"),
    [
        ("b.png", "b.png"),
        ("new/deep/b.png", "new/deep/b.png"),
        ("folder", "folder/a.png"),
        ("new", "new/a.png"),
        ("new/", "new/a.png"),
        ("new.v2/", "new.v2/a.png"),
        ("there.png", "there.png/a.png"),
    ],
)
def test_one_image(here, style, net, capsys, out, written):
    (here / "folder").mkdir()
    (here / "there.png").mkdir()
    images.save("a.png", picture(20, 30))
    status, printed, err = command(capsys, "a.png", "--style", style, "-o", out)
    assert (status, err) == (0, "")
    assert printed == f"wrote {Path(written)}, 30x20\n"
    assert sorted(tree(here)) == sorted(["a.png", written])
    np.testing.assert_array_equal(read(written), styled(net, picture(20, 30)))


@pytest.mark.parametrize(
    ("suffix", "format"), [(".jpg", "JPEG"), (".PNG", "PNG"), (".webp", "WEBP"), (".tif", "TIFF")]
)
def test_the_suffix_of_out_is_the_format(here, style, net, capsys, suffix, format):
    images.save("a.png", picture(20, 30))
    assert command(capsys, "a.png", "--style", style, "-o", f"b{suffix}", "--strength", "0.1")[0] == 0
    with Image.open(f"b{suffix}") as file:
        assert (file.format, file.size) == (format, (30, 20))
        # lossy formats keep little of the noise that a net of random weights adds, so there is little of it here
        assert np.abs(np.asarray(file, np.float32) - styled(net, picture(20, 30), 0.1)).mean() < 6


def test_folders_keep_their_structure_and_formats(photos, here, style, net, capsys):
    images.save("c.bmp", picture(9, 9))
    status, out, err = command(capsys, "photos", "c.bmp", "--style", style, "-o", "out")
    assert (status, err) == (0, "")
    assert sorted(tree(here / "out")) == ["a.jpg", "c.bmp", "sub/a.jpg", "sub/b.png"]
    assert out.splitlines() == [
        *(f"{Path('photos', name)} -> {Path('out', name)}" for name in ("a.jpg", "sub/a.jpg", "sub/b.png")),
        f"c.bmp -> {Path('out', 'c.bmp')}",
        "4 images styled; results are in out",
    ]
    np.testing.assert_array_equal(read("out/sub/b.png"), styled(net, picture(28, 30, 2)))
    np.testing.assert_array_equal(read("out/c.bmp"), styled(net, picture(9, 9)))
    with Image.open("out/sub/a.jpg") as file:
        assert (file.format, file.size) == ("JPEG", (30, 24))


def test_a_folder_with_one_image_is_a_folder(here, style, capsys):
    (here / "photos").mkdir()
    images.save("photos/a.png", picture(8, 8))
    assert "a name for one image" in refused(capsys, "photos", "--style", style, "-o", "b.png")
    assert command(capsys, "photos", "--style", style, "-o", "b.v2")[0] == 0
    assert sorted(tree(here / "b.v2")) == ["a.png"]


def test_formats_that_are_not_written_become_png(here, style, net, capsys):
    (here / "photos").mkdir()
    for i, name in enumerate(("a.gif", "b.gif", "b.png", "c.ppm", "c.gif")):
        Image.fromarray(picture(8, 9 + i)).save(here / "photos" / name)
    Image.fromarray(picture(8, 20)).save(here / "bare", "JPEG")
    assert command(capsys, "photos", "bare", "--style", style, "-o", "out")[0] == 0
    found = {}
    for path in (here / "out").iterdir():
        with Image.open(path) as file:
            assert file.format == "PNG"
            found[path.name] = file.width
    assert found == {
        "a.png": 9,
        "b.gif.png": 10,
        "b.png": 11,
        "c.ppm.png": 12,
        "c.gif.png": 13,
        "bare.png": 20,
    }
    np.testing.assert_array_equal(read("out/b.png"), styled(net, picture(8, 11)))


def test_equal_names_are_refused(photos, here, style, capsys):
    images.save("a.jpg", picture(8, 8))
    before = tree(here)
    err = refused(capsys, "photos/sub/a.jpg", "a.jpg", "--style", style, "-o", "out")
    assert f"{Path('photos/sub/a.jpg')} and a.jpg would both become {Path('out/a.jpg')}" in err
    (here / "out" / "real").mkdir(parents=True)
    (here / "out" / "sub").symlink_to("real")
    (photos / "real").mkdir()
    images.save(photos / "real" / "b.png", picture(8, 8))
    assert "would both become" in refused(capsys, "photos", "--style", style, "-o", "out")
    assert tree(here) == before | {"photos/real/b.png": (photos / "real" / "b.png").read_bytes()}


def test_an_image_given_twice_is_styled_once(photos, here, style, capsys):
    Image.fromarray(picture(8, 8)).save(photos / "c.gif")
    status, out, _ = command(
        capsys, "photos/a.jpg", "photos", photos / "a.jpg", "photos/c.gif", "--style", style, "-o", "out"
    )
    assert status == 0
    assert "4 images styled" in out
    assert sorted(tree(here / "out")) == ["a.jpg", "c.png", "sub/a.jpg", "sub/b.png"]


def test_an_older_result_is_replaced_and_its_neighbours_are_not(photos, here, style, net, capsys):
    (here / "out" / "sub").mkdir(parents=True)
    for name in ("sub/b.png", "sub/other.png", "notes.txt"):
        (here / "out" / name).write_text("old")
    assert command(capsys, "photos", "--style", style, "-o", "out")[0] == 0
    np.testing.assert_array_equal(read("out/sub/b.png"), styled(net, picture(28, 30, 2)))
    assert (here / "out/sub/other.png").read_text() == (here / "out/notes.txt").read_text() == "old"
    assert len(tree(here / "out")) == 5


def test_results_in_a_folder_below_the_photos_are_not_styled_again(photos, here, style, capsys):
    for warnings in (0, 1):
        status, out, err = command(capsys, "photos", "--style", style, "-o", "photos/styled")
        assert (status, err.count("\n")) == (0, warnings)
        assert "3 images styled" in out
    assert f"passed over 3 images in {Path('photos/styled')}" in err
    assert sorted(tree(photos / "styled")) == ["a.jpg", "sub/a.jpg", "sub/b.png"]
    (here / "box" / "in").mkdir(parents=True)
    images.save("box/in/a.png", picture(8, 8))
    assert "holds no image but those in" in refused(capsys, "box", "--style", style, "-o", "box/in")


# --- the command: inputs are never overwritten ------------------------------------------------------------------------


def link(kind, source, target):
    if kind == "symbolic":
        target.symlink_to(source)
    else:
        os.link(source, target)


@pytest.mark.parametrize(
    "out", ["a.png", "./a.png", "../{folder}/a.png", "{absolute}/a.png", ".", "sub/..", "./"]
)
def test_output_is_input(here, style, capsys, out):
    (here / "sub").mkdir()
    images.save("a.png", picture(8, 8))
    before = tree(here)
    out = out.format(folder=here.name, absolute=here)
    err = refused(capsys, "a.png", "--style", style, "-o", out)
    assert "would overwrite a.png" in err
    assert tree(here) == before


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_output_is_a_link_to_an_input(photos, here, style, capsys, kind):
    (here / "out" / "sub").mkdir(parents=True)
    link(kind, photos / "a.jpg", here / "b.jpg")
    link(
        kind, photos / "a.jpg", here / "out" / "sub" / "b.png"
    )  # the target of one input, the bytes of another
    before = tree(here)
    source = Path("photos/a.jpg")
    assert f"b.jpg would overwrite {source}" in refused(
        capsys, "photos/a.jpg", "--style", style, "-o", "b.jpg"
    )
    assert f"would overwrite {source}" in refused(capsys, "photos", "--style", style, "-o", "out")
    assert f"would overwrite {source}" in refused(capsys, "photos", "--style", style, "-o", "photos")
    assert tree(here) == before


def test_output_through_a_linked_folder(photos, here, style, capsys):
    (here / "same").symlink_to("photos")
    before = tree(photos)
    assert "would overwrite" in refused(capsys, "photos", "--style", style, "-o", "same")
    assert "would overwrite" in refused(capsys, "photos/a.jpg", "--style", style, "-o", "same/")
    assert tree(photos) == before


# --- the command: options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["--size", "15"], (15, 10)),
        (["--size", "1"], (1, 1)),
        (["--size", "60"], (30, 20)),
        (["--size", "60", "--enlarge"], (60, 40)),
        (["--size", "15", "--enlarge"], (15, 10)),
    ],
)
def test_size(here, style, net, capsys, options, size):
    Image.fromarray(picture(20, 30)).save("a.png")
    assert command(capsys, "a.png", "--style", style, "-o", "b.png", *options)[0] == 0
    photo = np.asarray(Image.fromarray(picture(20, 30)).resize(size, Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read("b.png"), styled(net, photo))


def test_strength_and_colour(here, style, net, capsys):
    images.save("a.png", picture(20, 30))
    assert (
        command(capsys, "a.png", "--style", style, "-o", "b.png", "--strength", "0.5", "--preserve-color")[0]
        == 0
    )
    np.testing.assert_array_equal(read("b.png"), styled(net, picture(20, 30), 0.5, True))
    assert command(capsys, "a.png", "--style", style, "-o", "c.png", "--strength", "0")[0] == 0
    np.testing.assert_array_equal(read("c.png"), picture(20, 30))


def test_cuda(here, style, net, capsys, strict):
    images.save("a.png", picture(20, 30))
    assert command(capsys, "a.png", "--style", style, "-o", "b.png", "--device", "cuda")[0] == 0
    assert strict.launches > 0
    assert np.abs(read("b.png").astype(int) - styled(net, picture(20, 30))).max() <= 1


def test_cuda_without_cupy(here, style, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    images.save("a.png", picture(8, 8))
    assert "CuPy" in refused(capsys, "a.png", "--style", style, "-o", "b.png", "--device", "cuda")
    assert sorted(tree(here)) == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "-o", "b.png"], "required: --style"),
        (["a.png", "--style", "STYLE"], "required: -o"),
        (["--style", "STYLE", "-o", "b.png"], "required: IMAGE"),
        (["none.png", "--style", "STYLE", "-o", "b.png"], "none.png: no such file or folder"),
        (["a.png", "none", "--style", "STYLE", "-o", "out"], "none: no such file or folder"),
        (["a.png", "--style", "STYLE", "-o", "b.xyz"], "b.xyz: cannot save .xyz"),
        (["a.png", "--style", "STYLE", "-o", "b.gif"], "b.gif: cannot save .gif"),
        (["a.png", "--style", "STYLE", "-o", ""], "an empty name"),
        (["", "--style", "STYLE", "-o", "out"], "an empty name"),
        (["a.png", "--style", "STYLE", "-o", "notes.txt/"], "notes.txt/ is a file"),
        (["a.png", "--style", "STYLE", "-o", "notes.txt/b.png"], "notes.txt is a file"),
        (
            ["a.png", "c.png", "--style", "STYLE", "-o", "notes.txt"],
            "notes.txt is a file: name a folder for the results",
        ),
        (["a.png", "c.png", "--style", "STYLE", "-o", "b.png"], "b.png is a name for one image"),
        (["a.png", "--style", "STYLE", "-o", "odd"], "this is a folder"),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--strength", "1.5"], "--strength must be from 0"),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--strength", "nan"], "--strength must be from 0"),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--strength", "much"], "--strength"),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--size", "0"], "--size must be at least 1"),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--size", "1.5"], "--size"),
        (
            ["a.png", "--style", "STYLE", "-o", "b.png", "--size", "99999999", "--enlarge"],
            "give a smaller size",
        ),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--enlarge"], "--enlarge needs --size"),
        (["a.png", "--style", "STYLE", "-o", "b.png", "--device", "tpu"], "--device"),
        (["a.png", "--style", "no_such_style", "-o", "b.png"], "no style weights called 'no_such_style'"),
        (["a.png", "--style", "notes.txt", "-o", "b.png"], "notes.txt is not an HDF5 file"),
        (["a.png", "--style", "a.png", "-o", "b.png"], "a.png is not an HDF5 file"),
        (["a.png", "--style", "text.h5", "-o", "b.png"], "text.h5 is not an HDF5 file"),
        (
            ["a.png", "--style", "foreign.h5", "-o", "b.png"],
            "foreign.h5 is an HDF5 file of some other program",
        ),
        (["a.png", "--style", "cut.h5", "-o", "b.png"], "cut.h5 is cut short"),
        (
            ["a.png", "--style", str(weights.SHIPPED / "vgg16.h5"), "-o", "b.png"],
            "holds vgg16 weights, not style weights",
        ),
        (["a.png", "--style", "vgg16", "-o", "b.png"], "holds vgg16 weights, not style weights"),
        (["a.png", "--style", "odd", "-o", "b.png"], "odd is a folder"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(here, style, capsys, arguments, message):
    for name in ("a.png", "c.png"):
        images.save(name, picture(8, 8))
    for name in ("notes.txt", "text.h5"):
        (here / name).write_text("not what you think")
    with h5py.File("foreign.h5", "w") as file:
        file["x"] = np.zeros(3)
    (here / "cut.h5").write_bytes(style.read_bytes()[:2000])
    (here / "odd" / "a.png").mkdir(parents=True)
    before = tree(here)
    assert message in refused(capsys, *(str(style) if a == "STYLE" else a for a in arguments))
    assert tree(here) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_that_may_not_be_written_into(here, style, capsys):
    images.save("a.png", picture(8, 8))
    (here / "locked").mkdir(mode=0o500)
    assert "nothing may be written into locked" in refused(
        capsys, "a.png", "--style", style, "-o", "locked/new/"
    )


# --- the command: odd images ------------------------------------------------------------------------------------------


def grey16(path):
    """Returns what the file shows: (H, W, 3) uint8, as do the other makers here."""
    values = np.linspace(0, 65535, 120).reshape(8, 15).astype(np.uint16)
    Image.fromarray(values).save(path)
    return np.rint(np.repeat(values[..., None] / 257, 3, axis=2)).astype(np.uint8)


def transparent(path):
    rgba = np.dstack([picture(8, 15), np.full((8, 15), 255, np.uint8)])
    rgba[:, :5, 3] = 0
    Image.fromarray(rgba).save(path)
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]).astype(np.uint8)


def animated(path):
    frames = [Image.new("RGB", (15, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return np.tile(np.array([255, 0, 0], np.uint8), (8, 15, 1))


def plain(height, width):
    def make(path):
        Image.fromarray(picture(height, width)).save(path)
        return picture(height, width)

    return make


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("tiny.png", plain(1, 1)),
        ("flat.png", plain(3, 2000)),
        ("tall.bmp", plain(50, 1)),
        ("grey.png", grey16),
        ("glass.png", transparent),
        ("moving.gif", animated),
        ("Größe 大きい \N{ARTIST PALETTE}.png", plain(5, 6)),
        ("-o.png", plain(5, 6)),
    ],
)
def test_odd_images(here, style, net, capsys, name, make):
    shown = make(here / name)
    status, _, err = command(capsys, f"./{name}", "--style", style, "-o", "out/")
    assert (status, err) == (0, "")
    [result] = (here / "out").iterdir()
    assert result.stem == Path(name).stem
    np.testing.assert_array_equal(read(result), styled(net, shown))


def test_a_photo_that_lies_on_its_side_is_turned(here, style, net, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise to see it upright
    Image.fromarray(picture(20, 30)).save("a.png", exif=exif)
    Image.fromarray(picture(20, 30)).save("a.jpg", exif=exif, quality=95)
    assert command(capsys, "a.png", "a.jpg", "--style", style, "-o", "out")[0] == 0
    np.testing.assert_array_equal(read("out/a.png"), styled(net, np.rot90(picture(20, 30), -1)))
    for name in ("a.png", "a.jpg"):
        with Image.open(here / "out" / name) as file:
            assert file.size == (20, 30)
            assert 0x0112 not in file.getexif()


def spoil(name, content=b"no image at all"):
    Path(name).write_bytes(content)
    return name


@pytest.mark.parametrize("name", ["text.jpg", "empty.png", "cut.jpg", "folder", "others", "STYLE"])
def test_an_only_input_that_cannot_be_read(here, style, capsys, name):
    images.save("whole.jpg", picture(200, 300))
    spoil("text.jpg")
    spoil("empty.png", b"")
    spoil("cut.jpg", Path("whole.jpg").read_bytes()[:3000])
    (here / "folder").mkdir()
    (here / "others").mkdir()
    spoil("others/notes.txt")
    before = tree(here)
    name = str(style) if name == "STYLE" else name
    assert name in refused(capsys, name, "--style", style, "-o", "out/")
    assert tree(here) == before


def test_one_bad_image_among_others(photos, here, style, net, capsys):
    spoil("photos/sub/aa.jpg")
    status, out, err = command(capsys, "photos", "--style", style, "-o", "out")
    assert status == 1
    assert err.startswith("warning: ") and str(Path("photos/sub/aa.jpg")) in err and err.count("\n") == 1
    assert (
        out.splitlines()[-1]
        == "3 images styled, 1 could not be (the warnings above say why); results are in out"
    )
    assert sorted(tree(here / "out")) == ["a.jpg", "sub/a.jpg", "sub/b.png"]
    np.testing.assert_array_equal(read("out/sub/b.png"), styled(net, picture(28, 30, 2)))


def test_all_images_bad(here, style, capsys):
    status, out, err = command(capsys, spoil("a.png"), spoil("b.png"), "--style", style, "-o", "out")
    assert (status, out) == (2, "")
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "warning", "tinynst stylize"]
    assert "none of the 2 images" in err
    assert not (here / "out").exists()


def test_not_enough_memory(photos, here, style, capsys, monkeypatch):
    forward = TransformNet.forward

    def small_machine(net, images, *options, **named):
        if images.shape[1] > 26:
            raise MemoryError("Unable to allocate 99.9 GiB")
        return forward(net, images, *options, **named)

    monkeypatch.setattr(TransformNet, "forward", small_machine)
    err = refused(capsys, "photos/sub/b.png", "--style", style, "-o", "b.png")
    assert "not enough memory to style it with a longer side of 30 pixels: try --size 15" in err
    status, out, err = command(capsys, "photos", "--style", style, "-o", "out")
    assert (status, err.count("try --size")) == (1, 1)
    assert "2 images styled, 1 could not be" in out
    assert sorted(tree(here / "out")) == ["a.jpg", "sub/a.jpg"]
    monkeypatch.setattr(Image.Image, "resize", lambda *_: small_machine(None, np.zeros((1, 99))))
    err = refused(capsys, "photos/sub/b.png", "--style", style, "-o", "b.png", "--size", "9000", "--enlarge")
    assert "a longer side of 9000 pixels: try --size 4500" in err


def test_a_result_that_cannot_be_written(here, style, capsys):
    Image.fromarray(np.zeros((1, 17000, 3), np.uint8)).save("a.png")
    err = refused(capsys, "a.png", "--style", style, "-o", "b.webp")  # WebP ends at 16383 pixels
    assert "b.webp: could not be written as 17000x1" in err
    assert sorted(tree(here)) == ["a.png"]


# --- the command: what is printed -------------------------------------------------------------------------------------


def test_a_bar_on_a_terminal_instead_of_lines(photos, style, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = command(capsys, "photos", "--style", style, "-o", "out")
    assert (status, out) == (0, "3 images styled; results are in out\n")
    assert "styling: 100%" in err and "3/3" in err
    status, out, err = command(capsys, "photos/a.jpg", "--style", style, "-o", "out")
    assert err == ""  # one image needs no bar


def test_help_says_what_becomes_of_formats_and_sizes(capsys):
    status, out, _ = command(capsys, "--help")
    assert status == 0
    out = " ".join(out.split())
    for words in (
        "all others become PNG",
        "transparent becomes white",
        "smaller ones stay as they are",
        "(default: cpu)",
    ):
        assert words in out


@pytest.mark.parametrize(
    "start", [["-m", "tinynst.stylize"], ["-c", "from tinynst.cli import main; main()", "stylize"]]
)
def test_as_a_program(photos, here, style, net, start):
    program = [sys.executable, *start]
    done = subprocess.run([*program, "photos", "--style", style, "-o", "out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "3 images styled; results are in out"
    np.testing.assert_array_equal(read("out/sub/b.png"), styled(net, picture(28, 30, 2)))
    done = subprocess.run([*program, "none", "--style", style, "-o", "out"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tinynst stylize: none: no such file or folder\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text(here, style):
    name = os.fsdecode(b"caf\xe9.png")  # Latin-1, from an old disk
    images.save(name, picture(8, 8))
    command = [sys.executable, "-m", "tinynst.stylize", name, "--style", style, "-o", "out/"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert read(Path("out", name)).shape == (8, 8, 3)
