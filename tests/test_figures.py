"""The paper's figures, small: what is on the sheets is what was measured."""

import numpy as np
import pytest

from tinynst.data import images
from tinynst.data.styles import style_objective
from tinynst.losses import StyleObjective
from tinynst.networks import VGG16
from tinynst.networks.vgg import STYLE_LAYERS
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools import evaluate_style, figures
from tinynst.tools.metrics import psnr
from tinynst.tools.optimize import noise
from tinynst.tools.stylize import load_style


@pytest.fixture(scope="module")
def vgg():
    return VGG16.load()


@pytest.fixture(scope="module")
def photo():
    return evaluate_style.load_middle(PHOTOS / "chelsea.jpg", 32)


def test_inversion_from_a_shallow_layer_is_nearest_to_the_photo(vgg, photo, monkeypatch):
    monkeypatch.setattr(figures, "INVERTED", {"relu2_2": 1e-6, "relu4_3": 1e-5})
    row, captions = figures.inversion(vgg, photo, 25)
    shown = [images.to_uint8(picture).astype(np.float32) for picture in row[1:]]
    distance = [psnr(picture, photo) for picture in shown]
    assert distance[0] > 17 and distance[0] == max(distance) and np.array_equal(row[0], photo)
    names = zip(figures.INVERTED, distance, strict=True)
    assert captions == ["the photo", *(f"{layer}: {value:.1f} dB" for layer, value in names)]


def test_style_reconstruction_lowers_the_loss_at_its_own_layers(vgg):
    painting = images.load(STYLES / "starry_night.jpg", 64, side="long")
    row, captions = figures.style_reconstruction(vgg, painting, 32, 12)
    assert captions == ["the painting", *STYLE_LAYERS, "all four"]
    assert row[0].shape[1] == 32 and all(picture.shape == (32, 32, 3) for picture in row[1:])
    for layers, picture in zip([*((layer,) for layer in STYLE_LAYERS), STYLE_LAYERS], row[1:], strict=True):
        objective = StyleObjective(vgg, painting[None], {}, dict.fromkeys(layers, 5.0), 0.0)
        begin, end = (objective.value(y[None], {}) for y in (noise(32, 32), picture))
        assert end < 0.6 * begin, layers


def test_comparison_shows_the_values_of_its_pictures(vgg, photo):
    [(goal, path)] = evaluate_style.find_goals("starry_night_single").values()
    objective = style_objective(vgg, images.load(path, goal["style_size"], side="long")[None], goal)
    row, captions = figures.comparison(load_style("starry_night_single"), objective, photo, 10)
    totals = [objective.value(picture[None], objective.targets(photo[None])) / 1000 for picture in row]
    assert len(row) == len(captions) == 4 and totals[3] < totals[2]
    for caption, total in zip(captions, totals, strict=True):
        assert float(caption.split(": ")[1].split(" ")[0].replace(",", "")) == pytest.approx(
            total, 1e-4, 0.51
        )
    assert [caption.split(":")[0] for caption in captions] == ["photo", "net", "L-BFGS, 5", "L-BFGS, 10"]


def run(out, *options):
    figures.main(["--size", "32", "--evaluations", "2", "--out", str(out), *options])


def test_the_command_writes_the_sheets(tmp_path, capsys):
    run(tmp_path / "figures", "--only", "5", "4", "--photos", str(PHOTOS / "coffee.jpg"))
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["figure4.jpg", "figure5.jpg"]
    assert images.load(tmp_path / "figures/figure4.jpg").shape[1] > 6 * 32
    assert str(tmp_path / "figures/figure5.jpg") in capsys.readouterr().out
