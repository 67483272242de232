"""Stylising: the net's pixels land in the right file, at the right size, and nothing else is touched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
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
    """A folder, made the current one, with a.png and c.png, and with photos/a.jpg, photos/sub/a.jpg and
    photos/sub/b.png: pictures of several sizes."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("photos/a.jpg", "photos/sub/a.jpg", "photos/sub/b.png")):
        images.save(name, picture(20 + 4 * i, 30, i))
    images.save("a.png", picture(20, 30))
    images.save("c.png", picture(9, 9))
    return tmp_path


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
    ("inputs", "out", "written"),
    [
        ("a.png", "new/deep/b.png", "new/deep/b.png"),
        ("a.png", "folder", "folder/a.png"),
        ("a.png", "new", "new/a.png"),
        ("a.png", "new.v2/", "new.v2/a.png"),
        ("a.png", "there.png", "there.png/a.png"),
        ("photos photos/a.jpg c.png ./c.png", "new", "new/a.jpg new/sub/a.jpg new/sub/b.png new/c.png"),
        ("photos", "old", "old/a.jpg old/sub/a.jpg old/sub/b.png"),
        ("more bare", "new", "new/a.png new/b.gif.png new/b.png new/c.gif.png new/c.ppm.png new/bare.png"),
    ],
)
def test_which_image_becomes_which_file(here, net, command, inputs, out, written):
    """Folders keep their structure, formats that are not written become PNG, an image given twice is styled
    once, and results of earlier runs are replaced."""
    for folder in ("folder", "there.png", "more"):
        (here / folder).mkdir()
    for i, name in enumerate(("more/a.gif", "more/b.gif", "more/b.png", "more/c.gif", "more/c.ppm", "bare")):
        Image.fromarray(picture(8, 9 + i)).save(name, Path(name).suffix[1:] or "jpeg")
    images.save("old/sub/b.png", picture(8, 8))
    (here / "old/notes.txt").write_text("old")
    before = tree(here)
    status, lines, err = command(*inputs.split(), "-o", out)
    assert (status, err) == (0, "")
    after, written = tree(here), written.split()
    assert list(after) == sorted(before.keys() | set(written))
    assert all(after[name] == content for name, content in before.items() if name not in written)
    if inputs == "a.png":
        assert lines == f"wrote {Path(written[0])}, 30x20\n"
        np.testing.assert_array_equal(read(written[0]), stylize.stylize(net, picture(20, 30)))
    elif "photos" in inputs:
        *lines, last = lines.splitlines()
        assert last == f"{len(written)} images styled; results are in {out}"
        sources = [f"photos/{name.partition('/')[2]}" for name in written[:3]] + ["c.png"]
        assert lines == [f"{Path(s)} -> {Path(t)}" for s, t in zip(sources, written, strict=False)]
        np.testing.assert_array_equal(read(written[2]), stylize.stylize(net, picture(28, 30, 2)))
        with Image.open(written[1]) as file:
            assert (file.format, file.size) == ("JPEG", (30, 24))
    else:
        assert [read(name).shape[1] for name in written] == [9, 10, 11, 12, 13, 14]
        assert all(after[name].startswith(b"\x89PNG") for name in written)


