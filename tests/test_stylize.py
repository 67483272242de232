"""Stylising: the net's pixels land in the right file, at the right size, and nothing else is touched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import strict_cupy
from PIL import Image
from test_images import exif, picture, read

from tinynst import cli
from tinynst.data import images, styles, weights
from tinynst.errors import UserError
from tinynst.networks import StyleNet, style_net
from tinynst.tools import stylize
from tinynst.tools.stylize import load_style

SETTINGS = {"norm": "instance", "upsample": "transpose", "width": 2}


def write_style(path, **settings):
    """A style file with a tiny net whose every vector is random."""
    net, rng = style_net(**SETTINGS | settings, seed=3), np.random.default_rng(4)
    arrays = {**net.parameters(), **net.buffers()}
    for array in arrays.values():
        array += rng.uniform(0.1, 0.5, array.shape).astype(np.float32) * (array.ndim == 1)
    about = {"kind": "style", "summary": "thick brush strokes", "settings": SETTINGS | settings}
    weights.save(path, arrays, about)
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
    """A folder with a.png, made the current one."""
    monkeypatch.chdir(tmp_path)
    images.save("a.png", picture(20, 30))
    return tmp_path


@pytest.fixture
def photos(here):
    """photos/a.jpg, photos/sub/a.jpg, photos/sub/b.png: pictures of three sizes."""
    for i, name in enumerate(("a.jpg", "sub/a.jpg", "sub/b.png")):
        images.save(here / "photos" / name, picture(20 + 4 * i, 30, i))
    return here / "photos"


@pytest.fixture
def command(capsys, style):
    """The command as it is run, with the style: (exit status, standard output, standard error)."""

    def run(*arguments):
        given = [str(argument) for argument in arguments]
        given += [] if "--style" in given else ["--style", str(style)]
        with pytest.raises(SystemExit) as end:
            cli.run(stylize.main, "stylize", given)
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(command, here):
    """The one line on standard error of a command that must end with exit status 2 and change no file."""

    def run(*arguments):
        before = tree(here)
        status, out, err = command(*arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1 and err.endswith("\n")
        assert tree(here) == before
        return err

    return run


def tree(folder):
    """{name below the folder: bytes} of all its files, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(("norm", "upsample"), [("instance", "nearest"), ("batch", "transpose")])
def test_a_loaded_net_is_the_net_that_was_saved(tmp_path, norm, upsample):
    saved = write_style(tmp_path / "a.h5", norm=norm, upsample=upsample)
    photo = picture(24, 20)[None].astype(np.float32)
    np.testing.assert_array_equal(load_style(str(tmp_path / "a.h5")).forward(photo), saved.forward(photo))


WRONG_SHAPE = {"conv2.w": np.ones((3, 3, 2, 5))}


@pytest.mark.parametrize(
    ("settings", "arrays", "message"),
    [
        ({"norm": "instance"}, {}, "does not record all of its net's settings (norm, upsample, width)"),
        (None, {}, "does not record all of its net's settings"),
        (SETTINGS | {"norm": "layer"}, {}, "norm is 'layer'; choose from instance, batch"),
        (SETTINGS | {"norm": ["batch"]}, {}, "about.settings.norm is ['batch']; it should be of type str"),
        (SETTINGS, {"conv2.w": None}, "'conv2.w' is only in one of the two"),
        (SETTINGS, WRONG_SHAPE, "conv2.w has shape (3, 3, 2, 5) there, (3, 3, 2, 4) here"),
        (SETTINGS, {"out.b": np.array([0, np.nan, 0])}, "arrays/out.b is an array with the number nan"),
    ],
)
def test_wrong_style_files(tmp_path, settings, arrays, message):
    arrays = {k: v for k, v in (style_net(**SETTINGS).parameters() | arrays).items() if v is not None}
    weights.save(tmp_path / "a.h5", arrays, {"kind": "style", "settings": settings})
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_style(tmp_path / "a.h5")
    assert str(tmp_path / "a.h5") in str(error.value)


@pytest.mark.parametrize("name", weights.shipped("style"))
def test_shipped_styles_paint(name):
    assert np.abs(stylize.stylize(load_style(name), picture(16, 24)) - picture(16, 24).astype(int)).mean() > 5


