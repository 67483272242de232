"""Pictures that are optimised themselves: the real VGG-16 on small pictures, the command from end to end."""

import numpy as np
import pytest
from runs import kill_and_resume, losses, same_run, without_plots  # noqa: F401 (a fixture)
from scipy.optimize import minimize

from tinynst.data import checkpoint, images
from tinynst.errors import UserError
from tinynst.losses import StyleObjective
from tinynst.networks import VGG16
from tinynst.networks.vgg import STYLE_LAYERS
from tinynst.optimize import main
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools.optimize import OptimizeSettings, descend, noise, optimize

PHOTO, STYLE, CAFE = (
    str(path) for path in (PHOTOS / "chelsea.jpg", STYLES / "starry_night.jpg", STYLES / "night_cafe.jpg")
)
LAYERS = ["relu1_2", "relu2_2"]
GATYS = {"content": PHOTO, "style": [STYLE], "size": 32, "iterations": 6, "every": 3}
GATYS |= {"style_layers": LAYERS, "content_layers": ["relu2_2"]}
COMMAND = f"gatys --content {PHOTO} --style {STYLE} --size 32 --iterations 6 --every 3".split()
COMMAND += ["--style-layers", *LAYERS, "--content-layers", "relu2_2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the run that the settings above describe."""
    return optimize(OptimizeSettings(**GATYS, out=tmp_path_factory.mktemp("runs") / "whole")).out


def gatys(out, **settings):
    return optimize(OptimizeSettings(**GATYS | settings, out=out))


# --- what the optimiser reaches ---


@pytest.mark.parametrize("start", ["photo", "noise"])
def test_at_equal_evaluations_gatys_lowers_as_much_as_scipy(start):
    """The reference is SciPy's L-BFGS-B with as long a memory: at least 95 % of what it takes off."""
    evaluations = 20
    photo, style = images.load(PHOTO, 32)[:32, :32], dict.fromkeys(STYLE_LAYERS, 5.0)
    objective = StyleObjective(VGG16.load(), images.load(STYLE, 48)[None], {"relu3_3": 1.0}, style, 1e-6)
    targets = objective.targets(photo[None])
    first = photo if start == "photo" else noise(32, 32)
    totals = []

    def value(x):
        terms, dy = objective(x.reshape(1, 32, 32, 3).astype(np.float32), targets)
        totals.append(terms["total"])
        return terms["total"], dy.ravel().astype(np.float64)

    options = {"maxfun": evaluations, "maxiter": evaluations, "maxcor": 20}
    minimize(value, first.ravel().astype(np.float64), jac=True, method="L-BFGS-B", options=options)
    reference = min(totals[:evaluations])
    ours, optimizers = zip(*descend(objective, targets, first, evaluations), strict=True)
    optimizer = optimizers[-1]
    assert optimizer.evaluations == evaluations
    assert totals[0] - optimizer.value >= 0.95 * (totals[0] - reference)
    again = objective(optimizer.best(), targets)[0]["total"]
    assert again == pytest.approx(optimizer.value, rel=1e-5)  # the reported value is that of the picture
    assert ours[1]["total"] < 0.99 * ours[0]["total"]  # already one step from the start
    assert min(terms["total"] for terms in ours[:10]) < 0.5 * ours[0]["total"]


def test_a_shallow_layer_gives_the_photo_back(tmp_path):
    """relu2_2 knows nearly every pixel: more than 25 dB after 100 evaluations from noise."""
    out = tmp_path / "run"
    words = f"invert --image {PHOTO} --layer relu2_2 --size 32 --iterations 100 --every 200"
    assert main([*words.split(), "--out", str(out)]) == 0
    photo, result = images.load(PHOTO, 32), images.load(out / "result.png")
    assert 10 * np.log10(255**2 / np.mean((result - photo) ** 2)) > 25
    assert all(row["style"] == 0 for row in losses(out))


def test_texture_has_the_style_and_not_the_layout(tmp_path):
    """From noise the Gram matrices become the painting's; the pixels remain unlike it."""
    out = tmp_path / "run"
    words = f"texture --style {STYLE} --layers {' '.join(LAYERS)} --size 48 --iterations 40 --every 40"
    assert main([*words.split(), "--out", str(out)]) == 0
    rows = losses(out)
    assert min(row["style"] for row in rows) < 0.01 * rows[0]["style"]
    assert all(row["content"] == 0 for row in rows)
    result, painting = images.load(out / "result.png"), images.resize(images.load(STYLE), 48, 48)
    grey = [image.mean(axis=2).ravel() for image in (result, painting)]
    assert result.shape == (48, 48, 3) and abs(np.corrcoef(*grey)[0, 1]) < 0.3
    assert np.abs(result.mean(axis=(0, 1)) - painting.mean(axis=(0, 1))).max() < 25  # but its colours


# --- the command ---


def test_a_run_writes_the_picture_its_way_and_its_losses(whole, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*COMMAND, "--out", str(out)]) == 0
    assert str(out / "result.png") in capsys.readouterr().out
    assert same_run(out, whole)
    rows = losses(out)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert row["content"] + row["style"] + row["tv"] == pytest.approx(row["total"], rel=1e-6)
    assert rows[0]["content"] == 0  # it starts from the photo
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["000003.png", "000006.png"]
    height, width = images.load(PHOTO, 32).shape[:2]
    sheet = images.load(out / "sheet.png")
    assert images.load(out / "result.png").shape == (height, width, 3)
    assert sheet.shape[0] > 2 * height and sheet.shape[1] > 2 * width


