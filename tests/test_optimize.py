"""Pictures that are optimised themselves: the real VGG-16 on small pictures, the command from end to end."""

import csv
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.optimize import minimize

from tinynst.data import checkpoint, images
from tinynst.errors import UserError
from tinynst.losses import StyleObjective
from tinynst.networks import VGG16
from tinynst.networks.vgg import STYLE_LAYERS
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools import optimize

PHOTO, STYLE = str(PHOTOS / "chelsea.jpg"), str(STYLES / "starry_night.jpg")
LAYERS = ["relu1_2", "relu2_2"]
GATYS = ["gatys", "--content", PHOTO, "--style", STYLE, "--size", "32", "--iterations", "6", "--every", "3"]
GATYS += ["--style-layers", *LAYERS, "--content-layers", "relu2_2"]


def losses(out):
    with open(out / "losses.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def state(out):
    """Every number that a resumed run needs, by name, and the settings."""
    arrays, numbers = checkpoint.load(out / "checkpoint.h5")
    return {
        f"{group}.{name}": array for group, named in arrays.items() for name, array in named.items()
    }, numbers


def same(out, other):
    """The same numbers, bit for bit, in the checkpoint, the picture and the losses."""
    (a, numbers), (b, others) = state(out), state(other)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert numbers["optimizer"] == others["optimizer"]
    assert (out / "result.png").read_bytes() == (other / "result.png").read_bytes()
    assert (out / "losses.csv").read_bytes() == (other / "losses.csv").read_bytes()
    return True


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a - b) ** 2))


# --- what the optimiser reaches ---


@pytest.mark.parametrize("start", ["photo", "noise"])
def test_at_equal_evaluations_gatys_lowers_as_much_as_scipy(start):
    """The reference is SciPy's L-BFGS-B with as long a memory: at least 95 % of what it takes off, from
    either start."""
    evaluations = 30
    vgg = VGG16.load()
    photo = images.load(PHOTO, 40)[:40, :40]
    objective = StyleObjective(
        vgg, images.load(STYLE, 64)[None], {"relu3_3": 1.0}, dict.fromkeys(STYLE_LAYERS, 5.0), 1e-6
    )
    targets = objective.targets(photo[None])
    begin = photo if start == "photo" else optimize.noise(40, 40)
    totals = []

    def value(x):
        terms, dy = objective(x.reshape(1, 40, 40, 3).astype(np.float32), targets)
        totals.append(terms["total"])
        return terms["total"], dy.ravel().astype(np.float64)

    options = {"maxfun": evaluations, "maxiter": evaluations, "maxcor": 20}
    minimize(value, begin.ravel().astype(np.float64), jac=True, method="L-BFGS-B", options=options)
    reference = min(totals[:evaluations])
    *_, (_, optimizer) = optimize.descend(objective, targets, begin, evaluations)
    assert optimizer.evaluations == evaluations
    assert totals[0] - optimizer.value >= 0.95 * (totals[0] - reference)
    again = objective(optimizer.best(), targets)[0]["total"]
    assert (
        abs(again - optimizer.value) <= 1e-5 * again
    )  # the picture that is handed out has the value that is told


def test_the_first_evaluations_already_make_progress():
    """The second evaluation, one step from the photo, is lower by more than a percent; after ten a half is
    gone."""
    objective = StyleObjective(
        VGG16.load(), images.load(STYLE, 64)[None], {"relu2_2": 1.0}, dict.fromkeys(LAYERS, 5.0), 1e-6
    )
    photo = images.load(PHOTO, 40)
    totals = [
        terms["total"] for terms, _ in optimize.descend(objective, objective.targets(photo[None]), photo, 10)
    ]
    assert totals[1] < 0.99 * totals[0]
    assert min(totals) < 0.5 * totals[0]


def test_a_shallow_layer_gives_the_photo_back(tmp_path):
    """relu2_2 knows nearly every pixel: more than 25 dB after 100 evaluations from noise."""
    options = [
        "--image",
        PHOTO,
        "--layer",
        "relu2_2",
        "--size",
        "40",
        "--iterations",
        "100",
        "--every",
        "200",
    ]
    optimize.main(["invert", *options, "--out", str(tmp_path / "run")])
    photo = images.load(PHOTO, 40)
    assert psnr(optimize.noise(*photo.shape[:2]), photo) < 17
    assert psnr(images.load(tmp_path / "run/result.png"), photo) > 25
    assert all(row["style"] == 0 for row in losses(tmp_path / "run"))


