"""Images: every kind of file comes in as RGB 0..255, every mistake comes out as one line that names the file."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tinynst.data import images
from tinynst.errors import UserError


def picture(height=24, width=32, seed=0):
    """A smooth colour picture (H, W, 3) uint8, so that JPEG changes little."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def stored(path, image, **options):
    """`image` (Pillow or array) written to `path`."""
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def psnr(a, b):
    """Peak signal to noise ratio in dB; a difference too small to matter counts as 0.1, so equal images have one too."""
    return 10 * np.log10(255**2 / max(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2), 0.01))


# --- kinds of files ---------------------------------------------------------------------------------------------------


def test_rgb_png_comes_in_exactly(tmp_path):
    image = images.load(stored(tmp_path / "a.png", picture()))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, picture())


@pytest.mark.parametrize("name", ["photo.png", "фото с пробелом.png", "絵画.jpg", "überall/çà.jpg"])
def test_any_file_name(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    images.save(tmp_path / name, picture())
    assert psnr(images.load(tmp_path / name), picture()) > 35


def test_8_bit_grey_becomes_three_equal_channels(tmp_path):
    grey = picture()[..., 0]
    image = images.load(stored(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 256, 257], [300, 32768, 65535]], np.uint16)
    image = images.load(stored(tmp_path / f"grey{suffix}", grey))
    np.testing.assert_array_equal(image[..., 1], [[0, 1, 1], [1, 128, 255]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 100, 254.6], [0, 100, 255]),
        ([-5, np.nan, 65535], [0, 0, 255]),
        ([0, 2.5e5, 1e6], [0, 64, 255]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_float_tiff(tmp_path, values, expected):
    image = images.load(stored(tmp_path / "f.tif", np.array([values], np.float32)))
    np.testing.assert_array_equal(image[0, :, 0], expected)


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 257, 65535], [0, 1, 255]), ([0, 2**29, 2**31 - 1], [0, 64, 255])]
)
def test_32_bit_integer_tiff(tmp_path, values, expected):
    image = images.load(stored(tmp_path / "i.tif", np.array([values], np.int32)))
    np.testing.assert_array_equal(image[0, :, 0], expected)


def test_transparent_is_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 200, [0, 255, 51]  # 51 is one fifth
    image = images.load(stored(tmp_path / "a.png", rgba))
    np.testing.assert_array_equal(image[0], [[255, 255, 255], [200, 0, 0], [244, 204, 204]])


def test_grey_with_alpha(tmp_path):
    la = np.array([[[10, 0], [10, 255]]], np.uint8)
    image = images.load(stored(tmp_path / "la.png", Image.fromarray(la, mode=None)))
    np.testing.assert_array_equal(image[0, :, 0], [255, 10])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_palette_with_transparency(tmp_path, transparency):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image = images.load(stored(tmp_path / "p.png", palette, transparency=transparency))
    np.testing.assert_array_equal(image[0], [[255, 0, 0], [255, 255, 255], [0, 0, 255]])


def test_rgb_with_one_transparent_colour(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    image = images.load(stored(tmp_path / "t.png", image, transparency=(1, 2, 3)))
    np.testing.assert_array_equal(image[0], [[255, 255, 255], [4, 5, 6]])


def test_cmyk_jpeg(tmp_path):
    image = images.load(stored(tmp_path / "cmyk.jpg", Image.fromarray(picture()).convert("CMYK"), quality=95))
    assert image.shape == (24, 32, 3)
    assert psnr(image, picture()) > 35


def test_black_and_white(tmp_path):
    image = images.load(stored(tmp_path / "bw.png", Image.fromarray(np.array([[False, True]]))))
    np.testing.assert_array_equal(image[0], [[0, 0, 0], [255, 255, 255]])


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.load(tmp_path / "a.gif"), np.full((4, 5, 3), [255, 0, 0]))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_exif_orientation(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(tmp_path / "turned.jpg", picture(40, 64), exif=exif, quality=95)
    expected = np.rot90(picture(40, 64), turns)
    image = images.load(path)
    assert image.shape == expected.shape
    assert psnr(image, expected) > 35
    assert min(images.load(path, size=20).shape[:2]) == 20


@pytest.mark.parametrize(
    "fields",
    [
        b"\xff\xff" + b"\xfe" * 30,  # claims 65535 fields: Pillow warns
        b"\3\0"
        + struct.pack("<HHIIHHIIHHII", 0x112, 3, 1, 6, 0x10F, 3, 1, 65535, 0x111, 2, 3, 0x414141)
        + bytes(4),
    ],  # the second has fields of the wrong type: ImageOps.exif_transpose raises
)
def test_garbled_exif_neither_warns_nor_refuses(tmp_path, fields):
    path = stored(tmp_path / "a.jpg", picture(), exif=b"Exif\0\0II*\0\x08\0\0\0" + fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert psnr(images.load(path), picture()) > 30
    assert [str(w.message) for w in caught] == []


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2000), (2000, 3)])
def test_odd_sizes(tmp_path, height, width):
    path = stored(tmp_path / "a.png", picture(height, width))
    assert images.load(path).shape == (height, width, 3)
    expected = [max(1, round(64 * length / max(height, width))) for length in (height, width)]
    assert images.load(path, size=64, side="long").shape == (*expected, 3)


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [(12, "short", (12, 16)), (16, "long", (12, 16)), (48, "short", (48, 64)), (24, "short", (24, 32))],
)
def test_size_is_of_the_short_or_long_side(tmp_path, size, side, expected):
    image = images.load(stored(tmp_path / "a.png", picture()), size=size, side=side)
    assert image.shape == (*expected, 3)
    assert image.min() >= 0
    assert image.max() <= 255


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing an eighth of the columns would be all black or all white
    image = images.load(stored(tmp_path / "a.png", stripes), size=8)
    assert abs(image[:, 1:-1] - 127.5).max() < 12


