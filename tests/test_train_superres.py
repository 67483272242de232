"""The real command on real photos, as small as it gets."""

import numpy as np
import pytest
from runs import losses, net_of, same, same_run

from tinynst import losses as loss_functions
from tinynst import ops
from tinynst.data import images, weights
from tinynst.data.degradation import shrink
from tinynst.errors import UserError
from tinynst.networks import VGG16, super_resolution_net
from tinynst.samples import PHOTOS
from tinynst.train_superres import main
from tinynst.training import loop, superres
from tinynst.training.style import StyleSettings, train
from tinynst.training.superres import SuperResolutionTask, SuperResSettings, train_superres

SMALL = {"iterations": 4, "every": 2, "batch": 2, "image_size": 32, "width": 2, "norm": "none"}
SMALL |= {"residual": True, "factor": 2}
PIXEL = SMALL | {"loss": "pixel"}


@pytest.fixture(scope="module", autouse=True)
def fast():
    """Small test photos, and no plots, which take most of the time of these tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(superres, "SHEET_SIDE", 24)
        monkeypatch.setattr(loop, "_plot", lambda path, losses, title: None)
        yield


@pytest.fixture(scope="module")
def pixel(tmp_path_factory):
    """The folder of a run with the pixel loss."""
    return train_superres(SuperResSettings(**PIXEL, out=tmp_path_factory.mktemp("runs") / "pixel")).out


def task(**settings):
    s = SuperResSettings(**settings, out="run")
    s.complete()
    s.check()
    return SuperResolutionTask(s, np)


def test_the_command_writes_weights_that_say_where_they_come_from(pixel, tmp_path, capsys):
    out = tmp_path / "run"
    words = "--iterations 4 --every 2 --batch 2 --image-size 32 --width 2 --norm none --residual --factor 2"
    assert main([*words.split(), "--loss", "pixel", "--out", str(out)]) == 0
    assert same_run(out, pixel) and str(out / "samples" / "000004.png") in capsys.readouterr().out
    arrays, about = weights.load(out / "weights.h5")
    assert about["kind"] == "superres" and about["factor"] == 2 and about["loss"] == "pixel"
    assert about["degradation"] == "paper" and about["iterations"] == 4 and about["photos"] == 80
    assert about["settings"]["width"] == 2 and about["settings"]["residual"] is True
    assert str(tmp_path) not in str(about)  # made to be shared
    assert set(about["losses"]) == {"feature", "pixel", "tv", "total"}
    assert same(arrays, net_of(out))
    page = images.load(out / "samples/000004.png")
    assert page.shape[1] == 4 * 24 + 5 * 8  # low, bicubic, net, truth


def test_the_pair_is_the_standard_tests_and_in_one_range():
    t = task(**PIXEL, degradation="bicubic")
    with t.batches() as batches:
        high = next(batches)
    seen = []
    t.net.forward = lambda low, training: seen.append(low) or np.zeros_like(high)
    t.net.backward = lambda dy, need: None
    terms = t.step(((0, 0), high))
    (low,) = seen
    assert high.shape == (2, 32, 32, 3) and low.shape == (2, 16, 16, 3) and low.dtype == np.float32
    assert np.array_equal(low, np.stack([shrink(photo, 2, "bicubic") for photo in high]))
    assert abs(low.mean() - high.mean()) < 2 and high.max() > 100
    assert terms["total"] == terms["pixel"] == pytest.approx(float((high**2).mean()), rel=1e-5)


@pytest.mark.parametrize("grid", [0, 5])
def test_the_objective_is_the_weighted_sum_and_its_gradient(grid):
    layers = ["relu1_2", "relu2_2"]
    t = task(**SMALL, feature_layers=layers, pixel_weight=3, tv_weight=0.5, grid_weight=grid)
    rng = np.random.default_rng(0)
    y, high = rng.uniform(0, 255, (2, 2, 16, 12, 3))
    terms, dy = t.objective(y, high, (3, 1))
    vgg = VGG16.load()
    f, wanted = (vgg.forward(image[:, 3:, 1:], tuple(layers)) for image in (y, high))
    expected = {"feature": sum(loss_functions.feature_loss(f[name], wanted[name])[0] for name in f)}
    expected |= {"pixel": 3 * float(((y - high) ** 2).mean())}
    expected |= {"tv": 0.5 * loss_functions.tv_loss(y[:, 3:, 1:])[0]}
    if grid:
        expected["grid"] = loss_functions.grid_loss(y, high, grid, 2)[0]
    assert terms == pytest.approx(expected | {"total": sum(expected.values())}, rel=1e-6)
    direction = rng.standard_normal(y.shape)
    more, less = (t.objective(y + step * direction, high, (3, 1))[0]["total"] for step in (1e-4, -1e-4))
    assert float((dy * direction).sum()) == pytest.approx((more - less) / 2e-4, rel=1e-4)


def test_vgg_looks_at_other_places_in_each_step_and_the_same_after_a_resume():
    t = SuperResolutionTask.__new__(SuperResolutionTask)
    t.settings = SuperResSettings()
    seen = [tuple(t.choose(k)) for k in range(12)]
    assert len(set(seen)) > 6 and np.max(seen) < 8 and np.min(seen) == 0
    assert seen == [tuple(t.choose(k)) for k in range(12)]


def test_it_learns_to_beat_bicubic(tmp_path):
    """A few dozen steps: less error than the bicubic enlargement that it starts from."""
    settings = PIXEL | {"width": 16, "image_size": 48, "batch": 4, "iterations": 40, "every": 40}
    settings |= {"degradation": "bicubic", "lr": 2e-3, "lr_rise": 10}
    run = train_superres(SuperResSettings(**settings, out=tmp_path / "run"))
    net = super_resolution_net(2, "none", residual=True, width=16)
    net.load(weights.load(run.out / "weights.h5")[0])
    photo = images.load(PHOTOS / "chelsea.jpg")[:96, :128]
    low = shrink(photo, 2).astype(np.float32)[None]
    error = float(((net.forward(low)[0] - photo) ** 2).mean())
    assert error < 0.98 * float(((ops.upsample_bicubic(low, 2)[0][0] - photo) ** 2).mean())


def test_feature_loss_goes_downhill_from_the_papers_net(tmp_path):
    settings = {"image_size": 32, "batch": 2, "width": 4, "lr": 1e-2, "iterations": 30, "every": 30}
    run = train_superres(SuperResSettings(**settings, out=tmp_path / "run"))
    recorded = weights.read_about(run.out / "weights.h5")["settings"]
    expected = {"factor": 4, "loss": "feature", "norm": "batch", "upsample": "transpose", "residual": False}
    expected |= {"degradation": "paper", "feature_layers": ["relu2_2"], "pixel_weight": 0}
    assert {name: recorded[name] for name in expected} == expected
    totals = [row["total"] for row in run.losses]
    assert np.mean(totals[-5:]) < 0.8 * np.mean(totals[:5])


def test_resumed_is_bit_for_bit_the_same_and_keeps_its_settings(tmp_path):
    settings = PIXEL | {"norm": "batch"}
    out = train_superres(SuperResSettings(**settings | {"iterations": 2}, out=tmp_path / "run")).out
    with pytest.raises(UserError, match=r"--degradation cannot change on --resume: .* started with paper"):
        train_superres(SuperResSettings(resume=True, out=out, degradation="bicubic"))
    with pytest.raises(UserError, match=r"was not started by tinynst train$"):
        train(StyleSettings(resume=True, out=out))
    train_superres(SuperResSettings(resume=True, out=out, iterations=4))
    train_superres(SuperResSettings(**settings, out=tmp_path / "whole"))
    assert same_run(out, tmp_path / "whole")


def test_init_starts_a_feature_net_from_a_pixel_net(pixel, tmp_path):
    settings = SMALL | {"loss": "feature", "init": pixel / "weights.h5", "lr": 0, "iterations": 1}
    run = train_superres(SuperResSettings(**settings, out=tmp_path / "feature"))
    assert same(net_of(run.out), net_of(pixel))  # a rate of zero moves nothing
    for change, message in (
        ({"width": 3}, "does not fit --factor, --norm, --upsample and --width"),
        ({"init": "starry_night_single"}, "holds style weights, not superres weights"),
    ):
        with pytest.raises(UserError, match=message):
            train_superres(SuperResSettings(**settings | change, out=tmp_path / "other"))


def test_a_whole_run_on_the_stand_in_for_cupy_agrees_with_numpy(strict, tmp_path):
    settings = SMALL | {"pixel_weight": 1, "iterations": 2}
    for device in ("cpu", "cuda"):
        train_superres(SuperResSettings(**settings, device=device, out=tmp_path / device))
    cpu, cuda = net_of(tmp_path / "cpu"), net_of(tmp_path / "cuda")
    assert losses(tmp_path / "cpu")[0] == pytest.approx(losses(tmp_path / "cuda")[0], rel=1e-4)
    for name in cpu:  # Adam's first steps are lr in size: near zero, rounding decides the direction
        assert np.mean(np.abs(cpu[name] - cuda[name]) > 1e-4) < 0.05, name