def test_texture_has_the_style_and_not_the_layout(tmp_path):
    """From noise the Gram matrices become the painting's, while the pixels stay as unlike it as two pictures
    are."""
    out = tmp_path / "run"
    options = [
        "--style",
        STYLE,
        "--layers",
        *LAYERS,
        "--size",
        "48",
        "--iterations",
        "40",
        "--every",
        "40",
        "--out",
        str(out),
    ]
    optimize.main(["texture", *options])
    rows = losses(out)
    assert min(row["style"] for row in rows) < 0.01 * rows[0]["style"]
    assert all(row["content"] == 0 for row in rows)
    result = images.load(out / "result.png")
    assert result.shape == (48, 48, 3)
    painting = images.resize(images.load(STYLE), 48, 48)
    grey = [image.mean(axis=2).ravel() for image in (result, painting)]
    assert abs(np.corrcoef(*grey)[0, 1]) < 0.3
    assert np.abs(result.mean(axis=(0, 1)) - painting.mean(axis=(0, 1))).max() < 25  # but its colours


# --- the command ---


def test_a_run_writes_the_picture_its_way_and_its_losses(tmp_path, capsys):
    out = tmp_path / "run"
    assert optimize.main([*GATYS, "--out", str(out)]) == 0
    rows = losses(out)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert abs(row["content"] + row["style"] + row["tv"] - row["total"]) <= 1e-6 * row["total"]
    assert rows[0]["content"] == 0  # it begins with the photo
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["000003.png", "000006.png"]
    height, width = images.load(PHOTO, 32).shape[:2]
    result, sheet = images.load(out / "result.png"), images.load(out / "sheet.png")
    assert result.shape == (height, width, 3)
    assert sheet.shape[0] > 2 * height and sheet.shape[1] > 2 * width
    assert images.load(out / "losses.png").std() > 10
    best = state(out)[0]
    assert best["inputs.content"].shape == (height, width, 3)
    assert str(out / "result.png") in capsys.readouterr().out


def test_the_result_is_the_lowest_picture_that_was_seen(tmp_path):
    out = tmp_path / "run"
    optimize.main([*GATYS, "--out", str(out)])
    arrays, numbers = state(out)
    assert numbers["optimizer"]["value"] == min(row["total"] for row in losses(out))
    x = arrays["line.x"]
    if numbers["optimizer"]["lowest"]:
        x = x + np.float32(numbers["optimizer"]["lowest"]) * arrays["line.d"]
    expected = images.to_uint8(x.reshape(arrays["picture.picture"].shape)[0])
    assert np.array_equal(images.load(out / "result.png"), expected)