def test_large_jpeg_is_decoded_smaller_to_the_same_result(tmp_path):
    photo = picture(1200, 1600)
    path = stored(tmp_path / "large.jpg", photo, quality=95)
    with Image.open(path) as file:
        images._decode_smaller(file, 150, "short")
        assert file.size == (400, 300)  # the largest step that leaves twice the wanted size
    image = images.load(path, size=150)
    assert image.shape == (150, 200, 3)
    assert psnr(image, images.resize(photo, 150, 200)) > 35


def test_enlarge_false_keeps_a_small_photo(tmp_path):
    path = stored(tmp_path / "a.png", picture())
    assert images.open_rgb(path, 100, enlarge=False).size == (32, 24)
    assert images.open_rgb(path, 12, enlarge=False).size == (16, 12)
    strip = stored(tmp_path / "strip.png", picture(200, 1))
    assert images.open_rgb(strip, 201, side="long", enlarge=False).size == (1, 200)


def test_a_size_that_would_fill_the_memory_is_refused(tmp_path):
    path = stored(tmp_path / "strip.png", picture(3, 2000))
    with pytest.raises(UserError, match=r"strip\.png: 2000x3 .* would be 666667x1000"):
        images.load(path, size=1000)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 5, "side": "left"}])
def test_wrong_arguments(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"size must be|side must be"):
        images.load(stored(tmp_path / "a.png", picture()), **wrong)


def test_resize_keeps_floats_and_does_not_clip():
    image = np.full((6, 9, 3), 0.3, np.float32)
    np.testing.assert_allclose(images.resize(image, 4, 5), np.full((4, 5, 3), 0.3), rtol=1e-5)
    edge = np.zeros((8, 8, 3), np.float32)
    edge[:, 4:] = 1
    enlarged = images.resize(edge, 32, 32)
    assert enlarged.dtype == np.float32
    assert enlarged.max() > 1.01
    assert enlarged.min() < -0.01


def test_resize_does_not_mix_up_the_axes():
    image = picture(24, 32).astype(np.float32)
    np.testing.assert_array_equal(images.resize(image, 24, 32), image)
    expected = np.asarray(Image.fromarray(picture(24, 32)).resize((10, 20), Image.Resampling.BICUBIC))
    assert (
        np.abs(np.clip(images.resize(image, 20, 10), 0, 255) - expected).max() < 1.1
    )  # Pillow rounds to 8 bits twice


@pytest.mark.parametrize(("shape", "size"), [((4, 4), (2, 2)), ((4, 4, 3), (0, 2))])
def test_resize_refuses(shape, size):
    with pytest.raises(ValueError, match="resize takes"):
        images.resize(np.zeros(shape, np.float32), *size)


# --- files that cannot be read ----------------------------------------------------------------------------------------


def missing(path):
    return path / "missing.jpg"


def folder(path):
    return path


def empty_file(path):
    (path / "empty.jpg").write_bytes(b"")
    return path / "empty.jpg"


def text_named_jpg(path):
    (path / "text.jpg").write_text("no image at all\n" * 100)
    return path / "text.jpg"


