"""The real command on real photos with the real VGG-16, as small as it gets."""

import concurrent.futures
import subprocess
import sys

import numpy as np
import pytest
from runs import kill_and_resume, losses, net_of, same, same_run, without_plots  # noqa: F401 (a fixture)

from tinynst import device
from tinynst.data import checkpoint, images, styles, weights
from tinynst.errors import UserError
from tinynst.networks import VGG16, style_net
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools.stylize import load_style
from tinynst.train import main
from tinynst.training.style import FROM_A_NET, StyleSettings, StyleTask, train

LAYERS = {"style_layers": ["relu1_2", "relu2_2"], "content_layers": ["relu2_2"]}
SMALL = {"iterations": 4, "every": 2, "batch": 2, "image_size": 32, "style_size": 48, "width": 2, **LAYERS}
CAFE, NIGHT = str(STYLES / "night_cafe.jpg"), str(STYLES / "starry_night.jpg")
TWO = {"style": [CAFE, NIGHT], "upsample": "smooth", "padding": "each", "tv_weight": 0, "lr": 1e-2}
TWO |= {"style_level": 1e5, "iterations": 6}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The settings of a small run, on two photos and with one small test photo."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("chelsea", "flower"):
        images.save(folder / "photos" / f"{name}.png", images.load(PHOTOS / f"{name}.jpg", 40))
    images.save(folder / "photo.png", images.load(PHOTOS / "coffee.jpg", 40))
    return SMALL | {"content": folder / "photos", "samples": folder / "photo.png"}


@pytest.fixture(scope="module")
def one(tmp_path_factory, small):
    """The folder of a run with one painting."""
    return train(StyleSettings(**small, out=tmp_path_factory.mktemp("runs") / "one")).out


@pytest.fixture(scope="module")
def two(tmp_path_factory, small):
    """The folder of a run with two paintings and the row that reproduces the photo: two steps for each."""
    return train(StyleSettings(**small | TWO, out=tmp_path_factory.mktemp("runs") / "two")).out


def options(settings):
    """The command line of these settings."""
    words = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
    return [str(word) for word in words]


def styles_of(out):
    return {record["name"]: record for record in weights.read_about(out / "weights.h5")["styles"]}


def test_the_command_and_the_function_do_the_same_and_tell_where_the_results_are(
    one, small, tmp_path, capsys
):
    out = tmp_path / "run"
    assert main([*options(small), "--out", str(out)]) == 0
    assert same_run(out, one)
    printed = capsys.readouterr()
    assert str(out / "samples" / "000004.png") in printed.out
    assert printed.err.splitlines()[-1].startswith("iteration 4/4, content ")
    assert [row["iteration"] for row in losses(out)] == [1, 2, 3, 4]
    assert images.load(out / "samples/000004.png").std() > 10


def test_weights_say_where_they_come_from(one, small):
    arrays, about = weights.load(one / "weights.h5")
    assert about["kind"] == "style" and about["style_image"] == "starry_night.jpg"
    assert about["iterations"] == 4 and about["photos"] == 2 and "4 iterations" in about["summary"]
    assert about["settings"]["width"] == 2 and about["settings"]["content"] == "photos"
    assert str(one.parent) not in str(about) and str(small["content"]) not in str(about)  # made to be shared
    assert set(about["losses"]) == {"content", "style", "tv", "total"}
    assert same(arrays, net_of(one))
    assert max(weights.read_thumbnail(one / "weights.h5").shape[:2]) == 48