def test_a_style_by_its_shipped_name_and_the_list_of_styles(here, style, net, monkeypatch, command, refused):
    status, out, err = command("--list-styles")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(styles.shipped())
    monkeypatch.setattr(weights, "SHIPPED", style.parent)
    assert command("a.png", "--style", "tiny", "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(read("b.png"), stylize.stylize(net, picture(20, 30)))
    assert command("--list-styles") == (0, f"{'tiny':24} thick brush strokes\n", "")
    assert "shipped name (tiny)" in refused("a.png", "--style", "none", "-o", "c.png")
    monkeypatch.setattr(weights, "SHIPPED", here)
    assert command("--list-styles")[1].startswith("no styles ship")


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (41, 7), (48, 48)])
def test_what_the_net_paints_at_the_size_of_the_image(net, tmp_path, size):
    photo = picture(*size).astype(np.float32)
    before, painted = photo.copy(), net.forward(photo[None])[0]
    assert size != (48, 48) or painted.min() < 0  # the result is clipped
    images.save(tmp_path / "a.png", photo)
    for given in (photo, picture(*size), Image.fromarray(picture(*size)), tmp_path / "a.png"):
        result = stylize.stylize(net, given)
        assert result.dtype == np.uint8 and np.array_equal(result, np.rint(np.clip(painted, 0, 255)))
    np.testing.assert_array_equal(photo, before)


def test_strength_blends_and_preserve_color_changes_brightness_only(net):
    photo = picture(20, 30)
    full, kept = stylize.stylize(net, photo), stylize.stylize(net, photo, preserve_color=True)
    np.testing.assert_array_equal(stylize.stylize(net, photo, 0), photo)
    for part, end in (((0.25, False), full), ((0.25, True), kept)):
        expected = photo + 0.25 * (end - photo.astype(int))
        assert np.abs(stylize.stylize(net, photo, *part) - expected).max() <= 1
    inside = np.all((kept > 0) & (kept < 255), axis=2)  # where nothing was clipped
    change = (kept - photo.astype(int))[inside]
    assert inside.mean() > 0.2 and np.abs(change - change[:, :1]).max() <= 1  # the same in R, G and B
    assert np.abs((kept[inside] - full[inside].astype(float)) @ images.LUMA).max() < 1.01


def test_wrong_arguments(net):
    for shape in [(8, 8), (8, 8, 4), (0, 8, 3)]:
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            stylize.stylize(net, np.zeros(shape, np.float32))
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            stylize.stylize(net, picture(8, 8), strength)
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        stylize.stylize(net, "none.png")


def test_devices_agree(style, net, xp):
    there, photo = load_style(style, xp), picture(23, 34)
    for options in ((), (0.5, True)):
        result = stylize.stylize(there, xp.asarray(photo), *options)
        assert isinstance(result, np.ndarray)
        assert np.abs(result - stylize.stylize(net, photo, *options).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("out", "written"),
    [
        ("new/deep/b.png", "new/deep/b.png"),
        ("folder", "folder/a.png"),
        ("new", "new/a.png"),
        ("new.v2/", "new.v2/a.png"),
        ("there.png", "there.png/a.png"),
    ],
)
def test_one_image(here, net, command, out, written):
    (here / "folder").mkdir()
    (here / "there.png").mkdir()
    assert command("a.png", "-o", out) == (0, f"wrote {Path(written)}, 30x20\n", "")
    assert list(tree(here)) == sorted(["a.png", written])
    np.testing.assert_array_equal(read(written), stylize.stylize(net, picture(20, 30)))


def test_folders_keep_their_structure_formats_and_neighbours(photos, here, net, command):
    images.save("c.bmp", picture(9, 9))
    (here / "out" / "sub").mkdir(parents=True)
    for name in ("sub/b.png", "notes.txt"):
        (here / "out" / name).write_text("old")
    status, out, err = command("photos", "photos/a.jpg", "c.bmp", photos / "a.jpg", "-o", "out")
    assert (status, err) == (0, "")  # an image given twice is styled once
    written = ["a.jpg", "sub/a.jpg", "sub/b.png"]
    lines = [f"{Path('photos', name)} -> {Path('out', name)}" for name in written]
    lines += [f"c.bmp -> {Path('out', 'c.bmp')}", "4 images styled; results are in out"]
    assert out.splitlines() == lines
    assert list(tree(here / "out")) == sorted([*written, "c.bmp", "notes.txt"])
    np.testing.assert_array_equal(read("out/sub/b.png"), stylize.stylize(net, picture(28, 30, 2)))
    with Image.open("out/sub/a.jpg") as file:
        assert (file.format, file.size) == ("JPEG", (30, 24))
    assert (here / "out/notes.txt").read_text() == "old"


def test_formats_that_are_not_written_become_png(here, command):
    (here / "photos").mkdir()
    for i, name in enumerate(("a.gif", "b.gif", "b.png", "c.ppm", "c.gif")):
        Image.fromarray(picture(8, 9 + i)).save(here / "photos" / name)
    Image.fromarray(picture(8, 20)).save(here / "bare", "JPEG")
    assert command("photos", "bare", "-o", "out")[0] == 0
    found = {path.name: read(path).shape[1] for path in (here / "out").iterdir()}
    expected = {"a.png": 9, "b.gif.png": 10, "b.png": 11, "c.ppm.png": 12, "c.gif.png": 13, "bare.png": 20}
    assert found == expected
    assert all(content.startswith(b"\x89PNG") for content in tree(here / "out").values())