def truncated_jpeg(path):
    whole = stored(path / "whole.jpg", picture(200, 200), quality=95).read_bytes()
    (path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return path / "cut.jpg"


def truncated_png(path):
    whole = stored(
        path / "whole.png", np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    ).read_bytes()
    (path / "cut.png").write_bytes(whole[: len(whole) // 2])
    return path / "cut.png"


def bomb(path):
    """A PNG of a hundred bytes that claims 60000 x 60000 pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    (path / "claim.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path / "claim.png"


def zero_sized(path):
    (path / "zero.gif").write_bytes(
        b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b"\x2c" + bytes(9) + b"\x02\x00;"
    )
    return path / "zero.gif"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "no such file"),
        (folder, "folder"),
        (empty_file, "empty"),
        (text_named_jpg, "no image, whatever its name says"),
        (truncated_jpeg, "damaged or cut short"),
        (truncated_png, "damaged or cut short"),
        (bomb, "too large"),
        (zero_sized, "zero pixels"),
    ],
)
@pytest.mark.parametrize("size", [None, 16])
def test_unreadable_files_are_named_in_one_line(tmp_path, make, reason, size):
    path = make(tmp_path)
    with pytest.raises(UserError) as error:
        images.load(path, size=size)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert len(message) > len(f"{path}: ") + 5


def test_large_but_honest_image_does_not_warn(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # 24x32 is more than this and less than twice
    assert images.load(stored(tmp_path / "a.png", picture())).shape == (24, 32, 3)


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.tif", "a.bmp"])
def test_lossless_round_trip_is_clipped_and_rounded(tmp_path, name):
    image = picture().astype(np.float32)
    image[0, :4, 0] = [-40, 300, 10.4, 10.6]
    images.save(tmp_path / "new folder" / name, image)
    loaded = images.load(tmp_path / "new folder" / name)
    np.testing.assert_array_equal(loaded[0, :4, 0], [0, 255, 10, 11])
    np.testing.assert_array_equal(loaded[1:], picture()[1:])
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == [name]


def test_jpeg_keeps_hard_colour_edges(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = [255, 0, 0]
    stripes[1::2] = [0, 0, 255]
    images.save(tmp_path / "a.jpg", stripes)
    with Image.open(tmp_path / "a.jpg") as file:
        assert file.format == "JPEG"
        assert max(file.quantization[0]) <= 13  # quality 95
    assert psnr(images.load(tmp_path / "a.jpg"), stripes) > 30


@pytest.mark.parametrize("name", ["a.docx", "a", "a.gif"])
def test_unknown_suffix_lists_those_there_are(tmp_path, name):
    with pytest.raises(UserError, match=r"\.png, \.jpg"):
        images.save(tmp_path / name, picture())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = stored(tmp_path / "a.jpg", picture())
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.jpg: could not be written as 70000x1"):
        images.save(path, np.zeros((1, 70000, 3)))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_saving_onto_a_folder(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="folder"):
        images.save(tmp_path / "a.png", picture())


def test_nan_is_not_black():
    with pytest.raises(ValueError, match="NaN"):
        images.to_uint8(np.array([[[1.0, np.nan, 3.0]]]))
    np.testing.assert_array_equal(images.to_uint8(np.array([np.inf, -np.inf, 254.6])), [255, 0, 255])


# --- find -------------------------------------------------------------------------------------------------------------


def test_find(tmp_path):
    for name in ["b.JPG", "a.png", "sub/ü.jpeg", ".hidden.png", ".cache/c.png", "notes.txt"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = images.find(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.png", "b.JPG", "sub/ü.jpeg"]
    # a file named by itself counts whatever its suffix, and nothing counts twice
    both = images.find([tmp_path / "notes.txt", tmp_path, str(tmp_path / "a.png")])
    assert [p.name for p in both] == ["a.png", "b.JPG", "notes.txt", "ü.jpeg"]


def test_find_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        images.find(tmp_path / "missing")
    with pytest.raises(UserError, match="is an empty folder"):
        images.find([tmp_path])
    (tmp_path / "a.txt").touch()
    (tmp_path / ".b.png").touch()
    with pytest.raises(UserError, match=r"holds 2 files but no image.*\.jpg"):
        images.find(tmp_path)


# --- pictures from pictures -------------------------------------------------------------------------------------------


def test_preserve_color_is_luma_of_one_and_chroma_of_the_other():
    stylised, content = (100 + picture(seed=s).astype(np.float32) / 8 for s in (1, 2))
    out = images.preserve_color(stylised, content)
    y = np.array([0.299, 0.587, 0.114])
    cb = np.array([-0.168736, -0.331264, 0.5])
    cr = np.array([0.5, -0.418688, -0.081312])
    assert out.dtype == np.float32
    np.testing.assert_allclose(out @ y, stylised @ y, atol=1e-3)
    np.testing.assert_allclose(out @ cb, content @ cb, atol=1e-3)
    np.testing.assert_allclose(out @ cr, content @ cr, atol=1e-3)


def test_preserve_color_stays_in_range_and_checks_shapes():
    out = images.preserve_color(np.full((2, 2, 3), 250.0), np.full((2, 2, 3), [200.0, 0, 0]))
    assert out.max() == 255
    assert out.min() >= 0
    with pytest.raises(ValueError, match="one size"):
        images.preserve_color(np.zeros((2, 2, 3)), np.zeros((2, 3, 3)))


def test_sheet_lays_out_in_equal_cells():
    red, small = np.full((10, 20, 3), [255.0, 0, 0]), np.full((4, 6, 3), [0, 0, 255.0])
    page = images.sheet([[red, small], [red]], gap=3)
    assert page.dtype == np.uint8
    assert page.shape == (3 + 2 * 13, 3 + 2 * 23, 3)
    np.testing.assert_array_equal(page[3:13, 3:23], red)
    np.testing.assert_array_equal(page[16:26, 3:23], red)
    np.testing.assert_array_equal(page[6:10, 33:39], small)
    assert (page != 255).any(axis=2).sum() == 2 * 200 + 24


def test_sheet_with_captions():
    white = np.full((30, 60, 3), 255.0)
    plain, named = (
        images.sheet([[white, white]], captions=c, gap=4) for c in ([["", None]], [["ünî", "x" * 90]])
    )
    assert plain.shape == named.shape
    assert (plain == 255).all()
    ink = (named != 255).any(axis=(0, 2)).nonzero()[0]
    assert ink.min() >= 4
    assert ink.max() < named.shape[1] - 4  # a long caption is cut to its cell
    assert (named[:34] == 255).all()  # captions stand under the images


def test_sheet_needs_an_image():
    with pytest.raises(ValueError, match="at least one"):
        images.sheet([[]])


def test_load_parts_gives_what_the_file_holds(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    files = {"rgb": rgba[:, :, :3], "rgba": rgba, "l": rgba[:, :, 0], "la": rgba[:, :, :2]}
    for name, array in files.items():
        Image.fromarray(array, {"la": "LA"}.get(name)).save(tmp_path / f"{name}.png")
    Image.fromarray(rgba[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "16.png")
    expected = {
        "rgb": (rgba[:, :, :3], None, False),
        "rgba": (rgba[:, :, :3], rgba[:, :, 3], False),  # colours as they are, not laid on white
        "l": (rgba[:, :, [0, 0, 0]], None, True),
        "la": (rgba[:, :, [0, 0, 0]], rgba[:, :, 1], True),
        "16": (rgba[:, :, [0, 0, 0]], None, True),
    }
    for name, (rgb, alpha, grey) in expected.items():
        found = images.load_parts(tmp_path / f"{name}.png")
        assert np.array_equal(found[0], rgb) and found[2] is grey, name
        assert (found[1] is None) if alpha is None else np.array_equal(found[1], alpha), name
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        images.load_parts(tmp_path / "none.png")


def test_grey_and_transparent_pictures_are_saved_as_such(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    for suffix in (".png", ".tif", ".webp"):
        images.save(tmp_path / f"a{suffix}", rgba)
        with Image.open(tmp_path / f"a{suffix}") as file:
            assert file.mode == "RGBA" and np.array_equal(np.asarray(file)[:, :, 3], rgba[:, :, 3])
    rgba[:, :, 3] = 0
    images.save(tmp_path / "a.bmp", rgba)
    assert (images.load(tmp_path / "a.bmp") == 255).all()
    images.save(tmp_path / "b.png", rgba[:, :, 0].astype(np.float32) + 0.3)
    with Image.open(tmp_path / "b.png") as file:
        assert file.mode == "L" and np.array_equal(np.asarray(file), rgba[:, :, 0])


def test_match_histogram_gives_the_references_distribution():
    rng = np.random.default_rng(0)
    reference = np.stack([rng.normal(90, 20, (40, 50)), rng.uniform(50, 200, (40, 50))], axis=2)
    image = np.stack([rng.uniform(0, 255, (60, 30)), rng.normal(128, 30, (60, 30))], axis=2).clip(0, 255)
    matched = images.match_histogram(image, reference)
    assert matched.shape == image.shape and matched.dtype == np.float32
    for c in range(2):
        for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.98):
            assert abs(np.quantile(matched[:, :, c], share) - np.quantile(reference[:, :, c], share)) < 1.5
        assert (np.diff(matched[:, :, c].ravel()[image[:, :, c].ravel().argsort()]) >= 0).all()


def test_match_histogram_leaves_a_match_alone_and_knows_flat_ones():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.float32)
    assert np.abs(images.match_histogram(image, image) - image).max() < 1e-4
    assert (images.match_histogram(image, np.full((2, 2, 3), 7)) == 7).all()
    flat = images.match_histogram(np.full((4, 4, 3), 9), image)
    assert np.ptp(flat) == pytest.approx(np.ptp([np.median(image[:, :, c]) for c in range(3)]), abs=2)
