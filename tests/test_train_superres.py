import argparse
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tinynst import device, losses, ops
from tinynst.data import checkpoint, images, weights
from tinynst.data.degradation import shrink
from tinynst.errors import UserError
from tinynst.networks import VGG16, super_resolution_net
from tinynst.samples import PHOTOS
from tinynst.training import style as train
from tinynst.training import superres as train_superres
from tinynst.training.superres import SuperResolutionTask

# The real command on real photos, as small as it gets
SMALL = [
    "--iterations",
    "6",
    "--every",
    "2",
    "--batch",
    "2",
    "--image-size",
    "32",
    "--width",
    "2",
    "--norm",
    "none",
]
SMALL += ["--residual", "--factor", "2"]
PIXEL = [*SMALL, "--loss", "pixel"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A folder of our own to work in, and small test photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_superres, "SHEET_SIDE", 24)


def net_of(out):
    return checkpoint.load(out / "checkpoint.h5")[0]["net"]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def task(*options):
    parser = argparse.ArgumentParser()
    train_superres.SuperResSettings.add_options(parser)
    settings = train_superres.SuperResSettings(**vars(parser.parse_args([*options, "--out", "run"])))
    settings.complete()
    settings.check()
    return SuperResolutionTask(settings, np)


def test_a_run_writes_weights_that_say_where_they_come_from(tmp_path, capsys):
    out = tmp_path / "run"
    assert train_superres.main([*PIXEL, "--degradation", "bicubic", "--out", str(out)]) == 0
    arrays, about = weights.load(out / "weights.h5")
    assert about["kind"] == "superres" and about["factor"] == 2 and about["loss"] == "pixel"
    assert about["degradation"] == "bicubic" and about["iterations"] == 6 and about["photos"] == 80
    assert about["settings"]["width"] == 2 and about["settings"]["residual"] is True
    assert str(tmp_path) not in str(about)  # made to be given away
    assert set(about["losses"]) == {"feature", "pixel", "tv", "total"}
    assert same(arrays, net_of(out))
    page = images.load(out / "samples/000006.png")
    assert page.shape[1] == 4 * 24 + 5 * 8  # low, bicubic, net, truth
    assert str(out / "samples" / "000006.png") in capsys.readouterr().out


def test_the_pair_is_the_standard_tests_and_in_one_range():
    t = task(*PIXEL, "--degradation", "bicubic")
    with t.batches(0) as batches:
        number, high = next(batches)
    seen = []
    t.net.forward = lambda low, training: seen.append(low) or np.zeros_like(high)
    t.net.backward = lambda dy, need: None
    terms = t.step((number, high))
    (low,) = seen
    assert high.shape == (2, 32, 32, 3) and low.shape == (2, 16, 16, 3) and low.dtype == np.float32
    assert np.array_equal(low, np.stack([shrink(photo, 2, "bicubic") for photo in high]))
    assert abs(low.mean() - high.mean()) < 2 and high.max() > 100
    assert terms["total"] == terms["pixel"] == pytest.approx(float((high**2).mean()), rel=1e-5)


@pytest.mark.parametrize("grid", [0, 5])
def test_the_objective_is_the_weighted_sum_and_its_gradient(grid):
    weights = ["--pixel-weight", "3", "--tv-weight", "0.5", "--grid-weight", str(grid)]
    t = task(*SMALL, "--feature-layers", "relu1_2", "relu2_2", *weights)
    rng = np.random.default_rng(0)
    y, high = rng.uniform(0, 255, (2, 2, 16, 12, 3))
    terms, dy = t.objective(y, high, (3, 1))
    vgg = VGG16.load()
    f, wanted = (vgg.forward(image[:, 3:, 1:], ("relu1_2", "relu2_2")) for image in (y, high))
    expected = {"feature": sum(losses.feature_loss(f[name], wanted[name])[0] for name in f)}
    expected |= {"pixel": 3 * float(((y - high) ** 2).mean()), "tv": 0.5 * losses.tv_loss(y[:, 3:, 1:])[0]}
    if grid:
        expected["grid"] = losses.grid_loss(y, high, grid, 2)[0]
    assert terms == pytest.approx(expected | {"total": sum(expected.values())}, rel=1e-6)
    direction = rng.standard_normal(y.shape)
    more, less = (t.objective(y + step * direction, high, (3, 1))[0]["total"] for step in (1e-4, -1e-4))
    assert float((dy * direction).sum()) == pytest.approx((more - less) / 2e-4, rel=1e-4)


def test_vgg_looks_at_other_places_in_each_step_and_the_same_after_a_resume():
    t, seen = task(*SMALL), []
    t.objective = lambda y, high, corner: (seen.append(tuple(corner)), ({"total": 0.0}, np.zeros_like(y)))[1]
    for start, count in ((0, 12), (5, 7)):
        with t.batches(start) as batches:
            for _ in range(count):
                t.step(next(batches))
    assert len(set(seen[:12])) > 6 and np.max(seen) < 8 and np.min(seen) == 0
    assert seen[12:] == seen[5:12]


