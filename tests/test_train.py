import concurrent.futures
import itertools
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tinynst import device
from tinynst.data import checkpoint, images, styles, weights
from tinynst.errors import UserError
from tinynst.networks import VGG16, style_net
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools.stylize import load_style
from tinynst.training import style as train

# The real command on real photos with the real VGG-16, as small as it gets
SMALL = [
    "--iterations",
    "6",
    "--every",
    "2",
    "--batch",
    "2",
    "--image-size",
    "32",
    "--style-size",
    "48",
    "--width",
    "2",
]
SMALL += ["--style-layers", "relu1_2", "relu2_2", "--content-layers", "relu2_2"]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The options above with one small test photo, and a folder of our own to work in."""
    monkeypatch.chdir(tmp_path)
    images.save(tmp_path / "photo.png", images.load(PHOTOS / "coffee.jpg", 40))
    return [*SMALL, "--samples", str(tmp_path / "photo.png")]


def net_of(out):
    return checkpoint.load(out / "checkpoint.h5")[0]["net"]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_writes_weights_that_say_where_they_come_from(tmp_path, capsys, small):
    out = tmp_path / "run"
    assert train.main([*small, "--out", str(out)]) == 0
    arrays, about = weights.load(out / "weights.h5")
    assert (
        about["kind"] == "style" and about["style_image"] == "starry_night.jpg" and about["iterations"] == 6
    )
    assert (
        about["settings"]["width"] == 2 and about["settings"]["content"] == "photos" and about["photos"] == 80
    )
    assert str(tmp_path) not in str(about)  # made to be given away
    assert set(about["losses"]) == {"content", "style", "tv", "total"}
    assert same(arrays, net_of(out))
    thumbnail = weights.read_thumbnail(out / "weights.h5")
    assert max(thumbnail.shape[:2]) == 48
    assert images.load(out / "samples/000006.png").std() > 10
    assert str(out / "samples" / "000006.png") in capsys.readouterr().out


def test_the_first_step_goes_downhill_in_every_variant(tmp_path, small):
    for norm, upsample in (("batch", "nearest"), ("instance", "transpose")):
        out = tmp_path / norm
        train.main(
            [
                *small,
                "--norm",
                norm,
                "--upsample",
                upsample,
                "--iterations",
                "30",
                "--lr",
                "1e-2",
                "--out",
                str(out),
            ]
        )
        totals = [float(row.split(",")[-1]) for row in (out / "losses.csv").read_text().splitlines()[1:]]
        assert np.mean(totals[-5:]) < 0.5 * np.mean(totals[:5])
        assert style_net(norm, upsample, 2).buffers().keys() <= net_of(out).keys()


def test_kill_at_a_random_moment_five_times_then_the_same_weights(tmp_path, small):
    """SIGKILL, so that nothing can be tidied up; batch norm, so that running statistics are resumed too."""
    options = [*small, "--norm", "batch", "--iterations", "40"]
    train.main([*options, "--out", str(tmp_path / "whole")])
    out = tmp_path / "killed"
    chance = random.Random(20161008)
    command = [sys.executable, "-m", "tinynst.train", "--out", str(out)]
    for kill in range(5):
        resume = ["--resume"] if (out / "checkpoint.h5").exists() else options
        with subprocess.Popen([*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
            target = (
                2 + 6 * kill + chance.randrange(6)
            )  # an iteration; the kill comes at any moment in or after it
            while run.poll() is None and rows(out) < target:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.05)
            run.send_signal(signal.SIGKILL)
            errors = run.stderr.read().decode()
        assert "Error" not in errors, errors
    assert rows(out) < 40  # it was killed before its end
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert same(net_of(out), net_of(tmp_path / "whole"))
    assert (out / "losses.csv").read_bytes() == (tmp_path / "whole/losses.csv").read_bytes()
    arrays, _ = checkpoint.load(out / "checkpoint.h5")
    expected, _ = checkpoint.load(tmp_path / "whole/checkpoint.h5")
    assert same(arrays["m"], expected["m"]) and same(arrays["v"], expected["v"])


def rows(out):
    try:
        return max(0, (out / "losses.csv").read_text().count("\n") - 1)
    except FileNotFoundError:
        return 0


def test_resume_keeps_the_settings_and_refuses_others(tmp_path, small):
    out = tmp_path / "run"
    train.main([*small, "--out", str(out)])
    with pytest.raises(UserError, match="holds a run already"):
        train.main([*small, "--out", str(out)])
    with pytest.raises(UserError, match=r"--lr cannot change on --resume: the run was started with 0\.001"):
        train.main(["--resume", "--out", str(out), "--lr", "0.1"])
    train.main(["--resume", "--out", str(out), "--iterations", "8"])
    assert checkpoint.load(out / "checkpoint.h5")[1]["iteration"] == 8
    train.main([*small, "--iterations", "8", "--out", str(tmp_path / "straight")])
    assert same(net_of(out), net_of(tmp_path / "straight"))


def test_resume_finds_inputs_that_moved_and_refuses_others(tmp_path, small):
    photos = tmp_path / "photos"
    for k, name in enumerate(("chelsea", "coffee", "flower")):
        images.save(photos / f"{k}.png", images.load(PHOTOS / f"{name}.jpg", 40))
    style = tmp_path / "style.png"
    images.save(style, images.load(STYLES / "night_cafe.jpg", 60))
    options = [*small, "--style", str(style), "--content", str(photos)]
    train.main([*options, "--out", str(tmp_path / "whole"), "--iterations", "4"])
    train.main([*options, "--out", str(tmp_path / "run"), "--iterations", "2"])
    photos.rename(tmp_path / "moved")
    again = [
        "--resume",
        "--out",
        str(tmp_path / "run"),
        "--iterations",
        "4",
        "--content",
        str(tmp_path / "moved"),
    ]
    images.save(tmp_path / "moved" / "new.png", images.load(PHOTOS / "china.jpg", 40))
    with pytest.raises(UserError, match=r"moved has changed since the run was started \(photos: 3, now 4\)"):
        train.main(again)
    (tmp_path / "moved" / "new.png").unlink()
    with pytest.raises(UserError, match=r"chelsea\.jpg has changed since the run was started \(painting"):
        train.main([*again, "--style", str(PHOTOS / "chelsea.jpg")])
    assert (
        train.main([*again, "--style", str(style), "--style-weights", "5"]) == 0
    )  # as it was started: no change
    assert same(net_of(tmp_path / "run"), net_of(tmp_path / "whole"))


def test_results_are_not_trained_on_and_not_overwritten(tmp_path, small):
    photos = tmp_path / "photos"
    images.save(photos / "a.png", images.load(PHOTOS / "coffee.jpg", 40))
    with pytest.raises(UserError, match="lies inside --content"):
        train.main([*small, "--content", str(photos), "--out", str(photos / "runs" / "x")])
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "weights.h5").write_text("somebody's")
    with pytest.raises(UserError, match="holds a run already"):
        train.main([*small, "--out", str(tmp_path / "w")])
    with pytest.raises(UserError, match=r"photo\.png is a file"):
        train.main([*small, "--out", str(tmp_path / "photo.png")])
    assert (tmp_path / "w" / "weights.h5").read_text() == "somebody's"


def test_a_diverging_run_says_so_in_one_line_and_keeps_what_was_good(tmp_path, small):
    command = [
        sys.executable,
        "-m",
        "tinynst.train",
        *small,
        "--lr",
        "1e30",
        "--every",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("iteration ")]
    assert done.returncode == 2 and len(lines) == 1 and "stopped at iteration" in lines[0], done.stderr
    if (tmp_path / "run" / "checkpoint.h5").exists():
        assert all(np.isfinite(array).all() for array in net_of(tmp_path / "run").values())


def test_init_starts_from_given_weights(tmp_path, small):
    net = style_net(width=2, seed=5)
    weights.save(tmp_path / "w.h5", net.parameters(), {"kind": "style", "settings": {}})
    options = [*small, "--lr", "0", "--iterations", "1", "--init", str(tmp_path / "w.h5")]
    train.main([*options, "--out", str(tmp_path / "run")])
    assert same(net_of(tmp_path / "run"), net.parameters())  # a rate of zero moves nothing
    with pytest.raises(UserError, match="does not fit"):
        train.main([*options, "--width", "3", "--out", str(tmp_path / "other")])


# --- several paintings ---

MANY = ["--upsample", "smooth", "--padding", "each", "--tv-weight", "0"]
TWO = ["--style", str(STYLES / "night_cafe.jpg"), str(STYLES / "starry_night.jpg")]


def styles_of(out):
    return {record["name"]: record for record in weights.read_about(out / "weights.h5")["styles"]}


@pytest.fixture
def two(tmp_path, small):
    """A net of two styles, and the row that gives the photo back; trained for six steps: two for each."""
    out = tmp_path / "two"
    assert train.main([*small, *MANY, *TWO, "--lr", "1e-2", "--style-level", "1e5", "--out", str(out)]) == 0
    return out


def test_several_paintings_make_one_net_with_a_row_for_each(two):
    about = weights.read_about(two / "weights.h5")
    assert list(styles_of(two)) == ["night_cafe", "starry_night", "identity"]
    assert "2 styles" in about["summary"] and about["settings"]["style"] == [
        "night_cafe.jpg",
        "starry_night.jpg",
    ]
    assert weights.read_thumbnail(two / "weights.h5") is None  # a painting may not be ours to give away
    for name, record in styles_of(two).items():
        assert record["iterations"] == 6 and styles.thumbnail(record).std() > 5, name
    arrays = net_of(two)
    gamma = arrays["residual3.norm1.gamma"]
    assert gamma.shape == (3, 8)
    assert all(np.abs(gamma[row] - 1).max() > 1e-3 for row in range(3))  # each has learnt
    net = load_style(f"{two / 'weights.h5'}:starry_night")
    assert net.style.tolist() == [0, 1, 0]


def test_style_level_makes_paintings_count_alike(two, small):
    """The plain photos' style loss is what was asked for, whichever painting; without it the two are far
    apart."""
    vgg, photo = VGG16.load(), images.load(PHOTOS / "coffee.jpg", 256)[None]
    losses = []
    for name in ("night_cafe", "starry_night"):
        objective = styles_of(two)[name]["objective"]
        assert len(set(objective["style_weights"])) == 1
        painting = images.load(STYLES / f"{name}.jpg", 48, side="long")[None]
        made = styles.style_objective(vgg, painting, objective)
        losses.append(made.value(photo, made.targets(photo)))
        terms, _ = made(photo, made.targets(photo))
        assert abs(terms["total"] - losses[-1]) <= 1e-4 * losses[-1]
    assert all(0.4e5 < loss < 2.5e5 for loss in losses)  # the mean of three photos is 1e5


def test_each_round_of_steps_is_for_every_style_once():
    task = train.StyleTask.__new__(train.StyleTask)
    task.settings, task.objectives = train.StyleSettings(seed=3), {0: None, 2: None, 5: None}
    rows = list(itertools.islice(task._rows(0), 30))
    assert all(sorted(rows[k : k + 3]) == [0, 2, 5] for k in range(0, 30, 3))
    assert len({tuple(rows[k : k + 3]) for k in range(0, 30, 3)}) > 1
    assert list(itertools.islice(task._rows(7), 5)) == rows[7:12]


def test_rows_of_many_styles_learn_faster_and_the_last_layer_as_fast_as_it_is_told(tmp_path, small):
    """Adam's first step is the learning rate whatever the gradient is, so that what moved says which share it
    got."""
    out, moved = tmp_path / "run", {}
    train.main(
        [*small, *MANY, *TWO, "--iterations", "1", "--lr", "1e-3", "--lr-last", "0.1", "--out", str(out)]
    )
    start = style_net("instance", "smooth", 2, 3, "each").parameters()
    for name, array in net_of(out).items():
        moved[name] = np.abs(array - start[name]).max()
    assert moved["residual2.conv1.w"] == pytest.approx(1e-3, rel=0.01)
    assert moved["residual2.norm1.gamma"] == pytest.approx(3**0.5 * 1e-3, rel=0.01)
    assert moved["out.w"] == pytest.approx(1e-4, rel=0.01)


def test_many_styles_resume_bit_for_bit(two, tmp_path, small):
    options = [*small, *MANY, *TWO, "--lr", "1e-2", "--style-level", "1e5"]
    train.main([*options, "--iterations", "3", "--out", str(tmp_path / "run")])
    train.main(["--resume", "--iterations", "6", "--out", str(tmp_path / "run")])
    assert same(net_of(tmp_path / "run"), net_of(two))
    assert styles_of(tmp_path / "run")["night_cafe"]["objective"] == styles_of(two)["night_cafe"]["objective"]


def test_a_style_is_added_by_its_rows_and_nothing_else_changes(two, tmp_path, small):
    out = tmp_path / "three"
    options = [
        *small[small.index("--style-layers") :],
        "--iterations",
        "4",
        "--image-size",
        "32",
        "--lr",
        "1e-2",
    ]
    options += [
        "--style",
        str(STYLES / "pere_tanguy.jpg"),
        "--init",
        str(two / "weights.h5"),
        "--learn",
        "rows",
    ]
    train.main([*options, "--out", str(out)])
    assert list(styles_of(out)) == ["night_cafe", "starry_night", "identity", "pere_tanguy"]
    assert styles_of(out)["night_cafe"] == styles_of(two)["night_cafe"]
    before, after = net_of(two), net_of(out)
    for name, array in after.items():
        if array.ndim == 2:
            assert np.array_equal(array[:3], before[name])
        else:
            assert np.array_equal(array, before[name]), name
    assert any(
        (array[3] != before[name]).all(axis=-1).all() for name, array in after.items() if array.ndim == 2
    )
    with pytest.raises(UserError, match="needs --init"):
        train.main([*small, "--init", "none", "--learn", "rows", "--out", str(tmp_path / "x")])


def test_a_painting_alone_starts_as_the_nearest_style_and_makes_a_net_of_one(two, tmp_path, small, capsys):
    """With a rate of zero the row that it started with is what is left."""
    images.save(tmp_path / "cafe.png", images.load(STYLES / "night_cafe.jpg", 200))
    options = [
        *small[small.index("--style-layers") :],
        "--iterations",
        "1",
        "--image-size",
        "32",
        "--lr",
        "0",
    ]
    options += [
        "--style",
        str(tmp_path / "cafe.png"),
        "--init",
        str(two / "weights.h5"),
        "--out",
        str(tmp_path / "one"),
    ]
    train.main(options)
    said = capsys.readouterr().out.partition("cafe: starts as ")[2].partition(",")[0]
    one, many = net_of(tmp_path / "one"), net_of(two)
    rows = [
        row for row in range(3) if all(np.array_equal(one[n], a[row]) for n, a in many.items() if a.ndim == 2)
    ]
    assert [list(styles_of(two))[row] for row in rows] == [said]
    about = weights.read_about(tmp_path / "one" / "weights.h5")
    assert [about["settings"][name] for name in ("upsample", "padding", "width")] == ["smooth", "each", 2]
    assert about["settings"]["batch"] == train.FROM_A_NET["batch"]
    assert list(styles_of(tmp_path / "one")) == ["cafe"]


def test_style_weights_that_are_given_count_as_they_are(two, tmp_path, small):
    """Though the net that the run starts from was balanced by --style-level."""
    options = [
        "--iterations",
        "1",
        "--image-size",
        "32",
        "--init",
        str(two / "weights.h5"),
        *small[small.index("--samples") :],
    ]
    for weights_given, expected in ((["3"], [3, 3]), (["0"], [0, 0])):
        out = tmp_path / weights_given[0]
        train.main([*options, "--style-weights", *weights_given, "--out", str(out)])
        assert styles_of(out)["starry_night"]["objective"]["style_weights"] == expected
    train.main([*options, "--out", str(tmp_path / "level")])
    assert (
        styles_of(tmp_path / "level")["starry_night"]["objective"]
        == styles_of(two)["starry_night"]["objective"]
    )


def test_the_nearest_row_is_the_one_with_the_lowest_loss():
    class WantsRow:
        """An objective that is lowest for what one row paints."""

        def __init__(self, row):
            self.row = row

        def targets(self, photo):
            return net.forward(photo, style=self.row)

        def value(self, y, targets):
            return float(((y - targets) ** 2).mean())

    net = style_net(width=2, styles=3)
    for array in net.parameters().values():
        array += (array.ndim == 2) * np.random.default_rng(0).uniform(-0.5, 0.5, array.shape).astype(
            np.float32
        )
    task = train.StyleTask.__new__(train.StyleTask)
    task.names, task.xp, task.photos = ["new"], np, [images.load(PHOTOS / "coffee.jpg", 32)]
    for row in range(3):
        task.objectives = {0: WantsRow(row)}
        assert task._closest(net, "new") == row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--style", "nowhere.jpg"], "nowhere.jpg"),
        (["--content", "nowhere"], "nowhere"),
        (["--content", str(STYLES / "SOURCES.tsv")], "SOURCES.tsv"),
        (["--style-layers", "relu9_9"], "no layer 'relu9_9'; choose from relu1_1"),
        (["--style-weights", "1", "2", "3"], "one for each of 4 layers"),
        (["--content-weights", "nan"], "--content-weights"),
        (["--content-weights", "0", "--style-weights", "0", "--tv-weight", "0"], "nothing to learn"),
        (["--image-size", "8"], "--image-size is 8; it should be at least 32"),
        (["--iterations", "0"], "--iterations is 0"),
        (["--lr", "-1"], "--lr is -1;"),
        (["--lr-fall", "1.5"], "between 0 and 1"),
        (["--vgg", "nowhere.h5"], "nowhere.h5"),
        (["--init", "no-such-style"], "no-such-style"),
        (["--resume"], "--resume needs --out"),
        (["--style", ""], "--style is empty"),
        (["--resume", "--out", "nowhere"], "nowhere"),
        (["--samples", "nowhere.png"], "nowhere.png"),
        (["--preset", "no-such-style"], "no style called 'no-such-style' ships"),
        ([*TWO, str(PHOTOS / "../styles/night_cafe.jpg")], "two paintings are called night_cafe"),
        ([*TWO, "--norm", "batch"], "instance"),
        (["--style-level", "-1"], "--style-level is -1;"),
        (["--lr-last", "-1"], "--lr-last is -1;"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        train.main(options)
    assert message in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_mistake_on_the_command_line_is_one_line_and_status_2(tmp_path):
    for options in (["--device", "tpu"], ["--batch", "many"], ["--style", "nowhere.jpg"]):
        done = subprocess.run(
            [sys.executable, "-m", "tinynst.train", *options], capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("tinynst train: ")


def test_a_whole_run_on_the_stand_in_for_cupy_agrees_with_numpy(strict, tmp_path, small):
    train.main([*small, "--iterations", "2", "--out", str(tmp_path / "cpu")])
    train.main([*small, "--iterations", "2", "--device", "cuda", "--out", str(tmp_path / "cuda")])
    cpu, cuda = net_of(tmp_path / "cpu"), net_of(tmp_path / "cuda")
    losses = [
        [float(v) for v in row.split(",")]
        for row in (tmp_path / "cpu/losses.csv").read_text().splitlines()[1:]
    ]
    others = [
        [float(v) for v in row.split(",")]
        for row in (tmp_path / "cuda/losses.csv").read_text().splitlines()[1:]
    ]
    np.testing.assert_allclose(others[0], losses[0], rtol=1e-4)
    for name in (
        cpu
    ):  # Adam's first steps are lr in size whatever the gradient is: near zero a rounding decides which way
        assert np.median(np.abs(cpu[name] - cuda[name])) < 1e-4, name  # of 2e-3 that each moved
    assert device.select("cuda") is strict


def test_from_a_program_it_is_the_same_run(tmp_path, small):
    """Settings as an object: one style as a string, a Path; the losses as they are in losses.csv, and a net
    that runs."""
    out = tmp_path / "run"
    run = train.train(
        train.StyleSettings(style=STYLES / "night_cafe.jpg", iterations=2, image_size=32, width=2, out=out)
    )
    assert run.finished and run.out == out and [row["iteration"] for row in run.losses] == [1, 2]
    options = [
        "--style",
        str(STYLES / "night_cafe.jpg"),
        "--iterations",
        "2",
        "--image-size",
        "32",
        "--width",
        "2",
    ]
    train.main([*options, "--out", str(tmp_path / "command")])
    assert (out / "losses.csv").read_bytes() == (tmp_path / "command/losses.csv").read_bytes()
    assert same(run.net.parameters(), net_of(tmp_path / "command"))
    with pytest.raises(TypeError, match=r"has no setting 'iteration'; did you mean iterations\?"):
        train.StyleSettings(iteration=3)
    with pytest.raises(UserError, match=r"--iterations is 2\.5; it should be of type int"):
        train.StyleSettings(iterations=2.5)


def test_a_run_outside_the_main_thread_sets_no_handlers(tmp_path, small):
    settings = train.StyleSettings(iterations=1, image_size=32, width=2, batch=1, out=tmp_path / "run")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(train.train, settings).result().finished


def test_checkpoints_of_former_versions_are_resumed(tmp_path, small):
    """Theirs held "inputs", and later "styles", among the settings, and options that no longer exist."""
    options = [*small, "--batch", "1"]
    train.main([*options, "--iterations", "4", "--out", str(tmp_path / "whole")])
    train.main([*options, "--iterations", "2", "--out", str(tmp_path / "run")])
    path = tmp_path / "run/checkpoint.h5"
    arrays, state = checkpoint.load(path)
    settings = state["settings"] | {"style": state["settings"]["style"][0], "inputs": state["inputs"]}
    settings |= {"lr_decay_every": 0, "lr_decay_factor": 0.5}
    for name in (
        "preset",
        "learn",
        "style_level",
        "padding",
        "lr_last",
    ):  # from before nets could have several styles
        del settings[name]
    checkpoint.save(path, arrays, {"iteration": 2, "settings": settings})
    train.main(["--resume", "--iterations", "4", "--out", str(tmp_path / "run")])
    assert same(net_of(tmp_path / "run"), net_of(tmp_path / "whole"))
    assert (tmp_path / "run/losses.csv").read_bytes() == (tmp_path / "whole/losses.csv").read_bytes()