def test_results_in_a_folder_below_the_photos_are_not_styled_again(here, command, refused):
    for warnings in (0, 1):
        status, out, err = command("photos", "-o", "photos/styled")
        assert (status, err.count("\n")) == (0, warnings) and "3 images styled" in out
    assert f"passed over 3 images in {Path('photos/styled')}" in err
    assert list(tree(here / "photos/styled")) == ["a.jpg", "sub/a.jpg", "sub/b.png"]
    images.save("box/in/a.png", picture(8, 8))
    assert "holds no image but those in" in refused("box", "-o", "box/in")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_never_overwritten(here, refused, link):
    """By its own name in other words, or by a link to it; nor are two results written to one file."""
    for out in ("./a.png", f"../{here.name}/a.png", here / "a.png", ".", "photos/.."):
        assert "would overwrite a.png" in refused("a.png", "-o", out)
    (here / "out" / "sub").mkdir(parents=True)
    (here / "same").symlink_to("photos")
    link(here / "photos/a.jpg", here / "b.jpg")
    link(here / "photos/a.jpg", here / "out/sub/b.png")  # the target of one input, the bytes of another
    for arguments in (("photos/a.jpg", "-o", "b.jpg"), ("photos", "-o", "out"), ("photos", "-o", "photos")):
        assert f"would overwrite {Path('photos/a.jpg')}" in refused(*arguments)
    assert "would overwrite" in refused("photos", "-o", "same")
    images.save("a.jpg", picture(8, 8))
    twice = f"{Path('photos/sub/a.jpg')} and a.jpg would both become {Path('new/a.jpg')}"
    assert twice in refused("photos/sub/a.jpg", "a.jpg", "-o", "new")
    (here / "linked" / "real").mkdir(parents=True)
    (here / "linked" / "sub").symlink_to("real")
    images.save("photos/real/b.png", picture(8, 8))
    assert "would both become" in refused("photos", "-o", "linked")


@pytest.mark.parametrize(
    ("options", "size", "named"),
    [
        ("--size 15", (15, 10), {}),
        ("--size 1", (1, 1), {}),
        ("--size 60", (30, 20), {}),
        ("--size 60 --enlarge", (60, 40), {}),
        ("--strength 0.5 --preserve-color", (30, 20), {"strength": 0.5, "preserve_color": True}),
        ("--device cuda", (30, 20), {}),
    ],
)
def test_options(here, net, command, strict, options, size, named):
    assert command("a.png", "-o", "b.png", *options.split())[0] == 0
    assert (strict.launches > 0) == ("cuda" in options)
    photo = np.asarray(Image.fromarray(picture(20, 30)).resize(size, Image.Resampling.BICUBIC))
    difference = np.abs(read("b.png").astype(int) - stylize.stylize(net, photo, **named))
    assert difference.max() <= (1 if "cuda" in options else 0)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_that_may_not_be_written_into(here, refused):
    (here / "locked").mkdir(mode=0o500)
    assert "locked may not be written into" in refused("a.png", "-o", "locked/new/")


def test_odd_images(here, net, command):
    """Odd names, a picture of one pixel, a photo on its side, and 16 bits."""
    grey = np.linspace(0, 65535, 120).reshape(8, 15).astype(np.uint16)
    grey8 = np.rint(np.repeat(grey[..., None] / 257, 3, axis=2)).astype(np.uint8)
    (here / "in").mkdir()
    shown = {"tiny": picture(1, 1), "Größe 大きい \N{ARTIST PALETTE}": picture(20, 30), "-o": picture(9, 9)}
    for name, image in shown.items():
        images.save(f"in/{name}.png", image)
    Image.fromarray(picture(20, 30)).save("in/turned.png", exif=exif(6))
    Image.fromarray(grey).save("in/grey.png")
    shown |= {"turned": np.rot90(picture(20, 30), -1), "grey": grey8}
    status, _, err = command("in", "-o", "out/")
    assert (status, err) == (0, "") and {path.stem for path in (here / "out").iterdir()} == shown.keys()
    for name, photo in shown.items():
        np.testing.assert_array_equal(read(f"out/{name}.png"), stylize.stylize(net, photo), err_msg=name)


def test_bad_images_among_others(here, command):
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


def test_not_enough_memory(here, command, refused, monkeypatch):
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


def test_a_bar_on_a_terminal_instead_of_lines(here, command, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = command("photos", "-o", "out")
    assert (status, out) == (0, "3 images styled; results are in out\n")
    assert "styling: 100%" in err and "3/3" in err
    assert command("photos/a.jpg", "-o", "out")[2] == ""  # one image needs no bar


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
