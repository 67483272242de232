"""Enlarging: any size and kind of image, tiles without seams, the right weights, and nothing else touched."""

import re

import numpy as np
import pytest
from cases import photos
from PIL import Image
from test_images import exif, picture, read

from tinynst import cli
from tinynst.data import images, weights
from tinynst.data.degradation import cut, shrink
from tinynst.device import asarray
from tinynst.errors import UserError
from tinynst.networks import super_resolution_net
from tinynst.samples import PHOTOS
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


def write_net(path, net, loss="pixel"):
    about = {"kind": "superres", "factor": net.factor, "loss": loss, "settings": SETTINGS}
    weights.save(path, {**net.parameters(), **net.buffers()}, about)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of our own, made the current one, with the weights w.h5."""
    monkeypatch.chdir(tmp_path)
    write_net("w.h5", random_net())
    return tmp_path


@pytest.fixture
def command(capsys):
    """The command as it is run: the exit status, what was printed, and what went to standard error."""

    def run(*arguments, weights="w.h5"):
        with pytest.raises(SystemExit) as done:
            cli.run(superres.main, "superres", [*arguments, *(["--weights", weights] if weights else [])])
        return done.value.code, *capsys.readouterr()

    return run


VARIANTS = [
    {"factor": 2, "upsample": "transpose", "norm": "batch"},
    {"factor": 4},
    {"factor": 8, "upsample": "transpose"},
    {"factor": 8, "residual": False},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_tiles_are_the_whole_and_see_no_further_than_reach(settings):
    """Tiles of 8 pixels, each from a part of the image. Then one pixel in the middle is changed."""
    net, image = random_net(**settings), photos(2 * REACH + 9, 2 * REACH + 6, 3, dtype=np.float32)
    f, middle = net.factor, REACH + 4
    whole = net.forward(image[None])[0]
    tiled = enlarge(net, image, tile=8 * f)
    assert tiled.dtype == np.uint8 and tiled.shape == whole.shape and np.ptp(whole) > 50
    assert np.abs(tiled - whole.clip(0, 255)).max() < 0.51
    changed = image.copy()
    changed[middle, middle] = 255 - changed[middle, middle]
    rows, columns, _ = np.nonzero(net.forward(changed[None])[0] - whole)
    for places in (rows, columns):
        assert places.min() >= f * (middle - REACH) and places.max() < f * (middle + REACH + 1)
        assert np.ptp(places) > 8 * f


def test_kinds_of_images_and_devices_agree(xp, here):
    net, about = load_superres("w.h5", xp)
    assert about["loss"] == "pixel" and net.factor == 4
    image = picture(20, 30)
    images.save("a.png", image)
    expected = random_net().forward(image[None].astype(np.float32))[0].clip(0, 255)
    for given in (image, asarray(image.astype(np.float64), xp), Image.fromarray(image), "a.png"):
        result = enlarge(net, given, tile=32)
        assert isinstance(result, np.ndarray) and np.abs(result - expected).max() < 0.51


def test_any_size_but_other_shapes_are_refused():
    for size in [(1, 1), (1, 40), (37, 2)]:
        assert enlarge(random_net(), picture(*size), tile=16).shape == (4 * size[0], 4 * size[1], 3)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4)), np.zeros((0, 4, 3))):
        with pytest.raises(ValueError, match=re.escape(str(wrong.shape))):
            enlarge(random_net(), wrong)
    with pytest.raises(ValueError, match="tile is 0"):
        enlarge(random_net(), picture(4, 4), tile=0)


def test_matched_histogram_is_the_images():
    """Brightness and spread of each channel are the small image's, whatever the net does to them."""
    scale, offset = np.float32([0.3, 0.5, 0.4]), np.float32([20, 90, 5])
    net, image = random_net(), photos(24, 30, 3, dtype=np.float32) * scale + offset
    net.parameters()["out.b"][...] = [0.4, -0.3, 0.1]
    plain, matched = enlarge(net, image), enlarge(net, image, match_histogram=True)
    for c in range(3):
        assert abs(plain[:, :, c].mean() - image[:, :, c].mean()) > 5
        assert abs(matched[:, :, c].mean() - image[:, :, c].mean()) < 0.5
        assert abs(matched[:, :, c].std() - image[:, :, c].std()) < 0.5


def test_wrong_weights_are_refused(tmp_path):
    for kind, settings, message in (
        ("superres", SETTINGS | {"factor": 3}, "does not make a superres net: factor is 3"),
        ("style", SETTINGS, "holds style weights, not superres weights"),
    ):
        weights.save(tmp_path / "a.h5", random_net().parameters(), {"kind": kind, "settings": settings})
        with pytest.raises(UserError, match=message):
            load_superres(tmp_path / "a.h5")


