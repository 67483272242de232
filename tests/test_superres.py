"""Enlarging: any size and kind of image, tiles without seams, the right weights, and nothing else touched."""

import re
import sys

import numpy as np
import pytest
from cases import photos
from PIL import Image

from tinynst import cli
from tinynst.data import images, weights
from tinynst.device import asarray
from tinynst.errors import UserError
from tinynst.networks import super_resolution_net
from tinynst.tools import superres
from tinynst.tools.superres import REACH, enlarge, load_superres

SETTINGS = {"factor": 4, "norm": "none", "upsample": "nearest", "residual": True, "width": 2}


def random_net(seed=3, **settings):
    """A tiny net that does something: random vectors, and a last layer that counts."""
    net, rng = super_resolution_net(**SETTINGS | settings, seed=seed), np.random.default_rng(seed)
    for array in {**net.parameters(), **net.buffers()}.values():
        array += rng.uniform(0.05, 0.2, array.shape).astype(np.float32) * (array.ndim == 1)
    net.parameters()["out.w"][...] = rng.normal(0, 0.02, net.parameters()["out.w"].shape)
    return net


def write_net(path, net, loss="pixel", **settings):
    about = {"kind": "superres", "factor": net.factor, "loss": loss, "settings": SETTINGS | settings}
    weights.save(path, {**net.parameters(), **net.buffers()}, about)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, made the current one, with the weights w.h5."""
    monkeypatch.chdir(tmp_path)
    write_net("w.h5", random_net())
    return tmp_path


def command(capsys, *arguments):
    """The exit status, what was printed, and what went to standard error."""
    with pytest.raises(SystemExit) as done:
        cli.run(superres.main, "superres", [str(argument) for argument in arguments])
    return done.value.code, *capsys.readouterr()


def picture(height, width, seed=0):
    corners = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def read(path):
    with Image.open(path) as file:
        return np.asarray(file)


# --- tiles ------------------------------------------------------------------------------------------------------------

VARIANTS = [
    {"factor": 2, "upsample": "transpose", "norm": "batch"},
    {"factor": 4},
    {"factor": 8, "upsample": "transpose"},
    {"factor": 8, "residual": False},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_tiles_are_the_whole(settings):
    """Tiles of 6 pixels of the image, so that every one sees less than all of it: the same numbers but for rounding."""
    net, image = random_net(**settings), photos(70, 45, 3, dtype=np.float32)
    whole = net.forward(image[None])[0].clip(0, 255)
    assert np.ptp(whole) > 50
    tiled = enlarge(net, image, tile=6 * net.factor)
    assert tiled.shape == (70 * net.factor, 45 * net.factor, 3) and tiled.dtype == np.float32
    assert np.abs(tiled - whole).max() < 0.01


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_no_pixel_of_the_result_sees_further_than_reach(settings):
    """Change one pixel in the middle: nothing changes further away than REACH, and something does close to it."""
    net, image = random_net(**settings), photos(2 * REACH + 9, 2 * REACH + 9, 3, dtype=np.float32)
    middle, f = REACH + 4, net.factor
    changed = image.copy()
    changed[middle, middle] = 255 - changed[middle, middle]
    rows, columns, _ = np.nonzero(net.forward(changed[None])[0] - net.forward(image[None])[0])
    for places in (rows, columns):
        assert places.min() >= f * (middle - REACH) and places.max() < f * (middle + REACH + 1)
        assert np.ptp(places) > 8 * f


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 2)], ids=str)
def test_any_size(size):
    result = enlarge(random_net(), picture(*size), tile=16)
    assert result.shape == (4 * size[0], 4 * size[1], 3)
    assert result.min() >= 0 and result.max() <= 255


def test_uint8_float_and_devices_agree(xp, tmp_path):
    path = write_net(tmp_path / "w.h5", random_net())
    net, about = load_superres(path, xp)
    assert about["loss"] == "pixel" and net.factor == 4
    image = picture(20, 30)
    expected = random_net().forward(image[None].astype(np.float32))[0].clip(0, 255)
    for given in (image, asarray(image.astype(np.float64), xp)):
        result = enlarge(net, given, tile=32)
        assert isinstance(result, np.ndarray) and np.abs(result - expected).max() < 0.01


def test_wrong_arguments_are_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4)), np.zeros((0, 4, 3))):
        with pytest.raises(ValueError, match=re.escape(str(wrong.shape))):
            enlarge(random_net(), wrong)
    with pytest.raises(ValueError, match="tile is 0"):
        enlarge(random_net(), picture(4, 4), tile=0)


def test_matched_histogram_is_the_images():
    """Brightness and spread of each channel are the small image's, whatever the net does to them."""
    net, image = (
        random_net(),
        photos(24, 30, 3, dtype=np.float32) * np.float32([0.3, 0.5, 0.4]) + np.float32([20, 90, 5]),
    )
    net.parameters()["out.b"][...] = [0.4, -0.3, 0.1]
    plain, matched = enlarge(net, image), enlarge(net, image, match_histogram=True)
    for c in range(3):
        assert abs(plain[:, :, c].mean() - image[:, :, c].mean()) > 5
        assert abs(matched[:, :, c].mean() - image[:, :, c].mean()) < 0.5
        assert abs(matched[:, :, c].std() - image[:, :, c].std()) < 0.5
        order = plain[:, :, c].ravel().argsort()
        assert (np.diff(matched[:, :, c].ravel()[order]) >= 0).all()


