"""Images: every kind of file comes in as RGB 0..255; every mistake is one line that names the file."""

import importlib
import io
import os
import shutil
import socket
import struct
import warnings
import zlib
from pathlib import Path

import fuzz
import numpy as np
import pytest
from PIL import Image

from tinynst.data import images, weights
from tinynst.errors import UserError
from tinynst.tools.show import show
from tinynst.training import loop


def picture(height=24, width=32, seed=0):
    """A smooth colour picture (H, W, 3) uint8, so that JPEG changes little."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def stored(path, image, **options):
    """`image` (Pillow or array) written to `path`."""
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def read(path):
    with Image.open(path) as file:
        return np.asarray(file)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def mean_difference(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()


def palette(transparency):
    """Red, green (transparent) and blue as palette colours, and the way a PNG says so."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image, {"transparency": transparency}


RGBA = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [200, 0, 0, 51]]], np.uint8)  # 51 is one fifth
RED_GREEN_BLUE = [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def grey(*values):
    return [[value] * 3 for value in values]


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("фото с пробелом.png", picture(1, 3), {}, picture(1, 3)[0]),
        ("grey.png", np.array([[0, 9, 255]], np.uint8), {}, grey(0, 9, 255)),
        ("16.png", np.array([[256, 257, 300, 32768, 65535]], np.uint16), {}, grey(1, 1, 1, 128, 255)),
        ("16.pgm", np.array([[256, 257, 65535]], np.uint16), {}, grey(1, 1, 255)),
        ("1.tif", np.array([[0, 0.5, 1]], np.float32), {}, grey(0, 128, 255)),
        ("255.tif", np.array([[0, 100, 254.6]], np.float32), {}, grey(0, 100, 255)),
        ("65535.tif", np.array([[-5, np.nan, 65535]], np.float32), {}, grey(0, 0, 255)),
        ("large.tif", np.array([[0, 2.5e5, 1e6]], np.float32), {}, grey(0, 64, 255)),
        ("large_i.tif", np.array([[0, 2**29, 2**31 - 1]], np.int32), {}, grey(0, 64, 255)),
        ("rgba.png", RGBA, {}, [[255] * 3, [200, 0, 0], [244, 204, 204]]),
        ("la.png", Image.fromarray(RGBA[:, :2, [0, 3]]), {}, grey(255, 200)),
        ("p.png", *palette(1), RED_GREEN_BLUE),
        ("ps.png", *palette(bytes([255, 0, 255])), RED_GREEN_BLUE),
        ("t.png", RGBA[:, :, :3], {"transparency": (200, 0, 0)}, grey(255, 255, 255)),
        ("bw.png", Image.fromarray(np.array([[False, True]])), {}, grey(0, 255)),
    ],
)
def test_every_kind_of_pixel(tmp_path, name, image, options, expected):
    loaded = images.load(stored(tmp_path / name, image, **options))
    assert loaded.dtype == np.float32 and loaded[0].tolist() == np.array(expected).tolist()


def test_cmyk_and_animation(tmp_path):
    cmyk = images.load(stored(tmp_path / "c.jpg", Image.fromarray(picture()).convert("CMYK"), quality=95))
    assert mean_difference(cmyk, picture()) < 4
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (images.load(tmp_path / "a.gif") == [255, 0, 0]).all()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_exif_orientation(tmp_path, orientation, turns):
    path = stored(tmp_path / "turned.jpg", picture(40, 64), exif=exif(orientation), quality=95)
    assert mean_difference(images.load(path), np.rot90(picture(40, 64), turns)) < 4
    assert min(images.load(path, size=20).shape[:2]) == 20


WRONG_TYPES = struct.pack("<HHIIHHIIHHII", 0x112, 3, 1, 6, 0x10F, 3, 1, 65535, 0x111, 2, 3, 0x414141)


