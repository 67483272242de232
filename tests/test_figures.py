"""The paper's figures, small: what is on the sheets is what was measured."""

import numpy as np
import pytest

from tinynst.data import images
from tinynst.errors import UserError
from tinynst.networks import VGG16
from tinynst.networks.vgg import STYLE_LAYERS
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools import evaluate_style, figures
from tinynst.tools.metrics import psnr
from tinynst.tools.optimize import noise

SMALL = ["--size", "32", "--evaluations", "2"]


@pytest.fixture(scope="module")
def vgg():
    return VGG16.load()


@pytest.fixture(scope="module")
def photo():
    return evaluate_style.middle(images.load(PHOTOS / "chelsea.jpg", 32), 32)


def test_inversion_from_a_shallow_layer_is_nearer_to_the_photo(vgg, photo):
    [row], [captions] = figures.inversion(vgg, photo, 25)
    assert len(row) == len(captions) == 1 + len(figures.INVERTED)
    shown = [images.to_uint8(picture).astype(np.float32) for picture in row[1:]]
    distance = {layer: psnr(picture, photo) for layer, picture in zip(figures.INVERTED, shown, strict=True)}
    assert distance["relu2_2"] > 17 and distance["relu2_2"] > max(
        value for name, value in distance.items() if name != "relu2_2"
    )
    assert captions[1] == f"relu2_2: {distance['relu2_2']:.1f} dB"
    assert np.array_equal(row[0], photo)


def test_style_reconstruction_lowers_the_loss_at_its_own_layers(vgg):
    """Each picture has the Gram matrix of its layer: nearer to the painting's than noise is."""
    painting = images.load(STYLES / "starry_night.jpg", 64, side="long")
    [row], [captions] = figures.style_reconstruction(vgg, painting, 32, 12)
    assert captions == ["the painting", *STYLE_LAYERS, "all four"]
    assert row[0].shape[1] == 32 and all(picture.shape == (32, 32, 3) for picture in row[1:])
    for layers, picture in zip([*((layer,) for layer in STYLE_LAYERS), STYLE_LAYERS], row[1:], strict=True):
        objective = figures.StyleObjective(vgg, painting[None], {}, dict.fromkeys(layers, 5.0), 0.0)
        begin, end = (objective(y[None], {})[0]["style"] for y in (noise(32, 32), picture))
        assert end < 0.6 * begin, layers  # the deepest, with the least to go on, is the slowest


def test_comparison_shows_the_values_of_its_pictures(photo):
    net, objective, _ = evaluate_style.net_and_objective("starry_night_single", np)
    rows, captions = figures.comparison(net, objective, [photo], 10)
    assert [len(row) for row in rows] == [4] and len(captions[0]) == 4
    targets = objective.targets(photo[None])
    totals = [objective(picture[None], targets)[0]["total"] for picture in rows[0]]
    for caption, total in zip(captions[0], totals, strict=True):
        told = float(caption.split(": ")[1].split(" ")[0].replace(",", ""))
        assert abs(told - total / 1000) <= 0.51 + 1e-4 * told, caption
    assert totals[3] < totals[2]  # after 10 evaluations, and after 5
    assert captions[0][2].startswith("L-BFGS, 5:") and captions[0][3].startswith("L-BFGS, 10:")


def test_the_command_writes_the_sheets(tmp_path, capsys):
    figures.main(
        [
            *SMALL,
            "--only",
            "5",
            "4",
            "--photos",
            str(PHOTOS / "coffee.jpg"),
            "--out",
            str(tmp_path / "figures"),
        ]
    )
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["figure4.jpg", "figure5.jpg"]
    assert images.load(tmp_path / "figures/figure4.jpg").shape[1] > 6 * 32
    assert str(tmp_path / "figures/figure5.jpg") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "8"], "--size is 8; it should be at least 32"),
        (["--evaluations", "0"], "--evaluations is 0"),
        (["--photos", "nowhere.jpg"], "nowhere.jpg"),
        (["--style", "no-such-style"], "no-such-style"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        figures.main([*SMALL, *options, "--out", str(tmp_path / "figures")])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "figures").exists()