# --- loading ----------------------------------------------------------------------------------------------------------


def test_loaded_weights_are_the_net(tmp_path):
    saved = random_net(norm="batch", factor=2)
    loaded, about = load_superres(write_net(tmp_path / "w.h5", saved, norm="batch", factor=2))
    image = photos(1, 6, 7, 3, dtype=np.float32)
    assert np.array_equal(loaded.forward(image), saved.forward(image)) and about["factor"] == 2


def test_wrong_weights_are_refused(tmp_path):
    net = random_net()
    with pytest.raises(UserError, match=r"there, .* here|only in one"):
        load_superres(write_net(tmp_path / "a.h5", net, width=3))
    with pytest.raises(UserError, match="does not make a superres net: factor is 3"):
        load_superres(write_net(tmp_path / "b.h5", net, factor=3))
    weights.save(tmp_path / "c.h5", net.parameters(), {"kind": "superres", "settings": {"factor": 4}})
    with pytest.raises(UserError, match="does not record all"):
        load_superres(tmp_path / "c.h5")
    weights.save(tmp_path / "d.h5", net.parameters(), {"kind": "style", "settings": SETTINGS})
    with pytest.raises(UserError, match="holds style weights, not superres weights"):
        load_superres(tmp_path / "d.h5")


@pytest.mark.parametrize("name", weights.shipped("superres"))
def test_shipped_nets_beat_bicubic_or_look_sharper(name):
    """On a photo that ships: the pixel nets by their error, the feature nets by how much fine detail there is."""
    from tinynst.data.degradation import cut, shrink
    from tinynst.samples import PHOTOS

    net, about = load_superres(name)
    f = net.factor
    photo = cut(images.load(PHOTOS / "chelsea.jpg")[:160, :176], f)
    low = shrink(photo, f, about["degradation"])
    bicubic = images.resize(low, *photo.shape[:2])
    result = enlarge(net, low)
    inner = slice(f, -f)

    def error(image):
        return float(((image - photo)[inner, inner] ** 2).mean())

    def detail(image):
        return float((np.diff(image[inner, inner], axis=1) ** 2).mean())

    assert name == f"superres_x{f}_{about['loss']}"
    if about["loss"] == "pixel":
        assert error(result) < 0.97 * error(bicubic)
    else:
        assert detail(bicubic) < 0.9 * detail(result) and error(result) < 2 * error(bicubic)


# --- the command ------------------------------------------------------------------------------------------------------


def test_one_image(here, capsys):
    images.save("a.png", picture(20, 31))
    assert command(capsys, "a.png", "--weights", "w.h5", "-o", "b.png") == (0, "wrote b.png, 124x80\n", "")
    assert np.array_equal(read("b.png"), images.to_uint8(enlarge(random_net(), picture(20, 31))))
    command(capsys, "a.png", "--weights", "w.h5", "-o", "c.png", "--tile", "20")
    assert np.abs(read("c.png").astype(int) - read("b.png")).max() <= 1


def test_folders_keep_their_structure(here, capsys):
    images.save("photos/a.png", picture(6, 5))
    images.save("photos/sub/b.jpg", picture(8, 9))
    status, out, err = command(capsys, "photos", "--weights", "w.h5", "-o", "out")
    assert (status, err) == (0, "") and "2 images enlarged; results are in out" in out
    assert read("out/a.png").shape == (24, 20, 3) and read("out/sub/b.jpg").shape == (32, 36, 3)