@pytest.mark.parametrize("fields", [b"\xff\xff" + b"\xfe" * 30, b"\3\0" + WRONG_TYPES + bytes(4)])
def test_garbled_exif_neither_warns_nor_refuses(tmp_path, fields):
    path = stored(tmp_path / "a.jpg", picture(), exif=b"Exif\0\0II*\0\x08\0\0\0" + fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert mean_difference(images.load(path), picture()) < 6
    assert [str(w.message) for w in caught] == []


@pytest.mark.parametrize(
    ("shape", "size", "side", "enlarge", "expected"),
    [
        ((24, 32), 12, "short", True, (12, 16)),
        ((24, 32), 16, "long", True, (12, 16)),
        ((24, 32), 48, "short", True, (48, 64)),
        ((24, 32), 100, "short", False, (24, 32)),
        ((24, 32), 12, "short", False, (12, 16)),
        ((1, 1), 64, "long", True, (64, 64)),
        ((3, 2000), 64, "long", True, (1, 64)),
        ((200, 1), 201, "long", False, (200, 1)),
    ],
)
def test_size(tmp_path, shape, size, side, enlarge, expected):
    path = stored(tmp_path / "a.png", picture(*shape))
    assert np.asarray(images.open_rgb(path, size, side, enlarge)).shape == (*expected, 3)


def test_wrong_sizes(tmp_path):
    path = stored(tmp_path / "strip.png", picture(3, 2000))
    with pytest.raises(UserError, match=r"strip\.png: 2000x3 .* would be 666667x1000"):
        images.load(path, size=1000)
    for wrong in ({"size": 0}, {"size": 5, "side": "left"}):
        with pytest.raises(ValueError, match="side must be"):
            images.load(path, **wrong)


def test_shrinking_is_antialiased_and_the_same_for_a_large_jpeg(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing an eighth of the columns would be all black or all white
    image = images.load(stored(tmp_path / "a.png", stripes), size=8)
    assert abs(image[:, 1:-1] - 127.5).max() < 12
    photo = picture(600, 800)
    shrunk = images.load(stored(tmp_path / "large.jpg", photo, quality=95), size=75)
    assert shrunk.shape == (75, 100, 3) and mean_difference(shrunk, images.resize(photo, 75, 100)) < 4


def test_resize_keeps_floats_and_axes_and_does_not_clip():
    flat = images.resize(np.full((6, 9, 3), 0.3), 4, 5)
    assert flat.shape == (4, 5, 3) and np.abs(flat - 0.3).max() < 1e-5
    edge = np.zeros((8, 8, 3), np.float32)
    edge[:, 4:] = 1
    enlarged = images.resize(edge, 32, 32)
    assert enlarged.dtype == np.float32 and enlarged.max() > 1.01 and enlarged.min() < -0.01
    expected = np.asarray(Image.fromarray(picture()).resize((10, 20), Image.Resampling.BICUBIC))
    assert np.abs(images.resize(picture(), 20, 10).clip(0, 255) - expected).max() < 1.1  # Pillow rounds twice


def png(*chunks):
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def half(format):
    noise, data = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(data, format)
    return data.getvalue()[: len(data.getvalue()) // 2]


HUGE = (b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
ZERO = b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b"\x2c" + bytes(9) + b"\x02\x00;"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.jpg", None, "no such file"),
        (".", None, "folder"),
        ("/dev/zero", None, "a pipe, a socket or a device"),
        ("postscript.jpg", EPS, "no image that can be read"),  # Pillow would start Ghostscript
        ("empty.jpg", b"", "an empty file"),
        ("text.jpg", b"no image at all\n" * 100, "no image that can be read"),
        ("cut.jpg", half("JPEG"), "damaged or cut short"),
        ("cut.png", half("PNG"), "damaged or cut short"),
        ("claim.png", png(HUGE, (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")), "too large"),
        ("zero.gif", ZERO, "zero pixels"),
    ],
)
@pytest.mark.parametrize("size", [None, 16])
def test_unreadable_files_are_named_in_one_line(tmp_path, name, content, reason, size):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        images.load(path, size=size)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message


@pytest.mark.parametrize("command", ["stylize", "superres", "dataset", "train"])
def test_what_cannot_be_read_in_a_folder_is_passed_over(tmp_path, monkeypatch, command):
    """Reported on a line each, and the exit status is 1, by every command; a pipe would never end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "VGG16_CHANNELS", weights.VGG16_CHANNELS)
    monkeypatch.setattr(loop, "_plot", lambda path, losses, title: None)
    fuzz.prepare()
    good, bad = picture(40, 40), (r"fifo\n.png", "socket.png", "broken.png", "eps.png", r"\x1b[2J.png")
    for name in ("a.png", "b.png"):
        stored(tmp_path / "photos" / name, good)
    os.mkfifo("photos/fifo\n.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("photos/socket.png")
    os.symlink("nowhere", "photos/broken.png")
    for name in ("eps.png", "\x1b[2J.png"):
        Path("photos", name).write_bytes(EPS)
    words = {
        "stylize": "photos -o out --style style.h5",
        "superres": "photos -o out --weights superres.h5 --factor 2",
        "dataset": "photos out.h5",
        "train": "--content photos --init none --width 2 --image-size 32 --iterations 4 --batch 2 --out out "
        "--samples photo.png --style photo.png --content-layers relu1_1 --style-layers relu1_1",
    }[command]
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    shutil.copy("vgg.h5", "vgg16.h5")
    main = importlib.import_module(f"tinynst.{command}").main
    status, _, err = fuzz.command(main, command, *words.split())
    assert status == 1, err
    for name in bad:
        assert sum(name in line for line in err.splitlines()) == 1, err
    results = {
        "stylize": "out/a.png",
        "superres": "out/b.png",
        "dataset": "out.h5",
        "train": "out/weights.h5",
    }
    assert Path(results[command]).stat().st_size > 0


def test_the_limit_on_pixels_is_checked_before_decoding(tmp_path, monkeypatch):
    path = stored(tmp_path / "a.png", picture())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32)
    assert images.load(path).shape == (24, 32, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32 - 1)
    monkeypatch.setattr(images, "_upright", lambda image: pytest.fail("decoded"))
    with pytest.raises(UserError, match="TINYNST_MAX_PIXELS"):
        images.load(path)


@pytest.mark.parametrize("name", ["a.PNG", "a.tif", "a.bmp"])
def test_saved_pixels_are_clipped_and_rounded(tmp_path, name):
    image = picture().astype(np.float32)
    image[0, :4, 0] = [-40, 300, 10.4, 10.6]
    images.save(tmp_path / "new folder" / name, image)
    loaded = images.load(tmp_path / "new folder" / name)
    assert loaded[0, :4, 0].tolist() == [0, 255, 10, 11] and np.array_equal(loaded[1:], picture()[1:])
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == [name]


def test_jpeg_keeps_hard_colour_edges(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2], stripes[1::2] = [255, 0, 0], [0, 0, 255]
    images.save(tmp_path / "a.jpg", stripes)
    with Image.open(tmp_path / "a.jpg") as file:
        assert file.format == "JPEG" and max(file.quantization[0]) <= 13  # quality 95
    assert mean_difference(images.load(tmp_path / "a.jpg"), stripes) < 6


def test_what_cannot_be_saved_leaves_what_is_there(tmp_path):
    path = stored(tmp_path / "a.jpg", picture())
    (tmp_path / "b.png").mkdir()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.jpg: could not be written as 70000x1"):
        images.save(path, np.zeros((1, 70000, 3)))
    for name, message in {"a.docx": r"\.png, \.jpg", "a": r"\.png", "b.png": "folder"}.items():
        with pytest.raises(UserError, match=message):
            images.save(tmp_path / name, picture())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="NaN"):
        images.to_uint8(np.array([[[1.0, np.nan, 3.0]]]))
    assert images.to_uint8(np.array([np.inf, -np.inf, 254.6])).tolist() == [255, 0, 255]


def test_grey_and_transparency_are_saved_and_read_as_such(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    colours, first, alpha = rgba[:, :, :3], rgba[:, :, [0, 0, 0]], rgba[:, :, 3]
    stored(tmp_path / "la.png", Image.fromarray(rgba[:, :, [0, 3]]))
    for name, image, expected in (
        ("rgb.png", colours, (colours, None, False)),
        ("rgba.tif", rgba, (colours, alpha, False)),  # colours under transparent places are kept
        ("grey.png", rgba[:, :, 0] + np.float32(0.3), (first, None, True)),
        ("la.png", None, (first, alpha, True)),
    ):
        if image is not None:
            images.save(tmp_path / name, image)
        for found, wanted in zip(images.load_parts(tmp_path / name), expected, strict=True):
            assert np.array_equal(found, wanted), name
    images.save(tmp_path / "white.bmp", np.dstack([colours, 0 * alpha]))
    assert (images.load(tmp_path / "white.bmp") == 255).all()


def test_find(tmp_path):
    with pytest.raises(UserError, match="is an empty folder"):
        images.find([tmp_path])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds files but no image.*\.jpg"):
        images.find(tmp_path)
    for name in [".hidden.png", "b.JPG", "a.png", "sub/ü.jpeg", ".cache/c.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = images.find(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.png", "b.JPG", "sub/ü.jpeg"]
    both = images.find([tmp_path / "notes.txt", tmp_path, str(tmp_path / "a.png")])
    assert [p.name for p in both] == ["a.png", "b.JPG", "notes.txt", "ü.jpeg"]
    with pytest.raises(UserError, match="no such file or folder"):
        images.find(tmp_path / "missing")


def test_preserve_color_is_luma_of_one_and_chroma_of_the_other():
    stylised, content = (100 + picture(seed=s).astype(np.float32) / 8 for s in (1, 2))
    out = images.preserve_color(stylised, content)
    ycbcr = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    for axis, source in zip(ycbcr, (stylised, content, content), strict=True):
        np.testing.assert_allclose(out @ axis, source @ axis, atol=1e-3)
    out = images.preserve_color(np.full((2, 2, 3), 250.0), np.full((2, 2, 3), [200.0, 0, 0]))
    assert out.dtype == np.float32 and out.max() == 255 and out.min() >= 0


def test_sheet_lays_out_in_equal_cells():
    red, small = np.full((10, 20, 3), [255.0, 0, 0]), np.full((4, 6, 3), [0, 0, 255.0])
    page = images.sheet([[red, small], [red]], gap=3)
    assert page.dtype == np.uint8 and page.shape == (3 + 2 * 13, 3 + 2 * 23, 3)
    for place, image in ((page[3:13, 3:23], red), (page[6:10, 33:39], small), (page[16:26, 3:23], red)):
        assert np.array_equal(place, image)
    assert (page != 255).any(axis=2).sum() == 2 * 200 + 24


def test_captions_stand_under_the_images_and_are_cut_to_the_cell():
    white = np.full((30, 60, 3), 255.0)
    texts = ([["", None]], [["ünî", "x" * 90]])
    plain, named = (images.sheet([[white, white]], captions, gap=4) for captions in texts)
    assert plain.shape == named.shape and (plain == 255).all() and (named[:34] == 255).all()
    ink = (named != 255).any(axis=(0, 2)).nonzero()[0]
    assert ink.min() >= 4 and ink.max() < named.shape[1] - 4


def test_match_histogram_gives_the_references_distribution():
    rng = np.random.default_rng(0)
    reference = np.stack([rng.normal(90, 20, (40, 50)), rng.uniform(50, 200, (40, 50))], axis=2)
    image = np.stack([rng.uniform(0, 255, (60, 30)), rng.normal(128, 30, (60, 30))], axis=2).clip(0, 255)
    matched = images.match_histogram(image, reference)
    assert matched.shape == image.shape and matched.dtype == np.float32
    for c in range(2):
        for share in (0.02, 0.3, 0.5, 0.98):
            assert abs(np.quantile(matched[:, :, c], share) - np.quantile(reference[:, :, c], share)) < 1.5
        assert (np.diff(matched[:, :, c].ravel()[image[:, :, c].ravel().argsort()]) >= 0).all()
    whole = rng.integers(0, 256, (20, 30, 3)).astype(np.float32)
    assert np.abs(images.match_histogram(whole, whole) - whole).max() < 1e-4


def test_a_path_a_pillow_image_and_an_array_are_one_image(tmp_path, xp):
    path = stored(tmp_path / "a.png", picture())
    for given in (path, str(path), Image.open(path), picture(), xp.asarray(picture().astype(np.float32))):
        assert np.array_equal(images.to_array(given), picture())
    assert (images.to_array(Image.fromarray(RGBA))[0] == [[255] * 3, [200, 0, 0], [244, 204, 204]]).all()
    odd = (np.full((2, 3, 3), number) for number in (np.nan, -np.inf, 1j, "1", None))
    for wrong in (*odd, picture()[0], picture()[:, :0]):
        with pytest.raises(ValueError, match="it should be numbers"):
            images.to_array(wrong)


def test_show_draws_side_by_side(tmp_path):
    path, floats = stored(tmp_path / "photo.png", picture()), picture().astype(np.float32)
    figure = show(path, floats, sharp=Image.open(path), grey=picture()[:, :, 0], columns=3)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["photo.png", "", "sharp", "grey"]
    for axes in figure.axes[:3]:
        assert np.array_equal(axes.images[0].get_array(), picture())
    assert len(figure.axes) == 6 and not figure.axes[4].images and not figure.axes[4].axison
    with pytest.raises(ValueError, match="at least one"):
        show()


def test_a_notebook_draws_a_figure_once(monkeypatch):
    from matplotlib import pyplot

    display, shown = pytest.importorskip("IPython.display"), []
    monkeypatch.setattr(display, "display", shown.append)
    figure = show(picture())
    assert pyplot.fignum_exists(figure.number)
    figure._ipython_display_()
    assert len(shown) == 1 and shown[0].data.startswith(b"\xff\xd8")
    assert not pyplot.fignum_exists(figure.number)