def best(out):
    """The lowest picture, unclipped, from the checkpoint."""
    arrays, state = checkpoint.load(out / "checkpoint.h5")
    length = state["optimizer"]["lowest"]
    x = arrays["line"]["x"] + np.float32(length) * arrays["line"]["d"] if length else arrays["line"]["x"]
    assert state["optimizer"]["value"] == min(row["total"] for row in losses(out))
    return x.reshape(arrays["picture"]["picture"].shape)[0]


def test_the_result_is_the_lowest_picture_that_was_seen(whole, tmp_path):
    assert np.array_equal(images.load(whole / "result.png"), images.to_uint8(best(whole)))
    kept = gatys(tmp_path / "color", preserve_color=True).out
    expected = images.to_uint8(images.preserve_color(best(kept), images.load(PHOTO, 32)))
    assert np.array_equal(images.load(kept / "result.png"), expected)
    assert not np.array_equal(expected, images.load(whole / "result.png"))


def test_killed_and_resumed_with_the_same_numbers(tmp_path):
    """In the smaller of two scales, and in the larger."""
    gatys(tmp_path / "whole", size=64, scales=2, every=4)
    options = [*COMMAND[1:], "--size", "64", "--scales", "2", "--every", "4"]
    kill_and_resume(["tinynst.optimize", "gatys"], options, tmp_path / "run", (5, 10))
    assert same_run(tmp_path / "run", tmp_path / "whole")
    assert (tmp_path / "run/result.png").read_bytes() == (tmp_path / "whole/result.png").read_bytes()
    height, width = images.load(PHOTO, 64).shape[:2]
    assert images.load(tmp_path / "run/samples/000004.png").shape == (height // 2, round(width / 2), 3)
    assert images.load(tmp_path / "run/result.png").shape == (height, width, 3)
    rows, single = losses(tmp_path / "run"), gatys(tmp_path / "single", size=64, iterations=1)
    assert len(rows) == 12 and rows[6]["content"] > 0  # the second scale starts with what the first made
    assert rows[6]["total"] < single.losses[0]["total"]  # and that is a better start


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_resume_needs_no_file_and_refuses_other_settings(optimizer, whole, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "run"
    images.save(photo, images.load(PHOTO, 32))
    if optimizer == "adam":
        whole = gatys(tmp_path / "whole", optimizer="adam").out
    gatys(out, content=photo, optimizer=optimizer, iterations=3)
    photo.unlink()
    with pytest.raises(UserError, match=r"--tv-weight cannot change on --resume: .* started with 1e-06"):
        main(["gatys", "--resume", "--out", str(out), "--tv-weight", "1"])
    with pytest.raises(UserError, match="was not started by tinynst optimize texture"):
        main(["texture", "--resume", "--out", str(out)])
    with pytest.raises(UserError, match="holds a run already"):
        gatys(out)
    assert main(["gatys", "--resume", "--iterations", "6", "--out", str(out)]) == 0
    assert losses(out) == losses(whole)
    assert (out / "result.png").read_bytes() == (whole / "result.png").read_bytes()


def test_mixed_paintings_have_the_gradient_of_the_weighted_losses():
    """One target, the weighted mean of the Gram matrices: the same gradient as the sum, and a value lower by
    a constant."""
    vgg, layers = VGG16.load(), {"relu1_2": 3.0, "relu2_1": 2.0}
    paintings = [images.load(STYLE, 40)[None], images.load(CAFE, 36)[None]]
    mixed = StyleObjective(vgg, paintings, {}, layers, 0.0, [1, 3])
    single = [StyleObjective(vgg, painting, {}, layers, 0.0) for painting in paintings]
    gaps = []
    for y in (images.load(PHOTO, 33)[None], noise(33, 40)[None]):
        terms, dy = mixed(y, {})
        (first, dfirst), (second, dsecond) = (objective(y, {}) for objective in single)
        assert np.abs(dy - (0.25 * dfirst + 0.75 * dsecond)).max() <= 1e-4 * np.abs(dy).max()
        gaps.append(0.25 * first["total"] + 0.75 * second["total"] - terms["total"])
    assert gaps[0] > 0 and gaps[1] == pytest.approx(gaps[0], rel=1e-3)


def test_mix_style_scale_and_start(tmp_path):
    """What the first evaluation says of each."""
    flower = str(PHOTOS / "flower.jpg")
    runs = {
        "plain": {},
        "alone": {"style": CAFE},
        "mixed": {"style": [STYLE, CAFE], "mix": [0, 2]},  # all the weight on one painting
        "both": {"style": [STYLE, CAFE]},
        "large": {"style_scale": 2},
        "file": {"start": flower},
        "noise": {"start": "noise"},
    }
    first = {name: gatys(tmp_path / name, **runs[name], iterations=1).losses[0] for name in runs}
    assert first["mixed"]["style"] == pytest.approx(first["alone"]["style"], rel=1e-5)
    assert abs(first["both"]["style"] - first["alone"]["style"]) > 0.01 * first["alone"]["style"]
    assert first["large"]["style"] != first["plain"]["style"] and first["large"]["content"] == 0
    assert first["file"]["content"] > 0 and first["noise"]["content"] > 0
    start = checkpoint.load(tmp_path / "file" / "checkpoint.h5")[0]["inputs"]["start"]
    assert np.array_equal(start, images.resize(images.load(flower), *images.load(PHOTO, 32).shape[:2]))


def test_on_the_stand_in_for_cupy_it_agrees_with_numpy(whole, strict, tmp_path):
    run = gatys(tmp_path / "cuda", device="cuda")
    expected = [row["total"] for row in losses(whole)]
    np.testing.assert_allclose([row["total"] for row in run.losses], expected, rtol=1e-3)
    difference = images.load(whole / "result.png") - images.load(run.out / "result.png")
    assert np.abs(difference).max() <= 2
    resumed = optimize(OptimizeSettings(resume=True, iterations=8, device="cpu", out=run.out))
    assert len(resumed.losses) == 8  # started on one device, continued on the other