def test_grey_stays_grey(here, capsys):
    grey = picture(9, 8)[:, :, 0]
    Image.fromarray(grey).save("a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save("b.png")
    for name in ("a.png", "b.png"):
        command(capsys, name, "--weights", "w.h5", "-o", f"big_{name}")
        result = read(f"big_{name}")
        assert result.shape == (36, 32)
        expected = enlarge(random_net(), np.repeat(grey[:, :, None], 3, axis=2)) @ images.LUMA
        assert np.abs(result - expected).max() <= 0.51


@pytest.mark.parametrize("colours", [3, 1])
def test_transparency_is_enlarged_too(here, capsys, colours):
    alpha = np.zeros((9, 8), np.uint8)
    alpha[:, 4:] = 255
    shown = picture(9, 8)[:, :, :colours]
    Image.fromarray(np.dstack([shown, alpha]), {3: "RGBA", 1: "LA"}[colours]).save("a.png")
    command(capsys, "a.png", "--weights", "w.h5", "-o", "b.png")
    command(capsys, "a.png", "--weights", "w.h5", "-o", "b.jpg")
    result = read("b.png")
    assert result.shape == (36, 32, 4)
    assert (result[:, :12, 3] == 0).all() and (result[:, 20:, 3] == 255).all()
    expected = enlarge(random_net(), shown if colours == 3 else shown.repeat(3, axis=2))
    expected = expected if colours == 3 else (expected @ images.LUMA)[:, :, None]
    assert np.abs(result[:, :, :3] - expected).max() <= 0.51
    assert (read("b.jpg")[2:-2, 2:10] > 240).all()  # JPEG has no transparency: white


def test_a_photo_on_its_side_is_turned(here, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(6, 10)).save("a.png", exif=exif)
    command(capsys, "a.png", "--weights", "w.h5", "-o", "b.png")
    assert np.array_equal(read("b.png"), images.to_uint8(enlarge(random_net(), np.rot90(picture(6, 10), -1))))


def test_weights_by_factor_and_loss(here, capsys, monkeypatch):
    """Feature nets have the histogram matched, pixel nets not, unless it is said."""
    images.save("a.png", picture(12, 10))
    for loss, seed in (("feature", 5), ("pixel", 6)):
        write_net(f"superres_x4_{loss}.h5", random_net(seed), loss)
    monkeypatch.setattr(weights, "SHIPPED", here)

    def result(*options):
        assert command(capsys, "a.png", "-o", "b.png", *options)[0] == 0
        return read("b.png")

    def expected(seed, match):
        return images.to_uint8(enlarge(random_net(seed), picture(12, 10), match_histogram=match))

    assert np.array_equal(result(), expected(5, True))
    assert np.array_equal(result("--loss", "pixel", "--factor", "4"), expected(6, False))
    assert np.array_equal(result("--match-histogram", "no"), expected(5, False))
    assert np.array_equal(result("--loss", "pixel", "--match-histogram", "yes"), expected(6, True))
    status, _, err = command(capsys, "a.png", "-o", "b.png", "--factor", "8")
    assert (
        status == 2
        and "no superres weights called 'superres_x8_feature'" in err
        and "superres_x4_pixel" in err
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--factor", "2"], "--factor is 2, but w.h5 was trained with 4"),
        (["--loss", "feature"], "--loss is feature, but w.h5 was trained with pixel"),
        (["--tile", "0"], "--tile must be at least 1 pixel, not 0"),
        (["--weights", "nowhere.h5"], "nowhere.h5"),
    ],
)
def test_mistakes_are_one_line_and_keep_what_was_there(here, capsys, options, message):
    images.save("a.png", picture(6, 5))
    images.save("b.png", picture(3, 3))
    status, out, err = command(capsys, "a.png", "--weights", "w.h5", "-o", "b.png", *options)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert np.array_equal(read("b.png"), picture(3, 3))


def test_too_large_a_result_is_refused_before_any_work(here, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    images.save("a.png", picture(9, 8))
    status, _, err = command(capsys, "a.png", "--weights", "w.h5", "-o", "b.png")
    assert status == 2 and "32x36 would be too large" in err and not (here / "b.png").exists()


def test_a_bar_on_a_terminal(here, capsys, monkeypatch):
    for name in ("a", "b"):
        images.save(f"photos/{name}.png", picture(4, 5))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, _, err = command(capsys, "photos", "--weights", "w.h5", "-o", "out")
    assert status == 0 and "enlarging: 100%" in err