def test_equal_names_are_refused(photos, here, refused):
    images.save("a.jpg", picture(8, 8))
    err = refused("photos/sub/a.jpg", "a.jpg", "-o", "out")
    assert f"{Path('photos/sub/a.jpg')} and a.jpg would both become {Path('out/a.jpg')}" in err
    (here / "out" / "real").mkdir(parents=True)
    (here / "out" / "sub").symlink_to("real")
    images.save(photos / "real" / "b.png", picture(8, 8))
    assert "would both become" in refused("photos", "-o", "out")


def test_results_in_a_folder_below_the_photos_are_not_styled_again(photos, here, command, refused):
    for warnings in (0, 1):
        status, out, err = command("photos", "-o", "photos/styled")
        assert (status, err.count("\n")) == (0, warnings) and "3 images styled" in out
    assert f"passed over 3 images in {Path('photos/styled')}" in err
    assert list(tree(photos / "styled")) == ["a.jpg", "sub/a.jpg", "sub/b.png"]
    images.save("box/in/a.png", picture(8, 8))
    assert "holds no image but those in" in refused("box", "-o", "box/in")


@pytest.mark.parametrize("out", ["./a.png", "../{folder}/a.png", "{absolute}/a.png", ".", "sub/.."])
def test_output_is_input(here, refused, out):
    (here / "sub").mkdir()
    assert "would overwrite a.png" in refused("a.png", "-o", out.format(folder=here.name, absolute=here))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_output_is_a_link_to_an_input(photos, here, refused, link):
    (here / "out" / "sub").mkdir(parents=True)
    (here / "same").symlink_to("photos")
    link(photos / "a.jpg", here / "b.jpg")
    link(photos / "a.jpg", here / "out" / "sub" / "b.png")  # the target of one input, the bytes of another
    for arguments in (("photos/a.jpg", "-o", "b.jpg"), ("photos", "-o", "out"), ("photos", "-o", "photos")):
        assert f"would overwrite {Path('photos/a.jpg')}" in refused(*arguments)
    assert "would overwrite" in refused("photos", "-o", "same")


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["--size", "15"], (15, 10)),
        (["--size", "1"], (1, 1)),
        (["--size", "60"], (30, 20)),
        (["--size", "60", "--enlarge"], (60, 40)),
    ],
)
def test_size(here, net, command, options, size):
    assert command("a.png", "-o", "b.png", *options)[0] == 0
    photo = np.asarray(Image.fromarray(picture(20, 30)).resize(size, Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read("b.png"), stylize.stylize(net, photo))


def test_strength_colour_and_device(here, net, command, strict):
    assert command("a.png", "-o", "b.png", "--strength", "0.5", "--preserve-color")[0] == 0
    np.testing.assert_array_equal(read("b.png"), stylize.stylize(net, picture(20, 30), 0.5, True))
    assert strict_cupy.cupy.launches == 0
    assert command("a.png", "-o", "b.png", "--device", "cuda")[0] == 0
    assert strict.launches > 0
    assert np.abs(read("b.png").astype(int) - stylize.stylize(net, picture(20, 30))).max() <= 1


def test_cuda_without_cupy(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "CuPy" in refused("a.png", "-o", "b.png", "--device", "cuda")


ONE = ("a.png", "-o", "b.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png"], "required: -o"),
        (["-o", "b.png"], "required: IMAGE"),
        (["a.png", "none", "-o", "out"], "none: no such file or folder"),
        (["a.png", "-o", "b.gif"], "b.gif: the name of this file must end in .png, .jpg"),
        (["a.png", "-o", ""], "an empty name"),
        (["a.png", "-o", "notes.txt/"], "notes.txt/ is a file"),
        (["a.png", "-o", "notes.txt/b.png"], "notes.txt is a file"),
        (["a.png", "c.png", "-o", "notes.txt"], "notes.txt is a file: name a folder for the results"),
        (["a.png", "c.png", "-o", "b.png"], "b.png is a name for one image"),
        (["odd", "-o", "b.png"], "b.png is a name for one image"),
        (["a.png", "-o", "odd"], "is a folder"),
        (["notes.txt", "-o", "out/"], "notes.txt: no image that can be read"),
        (["empty", "-o", "out/"], "empty is an empty folder"),
        ([*ONE, "--strength", "nan"], "--strength must be from 0"),
        ([*ONE, "--size", "0"], "--size must be at least 1"),
        ([*ONE, "--size", "99999999", "--enlarge"], "give a smaller size"),
        ([*ONE, "--enlarge"], "--enlarge needs --size"),
        ([*ONE, "--device", "tpu"], "--device"),
        ([*ONE, "--style", "no_such_style"], "no style weights called 'no_such_style'"),
        ([*ONE, "--style", "a.png"], "a.png is not an HDF5 file"),
        ([*ONE, "--style", "vgg16"], "holds vgg16 weights, not style weights"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(here, refused, arguments, message):
    images.save("c.png", picture(8, 8))
    (here / "notes.txt").write_text("not what you think")
    (here / "odd" / "a.png").mkdir(parents=True)
    images.save("odd/b.png", picture(8, 8))
    (here / "empty").mkdir()
    assert message in refused(*arguments)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_that_may_not_be_written_into(here, refused):
    (here / "locked").mkdir(mode=0o500)
    assert "locked may not be written into" in refused("a.png", "-o", "locked/new/")


def test_odd_images(here, net, command):
    rgba = np.dstack([picture(8, 15), np.full((8, 15), 255, np.uint8)])
    rgba[:, :5, 3] = 0
    grey16 = np.linspace(0, 65535, 120).reshape(8, 15).astype(np.uint16)
    tiny, side = picture(1, 1), picture(20, 30)
    grey8 = np.rint(np.repeat(grey16[..., None] / 257, 3, axis=2)).astype(np.uint8)
    (here / "in").mkdir()
    shown = {}
    for name, image, options, expected in (
        ("tiny", tiny, {}, tiny),
        ("Größe 大きい \N{ARTIST PALETTE}", side, {}, side),
        ("-o", side, {}, side),
        ("turned", side, {"exif": exif(6)}, np.rot90(side, -1)),
        ("grey", grey16, {}, grey8),
        ("glass", rgba, {}, np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]).astype(np.uint8)),
    ):
        Image.fromarray(image).save(f"in/{name}.png", **options)
        shown[f"{name}.png"] = expected
    status, _, err = command("in", "-o", "out/")
    assert (status, err) == (0, "") and list(tree(here / "out")) == sorted(shown)
    for name, photo in shown.items():
        np.testing.assert_array_equal(read(f"out/{name}"), stylize.stylize(net, photo), err_msg=name)