@pytest.mark.parametrize(("optimizer", "scales"), [("lbfgs", 2), ("adam", 1)])
def test_kill_at_a_random_moment_then_the_same_numbers(tmp_path, optimizer, scales):
    """SIGKILL, twice; at two scales also in the larger one."""
    size = [
        "--size",
        str(32 * scales),
        "--scales",
        str(scales),
        "--optimizer",
        optimizer,
        "--iterations",
        "9",
    ]
    options = [*GATYS, *size]
    optimize.main([*options, "--out", str(tmp_path / "whole")])
    out, chance = tmp_path / "killed", random.Random(f"{optimizer}{scales}")
    command = [sys.executable, "-m", "tinynst.optimize"]
    for kill in range(2):
        resume = (out / "checkpoint.h5").exists()
        arguments = ["gatys", "--resume"] if resume else options
        with subprocess.Popen(
            [*command, *arguments, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as run:
            target = 4 * scales * (kill + 1) - chance.randrange(3)
            while run.poll() is None and evaluations(out) < target:
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
            errors = run.stderr.read().decode()
        assert "Error" not in errors, errors
    assert evaluations(out) < 9 * scales
    subprocess.run([*command, "gatys", "--resume", "--out", str(out)], check=True, capture_output=True)
    assert same(out, tmp_path / "whole")


def evaluations(out):
    try:
        return max(0, (out / "losses.csv").read_text().count("\n") - 1)
    except FileNotFoundError:
        return 0


def test_resume_needs_no_file_and_refuses_other_settings(tmp_path):
    photo = tmp_path / "photo.png"
    images.save(photo, images.load(PHOTO, 32))
    options = [*GATYS, "--content", str(photo)]
    optimize.main([*options, "--out", str(tmp_path / "whole")])
    out = tmp_path / "run"
    optimize.main([*options, "--iterations", "3", "--out", str(out)])
    photo.unlink()
    for arguments, message in (
        (
            ["gatys", "--tv-weight", "1"],
            r"--tv-weight cannot change on --resume: the run was started with 1e-06",
        ),
        (["texture"], "was not started by tinynst optimize texture"),
    ):
        with pytest.raises(UserError, match=message):
            optimize.main([*arguments, "--out", str(out), "--resume"])
    with pytest.raises(UserError, match="holds a run already"):
        optimize.main([*options, "--out", str(out)])
    assert optimize.main(["gatys", "--resume", "--iterations", "6", "--out", str(out)]) == 0
    assert same(out, tmp_path / "whole")


def test_coarse_to_fine_begins_small_and_ends_at_full_size(tmp_path):
    out = tmp_path / "run"
    optimize.main([*GATYS, "--size", "64", "--scales", "2", "--out", str(out)])
    height, width = images.load(PHOTO, 64).shape[:2]
    assert images.load(out / "samples/000003.png").shape == (height // 2, round(width / 2), 3)
    assert images.load(out / "result.png").shape == (height, width, 3)
    rows = losses(out)
    assert len(rows) == 12
    assert rows[6]["content"] > 0  # the second scale begins with what the first one made, not with the photo
    single = tmp_path / "single"
    optimize.main([*GATYS, "--size", "64", "--iterations", "1", "--out", str(single)])
    assert rows[6]["total"] < losses(single)[0]["total"]  # and that is a better start


def test_mixed_paintings_have_the_gradient_of_the_weighted_losses():
    """One target, the weighted mean of the Gram matrices: the same gradient as the sum, and a value lower by
    a constant."""
    vgg, layers = VGG16.load(), {"relu1_2": 3.0, "relu2_1": 2.0}
    paintings = [images.load(STYLE, 40)[None], images.load(STYLES / "night_cafe.jpg", 36)[None]]
    pictures = [images.load(PHOTO, 33)[None], optimize.noise(33, 40)[None]]
    mixed = StyleObjective(vgg, paintings, {}, layers, 0.0, [1, 3])
    single = [StyleObjective(vgg, painting, {}, layers, 0.0) for painting in paintings]
    gaps = []
    for y in pictures:
        terms, dy = mixed(y, {})
        (a, da), (b, db) = (objective(y, {}) for objective in single)
        assert np.abs(dy - (0.25 * da + 0.75 * db)).max() <= 1e-4 * np.abs(dy).max()
        gaps.append(0.25 * a["total"] + 0.75 * b["total"] - terms["total"])
    assert gaps[0] > 0 and abs(gaps[0] - gaps[1]) <= 1e-3 * gaps[0]


def test_mix_reaches_the_objective(tmp_path):
    """All the weight on one painting is that painting alone."""
    cafe = str(STYLES / "night_cafe.jpg")
    for name, options in {
        "alone": ["--style", cafe],
        "mixed": ["--style", STYLE, cafe, "--mix", "0", "2"],
        "both": ["--style", STYLE, cafe],
    }.items():
        optimize.main([*GATYS, *options, "--iterations", "1", "--out", str(tmp_path / name)])
    alone, mixed, both = (losses(tmp_path / name)[0]["style"] for name in ("alone", "mixed", "both"))
    assert abs(mixed - alone) <= 1e-5 * alone and abs(both - alone) > 0.01 * alone


def test_style_scale_start_and_color(tmp_path):
    first = {}
    flower = str(PHOTOS / "flower.jpg")
    for name, options in {
        "plain": [],
        "large": ["--style-scale", "2"],
        "file": ["--start", flower],
        "noise": ["--start", "noise"],
    }.items():
        optimize.main([*GATYS, *options, "--iterations", "1", "--out", str(tmp_path / name)])
        first[name] = losses(tmp_path / name)[0]
    assert first["large"]["style"] != first["plain"]["style"] and first["large"]["content"] == 0
    assert first["file"]["content"] > 0 and first["noise"]["content"] > 0
    start = state(tmp_path / "file")[0]["inputs.start"]
    photo = images.load(PHOTO, 32)
    assert np.array_equal(start, images.resize(images.load(flower), *photo.shape[:2]))

    optimize.main([*GATYS, "--preserve-color", "--out", str(tmp_path / "color")])
    optimize.main([*GATYS, "--out", str(tmp_path / "without")])
    kept, free = (images.load(tmp_path / name / "result.png") for name in ("color", "without"))
    expected = images.preserve_color(state_best(tmp_path / "color"), photo)
    assert np.array_equal(kept, images.to_uint8(expected)) and not np.array_equal(kept, free)


def state_best(out):
    """The lowest picture, unclipped, from the checkpoint."""
    arrays, numbers = state(out)
    x = arrays["line.x"] + np.float32(numbers["optimizer"]["lowest"]) * arrays["line.d"]
    return x.reshape(arrays["picture.picture"].shape)[0]


def test_on_the_stand_in_for_cupy_it_agrees_with_numpy(strict, tmp_path):
    for name in ("cpu", "cuda"):
        optimize.main([*GATYS, "--device", name, "--out", str(tmp_path / name)])
    cpu, cuda = (np.array([row["total"] for row in losses(tmp_path / name)]) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda, cpu, rtol=1e-3)
    difference = images.load(tmp_path / "cpu/result.png") - images.load(tmp_path / "cuda/result.png")
    assert np.abs(difference).max() <= 2
    optimize.main(
        ["gatys", "--resume", "--iterations", "8", "--device", "cuda", "--out", str(tmp_path / "cpu")]
    )
    assert len(losses(tmp_path / "cpu")) == 8  # begun on one, gone on with on the other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gatys", "--style", STYLE], "gatys needs --content, an image"),
        (["gatys", "--content", PHOTO], "gatys needs --style, an image"),
        (["invert"], "invert needs --image, an image"),
        (["texture"], "texture needs --style, an image"),
        ([*GATYS, "--content", "nowhere.jpg"], "nowhere.jpg: no such file"),
        ([*GATYS, "--start", "nowhere.jpg"], "nowhere.jpg: no such file"),
        ([*GATYS, "--style", "nowhere.jpg"], "nowhere.jpg: no such file"),
        ([*GATYS, "--vgg", "nowhere.h5"], "nowhere.h5"),
        (
            ["invert", "--image", PHOTO, "--layer", "relu9_9"],
            "--layer: there is no layer 'relu9_9'; choose from relu1_1",
        ),
        (["texture", "--style", STYLE, "--layers", "relu1_2", "relu1_2"], "--layers names a layer twice"),
        ([*GATYS, "--style-weights", "1", "2", "3"], "one for each of 2 layers"),
        (
            [*GATYS, "--style-weights", "0", "--content-weights", "0", "--tv-weight", "0"],
            "all weights are zero",
        ),
        (["texture", "--style", STYLE, "--style-weights", "0", "--tv-weight", "0"], "all weights are zero"),
        (
            [*GATYS, "--style", STYLE, STYLE, "--mix", "1"],
            "--mix should be one number for each of 2 paintings",
        ),
        ([*GATYS, "--mix", "0"], "not all 0"),
        ([*GATYS, "--size", "31"], "--size is 31; with --scales 1 it should be at least 32"),
        ([*GATYS, "--scales", "2"], "--size is 32; with --scales 2 it should be at least 64"),
        ([*GATYS, "--iterations", "0"], "--iterations is 0; it should be at least 1"),
        ([*GATYS, "--lr", "nan"], "--lr is nan"),
        ([*GATYS, "--style-scale", "0.1"], "give a larger --style-size (optimize: --style-scale or --size)"),
        (["texture", "--style", STYLE, "--start", "content"], "has no photo to start from"),
        ([*GATYS, "--start", ""], "--start is empty"),
        ([*GATYS, "--resume"], "checkpoint.h5 does not exist"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        optimize.main([*options, "--out", str(tmp_path / "run")])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_painting_smaller_than_16_pixels_is_refused(tmp_path):
    images.save(tmp_path / "tiny.png", np.full((15, 40, 3), 9, np.float32))
    with pytest.raises(UserError, match=r"tiny\.png is 40x15 pixels: at least 16x16 make a style"):
        optimize.main([*GATYS, "--style", str(tmp_path / "tiny.png"), "--out", str(tmp_path / "run")])


def test_what_is_there_is_not_lost(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.png").write_text("somebody's")
    with pytest.raises(UserError, match="holds a run already"):
        optimize.main([*GATYS, "--out", str(tmp_path / "run")])
    with pytest.raises(UserError, match="is a file"):
        optimize.main([*GATYS, "--out", str(tmp_path / "run/result.png")])
    assert (tmp_path / "run/result.png").read_text() == "somebody's"


def test_on_the_command_line_a_mistake_is_one_line_and_status_2():
    for options in (["gatys"], ["paint"], ["invert", "--image", "nowhere.jpg", "--out", "nowhere"]):
        done = subprocess.run(
            [sys.executable, "-m", "tinynst.optimize", *options], capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("tinynst optimize")


def test_weights_too_large_for_float32_are_told_in_one_line(tmp_path):
    with pytest.raises(
        UserError,
        match="stopped at evaluation 1: L-BFGS needs a finite value and gradient to start from; the value is ",
    ):
        optimize.main([*GATYS, "--style-weights", "1e38", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run/result.png").exists()


def test_adam_that_diverges_says_so_in_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"stopped at evaluation \d+: .*; start again with lower weights or a lower --lr"
    ):
        optimize.main(
            [*GATYS, "--optimizer", "adam", "--lr", "1e30", "--every", "50", "--out", str(tmp_path / "run")]
        )
    assert not (tmp_path / "run/result.png").exists()