def test_it_learns_to_beat_bicubic():
    """Full width, a few dozen steps: less error than the bicubic enlargement that it starts from."""
    options = [
        "--factor",
        "2",
        "--loss",
        "pixel",
        "--norm",
        "none",
        "--residual",
        "--image-size",
        "48",
        "--width",
        "16",
    ]
    options += [
        "--degradation",
        "bicubic",
        "--iterations",
        "60",
        "--lr",
        "2e-3",
        "--lr-rise",
        "10",
        "--every",
        "60",
    ]
    train_superres.main([*options, "--out", "run"])
    net = super_resolution_net(2, "none", residual=True, width=16)
    net.load(weights.load("run/weights.h5")[0])
    photo = images.load(PHOTOS / "chelsea.jpg")[:96, :128]
    low = shrink(photo, 2).astype(np.float32)[None]
    error = float(((net.forward(low)[0] - photo) ** 2).mean())
    assert error < 0.98 * float(((ops.upsample_bicubic(low, 2)[0][0] - photo) ** 2).mean())


def test_feature_loss_goes_downhill_from_the_papers_net(tmp_path):
    options = [
        "--factor",
        "4",
        "--loss",
        "feature",
        "--image-size",
        "32",
        "--batch",
        "2",
        "--width",
        "4",
        "--lr",
        "1e-2",
    ]
    train_superres.main([*options, "--iterations", "30", "--every", "30", "--out", "run"])
    _, about = weights.load("run/weights.h5")
    names = ("norm", "upsample", "residual", "degradation", "feature_layers", "pixel_weight")
    assert [about["settings"][name] for name in names] == [
        "batch",
        "transpose",
        False,
        "paper",
        ["relu2_2"],
        0,
    ]
    totals = [float(row.split(",")[-1]) for row in (tmp_path / "run/losses.csv").read_text().splitlines()[1:]]
    assert np.mean(totals[-5:]) < 0.8 * np.mean(totals[:5])


def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path):
    options = [*PIXEL, "--norm", "batch", "--iterations", "40"]
    train_superres.main([*options, "--out", str(tmp_path / "whole")])
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tinynst.train_superres", "--out", str(out)]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not (out / "checkpoint.h5").exists():
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    assert checkpoint.load(out / "checkpoint.h5")[1]["iteration"] < 40
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert same(net_of(out), net_of(tmp_path / "whole"))
    assert (out / "losses.csv").read_bytes() == (tmp_path / "whole/losses.csv").read_bytes()


def test_resume_keeps_the_settings_and_knows_whose_run_it_is(tmp_path):
    out = str(tmp_path / "run")
    train_superres.main([*PIXEL, "--out", out])
    with pytest.raises(
        UserError, match=r"--degradation cannot change on --resume: the run was started with paper"
    ):
        train_superres.main(["--resume", "--out", out, "--degradation", "bicubic"])
    with pytest.raises(UserError, match="was not started by tinynst train: use the command that started it"):
        train.main(["--resume", "--out", out])
    train_superres.main(["--resume", "--out", out, "--iterations", "8"])
    assert checkpoint.load(tmp_path / "run/checkpoint.h5")[1]["iteration"] == 8


def test_init_starts_a_feature_net_from_a_pixel_net(tmp_path):
    train_superres.main([*PIXEL, "--out", "pixel"])
    options = [*SMALL, "--loss", "feature", "--init", "pixel/weights.h5", "--lr", "0", "--iterations", "1"]
    train_superres.main([*options, "--out", "feature"])
    assert same(net_of(tmp_path / "feature"), net_of(tmp_path / "pixel"))  # a rate of zero moves nothing
    with pytest.raises(UserError, match="does not fit --factor, --norm, --upsample and --width"):
        train_superres.main([*options, "--width", "3", "--out", "other"])
    with pytest.raises(UserError, match="holds style weights, not superres weights"):
        train_superres.main([*options, "--init", "starry_night_single", "--out", "other"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--content", "nowhere"], "nowhere"),
        (
            ["--factor", "8", "--image-size", "100"],
            "--image-size is 100; it should be a multiple of --factor 8",
        ),
        (["--image-size", "16"], "--image-size is 16; it should be at least 32"),
        (["--feature-layers", "relu9_9"], "no layer 'relu9_9'; choose from relu1_1"),
        (["--feature-layers", "relu1_1", "relu1_1"], "names a layer twice"),
        (["--loss", "pixel", "--feature-layers", "relu1_1"], "--feature-layers belongs to --loss feature"),
        (["--loss", "pixel", "--pixel-weight", "2"], "--pixel-weight belongs to --loss feature"),
        (["--loss", "pixel", "--grid-weight", "2"], "--grid-weight belongs to --loss feature"),
        (["--pixel-weight", "-1"], "--pixel-weight is -1;"),
        (["--grid-weight", "inf"], "--grid-weight is inf"),
        (["--tv-weight", "nan"], "--tv-weight is nan"),
        (["--iterations", "0"], "--iterations is 0"),
        (["--resume"], "--resume needs --out"),
        (["--init", "no-such-net"], "no-such-net"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        train_superres.main(options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_whole_run_on_the_stand_in_for_cupy_agrees_with_numpy(strict, tmp_path):
    options = [*SMALL, "--loss", "feature", "--pixel-weight", "1", "--iterations", "2", "--out"]
    train_superres.main([*options, str(tmp_path / "cpu")])
    train_superres.main([*options, str(tmp_path / "cuda"), "--device", "cuda"])
    cpu, cuda = net_of(tmp_path / "cpu"), net_of(tmp_path / "cuda")
    for name in (
        cpu
    ):  # Adam's first steps are lr in size whatever the gradient is: near zero it may take the other sign
        assert np.mean(np.abs(cpu[name] - cuda[name]) > 1e-4) < 0.05, name
    assert device.select("cuda") is strict