def test_bad_images_among_others(photos, here, command):
    Path("photos/sub/aa.jpg").write_text("no image at all")
    status, out, err = command("photos", "-o", "out")
    assert status == 1 and err.startswith("warning: ") and str(Path("photos/sub/aa.jpg")) in err
    last = "3 images styled, 1 could not be (see the warnings above); results are in out"
    assert err.count("\n") == 1 and out.splitlines()[-1] == last
    assert list(tree(here / "out")) == ["a.jpg", "sub/a.jpg", "sub/b.png"]
    Path("b.png").write_text("nor this")
    status, out, err = command("photos/sub/aa.jpg", "b.png", "-o", "none")
    assert (status, out) == (2, "") and "none of the 2 images" in err and not (here / "none").exists()
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "warning", "tinynst stylize"]


def test_not_enough_memory(photos, command, refused, monkeypatch):
    forward = StyleNet.forward

    def small_machine(net, images, *options, **named):
        if images.shape[1] > 26:
            raise MemoryError("Unable to allocate 99.9 GiB")
        return forward(net, images, *options, **named)

    monkeypatch.setattr(StyleNet, "forward", small_machine)
    err = refused("photos/sub/b.png", "-o", "b.png")
    assert "not enough memory to style it with a longer side of 30 pixels: try --size 15" in err
    status, out, err = command("photos", "-o", "out")
    assert (status, err.count("try --size")) == (1, 1) and "2 images styled, 1 could not be" in out


def test_a_bar_on_a_terminal_instead_of_lines(photos, command, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = command("photos", "-o", "out")
    assert (status, out) == (0, "3 images styled; results are in out\n")
    assert "styling: 100%" in err and "3/3" in err
    assert command("photos/a.jpg", "-o", "out")[2] == ""  # one image needs no bar


def test_help_says_what_becomes_of_formats_and_sizes(command):
    status, out, _ = command("--help")
    words = ("others become PNG", "ransparent becomes white", "smaller ones stay", "(default: cpu)")
    assert status == 0 and all(each in " ".join(out.split()) for each in words)


@pytest.mark.parametrize(
    "start", [["-m", "tinynst.stylize"], ["-c", "from tinynst.cli import main; main()", "stylize"]]
)
def test_as_a_program(here, style, net, start):
    name = os.fsdecode(b"caf\xe9.png") if sys.platform == "linux" else "cafe.png"  # Latin-1, from an old disk
    images.save(name, picture(8, 8))
    program = [sys.executable, *start, "--style", style]
    done = subprocess.run([*program, name, "-o", "out/"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("wrote out")
    np.testing.assert_array_equal(read(Path("out", name)), stylize.stylize(net, picture(8, 8)))
    done = subprocess.run([*program, "none", "-o", "out"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tinynst stylize: none: no such file or folder\n"