@pytest.mark.parametrize("name", weights.shipped("superres"))
def test_shipped_nets_beat_bicubic_or_look_sharper(name):
    """On a photo that ships: pixel nets by their error, feature nets by how much fine detail there is."""
    net, about = load_superres(name)
    f = net.factor
    photo = cut(images.load(PHOTOS / "chelsea.jpg")[:160, :176], f)
    low = shrink(photo, f, about["degradation"])
    bicubic, result = images.resize(low, *photo.shape[:2]), enlarge(net, low).astype(np.float32)
    inner = (slice(f, -f), slice(f, -f))
    error, better = (float(((image - photo)[inner] ** 2).mean()) for image in (bicubic, result))
    detail, sharper = (float((np.diff(image[inner], axis=1) ** 2).mean()) for image in (bicubic, result))
    assert name == f"superres_x{f}_{about['loss']}"
    if about["loss"] == "pixel":
        assert better < 0.97 * error
    else:
        assert detail < 0.9 * sharper and better < 2 * error


def test_images_and_folders(here, command):
    images.save("a.png", picture(20, 31))
    assert command("a.png", "-o", "b.png") == (0, "wrote b.png, 124x80\n", "")
    assert np.array_equal(read("b.png"), enlarge(random_net(), picture(20, 31)))
    command("a.png", "-o", "c.png", "--tile", "20")
    assert np.abs(read("c.png").astype(int) - read("b.png")).max() <= 1
    images.save("photos/a.png", picture(6, 5))
    images.save("photos/sub/b.jpg", picture(8, 9))
    status, out, err = command("photos", "-o", "out")
    assert (status, err) == (0, "") and "2 images enlarged; results are in out" in out
    assert read("out/a.png").shape == (24, 20, 3) and read("out/sub/b.jpg").shape == (32, 36, 3)


@pytest.mark.parametrize("mode", ["L", "I;16", "LA", "RGBA"])
def test_grey_stays_grey_transparency_is_enlarged_and_a_photo_is_turned(here, command, mode):
    shown, alpha = picture(9, 8), np.zeros((9, 8), np.uint8)
    alpha[:, 4:] = 255
    shown = shown if mode == "RGBA" else shown[:, :, :1].repeat(3, axis=2)
    first = shown[:, :, 0]
    pixels = {"L": first, "I;16": first.astype(np.uint16) * 257}
    pixels |= {"LA": np.dstack([first, alpha]), "RGBA": np.dstack([shown, alpha])}
    turned = np.rot90(pixels[mode]) if mode != "I;16" else pixels[mode]  # Pillow does not turn 16 bits
    Image.fromarray(turned).save("a.png", exif=exif(1 if mode == "I;16" else 6))
    command("a.png", "-o", "b.png")
    command("a.png", "-o", "b.jpg")
    expected, result = enlarge(random_net(), shown), read("b.png")
    expected = expected if mode == "RGBA" else (expected @ images.LUMA)[:, :, None]
    assert result.shape == ((36, 32, 4) if "A" in mode else (36, 32))
    assert np.abs(np.atleast_3d(result)[:, :, :3] - expected).max() <= 1.01
    if "A" in mode:
        assert (result[:, :12, 3] == 0).all() and (result[:, 20:, 3] == 255).all()
        assert (read("b.jpg")[2:-2, 2:10] > 240).all()  # JPEG has no transparency: white


def test_weights_by_factor_and_loss(here, command, monkeypatch):
    """Results of feature nets get the histogram of the image, those of pixel nets do not."""
    images.save("a.png", picture(12, 10))
    for loss, seed in (("feature", 5), ("pixel", 6)):
        write_net(f"superres_x4_{loss}.h5", random_net(seed), loss)
    monkeypatch.setattr(weights, "SHIPPED", here)
    for options, seed, match in (
        ((), 5, True),
        (("--loss", "pixel", "--factor", "4"), 6, False),
        (("--match-histogram", "no"), 5, False),
        (("--loss", "pixel", "--match-histogram", "yes"), 6, True),
    ):
        assert command("a.png", "-o", "b.png", *options, weights=None)[0] == 0
        expected = enlarge(random_net(seed), picture(12, 10), match_histogram=match)
        assert np.array_equal(read("b.png"), expected)
    status, _, err = command("a.png", "-o", "b.png", "--factor", "8", weights=None)
    assert status == 2 and "called 'superres_x8_feature'" in err and "superres_x4_pixel" in err