def test_from_a_program(small, tmp_path):
    """In any thread, with one style as a Path."""
    settings = StyleSettings(
        **small | {"iterations": 1}, style=STYLES / "night_cafe.jpg", out=tmp_path / "run"
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # where no handler of signals can be set
        run = pool.submit(train, settings).result()
    assert run.finished and run.out == tmp_path / "run" and run.losses == losses(run.out)
    assert same(run.net.parameters(), net_of(run.out))
    with pytest.raises(TypeError, match=r"has no setting 'iteration'; did you mean iterations\?"):
        StyleSettings(iteration=3)
    with pytest.raises(UserError, match=r"--iterations is 2\.5; it should be of type int"):
        StyleSettings(iterations=2.5)


@pytest.mark.parametrize(("norm", "upsample"), [("batch", "nearest"), ("instance", "transpose")])
def test_the_loss_goes_down(norm, upsample, small, tmp_path):
    more = {"norm": norm, "upsample": upsample, "iterations": 30, "every": 30, "lr": 1e-2}
    run = train(StyleSettings(**small | more, out=tmp_path / "run"))
    totals = [row["total"] for row in run.losses]
    assert np.mean(totals[-5:]) < 0.5 * np.mean(totals[:5])


def test_killed_and_resumed_with_the_same_weights(small, tmp_path):
    """Batch norm, so that running statistics are resumed too."""
    settings = small | {"norm": "batch", "iterations": 16, "every": 4}
    train(StyleSettings(**settings, out=tmp_path / "whole"))
    kill_and_resume(["tinynst.train"], options(settings), tmp_path / "run", (5, 10))
    assert same_run(tmp_path / "run", tmp_path / "whole")


def test_resume_keeps_the_settings_and_finds_inputs_that_moved(one, small, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "run"
    for path in small["content"].iterdir():
        images.save(photos / path.name, images.load(path))
    train(StyleSettings(**small | {"iterations": 2, "content": photos}, out=out))
    with pytest.raises(UserError, match="holds a run already"):
        train(StyleSettings(**small, out=out))
    with pytest.raises(UserError, match=r"--lr cannot change on --resume: the run was started with 0\.001"):
        train(StyleSettings(resume=True, out=out, lr=0.1))
    again = {"resume": True, "out": out, "iterations": 4, "content": photos.rename(tmp_path / "moved")}
    images.save(tmp_path / "moved" / "new.png", images.load(PHOTOS / "china.jpg", 40))
    with pytest.raises(UserError, match=r"moved has changed since the run was started \(photos: 2, now 3\)"):
        train(StyleSettings(**again))
    (tmp_path / "moved" / "new.png").unlink()
    with pytest.raises(UserError, match=r"--style has changed since the run was started \(painting"):
        train(StyleSettings(**again, style=PHOTOS / "chelsea.jpg"))
    train(StyleSettings(**again, style=NIGHT, style_weights=5))  # as it was started
    assert same_run(out, one)


def test_checkpoints_of_former_versions_are_resumed(one, small, tmp_path):
    """Theirs had "inputs" and "styles" among the settings, and options that no longer exist."""
    out = train(StyleSettings(**small | {"iterations": 2}, out=tmp_path / "run")).out
    arrays, state = checkpoint.load(out / "checkpoint.h5")
    settings = state["settings"] | {"style": state["settings"]["style"][0], "inputs": state["inputs"]}
    settings |= {"lr_decay_every": 0, "lr_decay_factor": 0.5}
    for name in ("preset", "learn", "style_level", "padding", "lr_last"):  # before nets had several styles
        del settings[name]
    checkpoint.save(out / "checkpoint.h5", arrays, {"iteration": 2, "settings": settings})
    train(StyleSettings(resume=True, iterations=4, out=out))
    assert same(net_of(out), net_of(one))
    assert losses(out) == losses(one)


def test_results_are_not_trained_on_and_not_overwritten(small, tmp_path):
    for name in ("weights.h5", "checkpoint.h5", "result.png"):
        file = tmp_path / name.partition(".")[0] / name
        file.parent.mkdir()
        file.write_text("somebody's")
        for out, message in (
            (file.parent, "holds a run already"),
            (file, "is a file"),
            (small["content"] / "runs", "lies inside --content"),
        ):
            with pytest.raises(UserError, match=message):
                train(StyleSettings(**small | {"out": out}))
        assert file.read_text() == "somebody's"


def test_init_starts_from_given_weights(small, tmp_path):
    net = style_net(width=2, seed=5)
    weights.save(tmp_path / "w.h5", net.parameters(), {"kind": "style", "settings": {}})
    settings = small | {"lr": 0, "iterations": 1, "init": tmp_path / "w.h5"}
    run = train(StyleSettings(**settings, out=tmp_path / "run"))
    assert same(run.net.parameters(), net.parameters())  # a rate of zero moves nothing
    with pytest.raises(UserError, match="does not fit"):
        train(StyleSettings(**settings | {"width": 3}, out=tmp_path / "other"))


# --- several paintings ---


def test_several_paintings_make_one_net_with_a_row_for_each(two):
    about = weights.read_about(two / "weights.h5")
    assert list(styles_of(two)) == ["night_cafe", "starry_night", "identity"]
    assert "2 styles" in about["summary"]
    assert about["settings"]["style"] == ["night_cafe.jpg", "starry_night.jpg"]
    assert weights.read_thumbnail(two / "weights.h5") is None  # a painting may not be ours to share
    for name, record in styles_of(two).items():
        assert record["iterations"] == 6 and styles.thumbnail(record).std() > 5, name
    gamma = net_of(two)["residual3.norm1.gamma"]
    assert gamma.shape == (3, 8)
    assert all(np.abs(gamma[row] - 1).max() > 1e-3 for row in range(3))  # each has learnt
    assert load_style(f"{two / 'weights.h5'}:starry_night").style.tolist() == [0, 1, 0]


def test_style_level_makes_paintings_count_alike(two):
    """The plain photos' style loss is what was asked for, whatever the painting."""
    vgg, photo = VGG16.load(), images.load(PHOTOS / "coffee.jpg", 256)[None]
    for name in ("night_cafe", "starry_night"):
        objective = styles_of(two)[name]["objective"]
        assert len(set(objective["style_weights"])) == 1
        painting = images.load(STYLES / f"{name}.jpg", 48, side="long")[None]
        made = styles.style_objective(vgg, painting, objective)
        assert 0.4e5 < made.value(photo, made.targets(photo)) < 2.5e5  # the mean of three photos is 1e5


def test_each_round_of_steps_is_for_every_style_once():
    task = StyleTask.__new__(StyleTask)
    task.settings, task.objectives = StyleSettings(seed=3), {0: None, 2: None, 5: None}
    rows = [task.choose(k) for k in range(30)]
    assert all(sorted(rows[k : k + 3]) == [0, 2, 5] for k in range(0, 30, 3))
    assert len({tuple(rows[k : k + 3]) for k in range(0, 30, 3)}) > 1


def test_learning_rates_of_rows_and_of_the_last_layer(small, tmp_path):
    """Adam's first step is the learning rate whatever the gradient is: what moved says which share it got."""
    settings = small | TWO | {"iterations": 1, "lr": 1e-3, "lr_last": 0.1, "style_level": 0}
    run = train(StyleSettings(**settings, out=tmp_path / "run"))
    start = style_net("instance", "smooth", 2, 3, "each").parameters()
    moved = {name: np.abs(array - start[name]).max() for name, array in run.net.parameters().items()}
    assert moved["residual2.conv1.w"] == pytest.approx(1e-3, rel=0.01)
    assert moved["residual2.norm1.gamma"] == pytest.approx(3**0.5 * 1e-3, rel=0.01)
    assert moved["out.w"] == pytest.approx(1e-4, rel=0.01)


def test_many_styles_resume_bit_for_bit(two, small, tmp_path):
    train(StyleSettings(**small | TWO | {"iterations": 3}, out=tmp_path / "run"))
    train(StyleSettings(resume=True, iterations=6, out=tmp_path / "run"))
    assert same_run(tmp_path / "run", two)
    assert styles_of(tmp_path / "run") == styles_of(two)


def test_a_style_is_added_by_its_rows_and_nothing_else_changes(two, small, tmp_path):
    settings = {
        "style": STYLES / "pere_tanguy.jpg",
        "learn": "rows",
        "image_size": 32,
        "lr": 1e-2,
        "iterations": 2,
    }
    settings |= {"samples": small["samples"], "content": small["content"]}
    run = train(StyleSettings(**settings, init=two / "weights.h5", out=tmp_path / "three"))
    assert list(styles_of(run.out)) == ["night_cafe", "starry_night", "identity", "pere_tanguy"]
    assert styles_of(run.out)["night_cafe"] == styles_of(two)["night_cafe"]
    before, after = net_of(two), net_of(run.out)
    kept = {name: array[:3] if array.ndim == 2 else array for name, array in after.items()}
    assert same(kept, before)
    tables = [name for name, array in after.items() if array.ndim == 2]
    assert any((after[name][3] != before[name]).all(axis=-1).all() for name in tables)
    with pytest.raises(UserError, match="needs --init"):
        train(StyleSettings(**small, init="none", learn="rows", out=tmp_path / "x"))


def test_a_painting_alone_starts_as_the_nearest_style_and_makes_a_net_of_one(two, small, tmp_path, capsys):
    """With a rate of zero the row that it started with is what is left."""
    images.save(tmp_path / "cafe.png", images.load(CAFE, 200))
    settings = {"iterations": 1, "image_size": 32, "lr": 0, "content": small["content"]}
    settings |= {"samples": small["samples"], "init": two / "weights.h5"}
    run = train(StyleSettings(**settings, style=tmp_path / "cafe.png", out=tmp_path / "one"))
    said = capsys.readouterr().out.partition("cafe: starts as ")[2].partition(",")[0]
    tables = {name: array for name, array in net_of(two).items() if array.ndim == 2}
    (row,) = (k for k in range(3) if all(np.array_equal(net_of(run.out)[n], tables[n][k]) for n in tables))
    assert list(styles_of(two))[row] == said and list(styles_of(run.out)) == ["cafe"]
    s = run.settings
    assert [s.upsample, s.padding, s.width, s.batch] == ["smooth", "each", 2, FROM_A_NET["batch"]]
    # Style weights that are given are not scaled, though the net's were
    for given, expected in ((3, [3, 3]), (0, [0, 0])):
        more = StyleSettings(**settings, style_weights=given, out=tmp_path / str(given))
        assert styles_of(train(more).out)["starry_night"]["objective"]["style_weights"] == expected


def test_the_nearest_row_is_the_one_with_the_lowest_loss():
    class WantsRow:
        """An objective that is lowest for what one row paints."""

        def __init__(self, row):
            self.row = row

        def targets(self, photo):
            return net.forward(photo, style=self.row)

        def value(self, y, targets):
            return float(((y - targets) ** 2).mean())

    net, rng = style_net(width=2, styles=3), np.random.default_rng(0)
    for array in net.parameters().values():
        if array.ndim == 2:
            array += rng.uniform(-0.5, 0.5, array.shape).astype(np.float32)
    task = StyleTask.__new__(StyleTask)
    task.names, task.xp, task.photos = ["new"], np, [images.load(PHOTOS / "coffee.jpg", 32)]
    for row in range(3):
        task.objectives = {0: WantsRow(row)}
        assert task._closest(net, "new") == row


# --- mistakes ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--style nowhere.jpg", "nowhere.jpg"),
        ("--content nowhere", "nowhere"),
        (f"--content {STYLES / 'SOURCES.tsv'}", "SOURCES.tsv"),
        ("--style-layers relu9_9", "no layer 'relu9_9'; choose from relu1_1"),
        ("--style-weights 1 2 3", "one for each of 4 layers"),
        ("--content-weights nan", "--content-weights"),
        ("--content-weights 0 --style-weights 0 --tv-weight 0", "all loss weights are zero"),
        ("--image-size 8", "--image-size is 8; it should be between 32 and 16384"),
        ("--iterations 0", "--iterations is 0"),
        ("--lr -1", "--lr is -1;"),
        ("--lr-fall 1.5", "between 0 and 1"),
        ("--vgg nowhere.h5", "nowhere.h5"),
        ("--init no-such-style", "no-such-style"),
        ("--resume", "--resume needs --out"),
        ("--resume --out nowhere", "nowhere"),
        ("--samples nowhere.png", "nowhere.png"),
        ("--preset no-such-style", "no style called 'no-such-style' ships"),
        (f"--style {CAFE} {NIGHT} {PHOTOS}/../styles/night_cafe.jpg", "two paintings are called night_cafe"),
        (f"--style {CAFE} {NIGHT} --norm batch", "instance"),
        ("--style-level -1", "--style-level is -1;"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main(words.split())
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="--style is empty"):
        StyleSettings(style="")
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line_mistakes_and_divergence_are_one_line_and_status_2(small, tmp_path):
    diverging = options(small | {"lr": 1e30, "every": 1, "out": tmp_path / "run"})
    for command, words, message in (
        ("train", diverging, "stopped at iteration"),
        ("train", ["--batch", "many"], "invalid int value"),
        ("optimize", ["paint"], "invalid choice"),
    ):
        run = [sys.executable, "-m", f"tinynst.{command}", *words]
        done = subprocess.run(run, capture_output=True, text=True)
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith("iteration "))
        assert done.returncode == 2 and line.startswith(f"tinynst {command}: ") and message in line
    if (tmp_path / "run" / "checkpoint.h5").exists():
        assert all(np.isfinite(array).all() for array in net_of(tmp_path / "run").values())


def test_a_whole_run_on_the_stand_in_for_cupy_agrees_with_numpy(one, strict, small, tmp_path):
    out = train(StyleSettings(**small, device="cuda", out=tmp_path / "cuda")).out
    assert losses(out)[0] == pytest.approx(losses(one)[0], rel=1e-4)
    cpu, cuda = net_of(one), net_of(out)
    for name in cpu:  # Adam's first steps are lr in size: near zero, rounding decides the direction
        assert np.median(np.abs(cpu[name] - cuda[name])) < 2e-4, name  # of 4e-3 that each moved
    assert device.select("cuda") is strict
