"""The evaluation of super-resolution against its definition in plain loops, on photos that ship."""

import csv
import functools
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinynst import evaluate
from tinynst.data import degradation as superres_data
from tinynst.data import images, weights
from tinynst.errors import UserError
from tinynst.networks import VGG16, super_resolution_net
from tinynst.samples import PHOTOS
from tinynst.tools import evaluate_superres, metrics, superres

NET = {"norm": "none", "upsample": "nearest", "residual": True, "width": 3}


def square(name, left, top, size):
    """A part of a photo that ships, as a Pillow image."""
    return images.open_rgb(PHOTOS / f"{name}.jpg").crop((left, top, left + size, top + size))


@pytest.fixture(scope="module")
def vgg():
    return VGG16.load()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a set of two small photos, of sizes that 4 does not divide."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    square("coffee", 100, 60, 61).save("few/coffee.png")
    square("chelsea", 150, 80, 71).crop((0, 0, 71, 54)).save("few/cat.png")
    return tmp_path


def save_net(path, factor=4, scale=1.0, loss="pixel"):
    """Weights of an untrained net; `scale` makes its last layer, and so its difference from bicubic,
    larger."""
    net = super_resolution_net(factor, **NET, seed=1)
    net.layers.layers["out"].parameters()["w"][...] *= scale
    about = {"kind": "superres", "factor": factor, "loss": loss, "settings": {"factor": factor, **NET}}
    weights.save(path, {**net.parameters(), **net.buffers()}, about)


def run(*arguments):
    return evaluate.main(["superres", *map(str, arguments)])


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- the numbers --------------------------------------------------------------------------------------------


def cubic(x):
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized(line, length):
    """A line of pixels resampled: each new pixel a mean of the old ones near it, under a kernel that grows
    when it shrinks."""
    scale = len(line) / length
    reach = max(scale, 1.0)
    found = []
    for i in range(length):
        centre = (i + 0.5) * scale - 0.5
        near = [(j, cubic((j - centre) / reach)) for j in range(len(line)) if abs(j - centre) < 2 * reach]
        found.append(sum(w * line[j] for j, w in near) / sum(w for _, w in near))
    return found


def naive_resize(image, height, width):
    """Across, then down, rounded to 8 bits after each as on 8-bit images it is."""
    for axis, length in ((1, width), (0, height)):
        image = np.rint(np.apply_along_axis(resized, axis, image.astype(float), length)).clip(0, 255)
    return image


def naive_psnr(image, truth, factor):
    total = count = 0
    for i in range(factor, truth.shape[0] - factor):
        for j in range(factor, truth.shape[1] - factor):
            y, t = (
                16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255 for r, g, b in (image[i, j], truth[i, j])
            )
            total, count = total + (y - t) ** 2, count + 1
    return 10 * math.log10(255**2 * count / total)


# (photo, left, top, size, factor): PSNR and SSIM of bicubic as the code above and that of test_metrics.py
# have computed them
RECORDED = {
    ("coffee", 100, 60, 62, 4): (26.4127, 0.7682),
    ("chelsea", 150, 80, 75, 8): (24.0141, 0.5914),
    ("brandenburg_gate", 120, 90, 63, 2): (24.6281, 0.6878),
}


@pytest.mark.parametrize("case", RECORDED, ids=str)
def test_bicubic_is_what_plain_loops_say(case, vgg):
    *place, factor = case
    truth = superres_data.cut(np.asarray(square(*place)), factor)
    low = superres_data.shrink(truth, factor)
    image = evaluate_superres.bicubic(low, factor)
    [found] = evaluate_superres.scores([image], truth, factor, vgg)

    height, width = truth.shape[:2]
    naive = naive_resize(naive_resize(truth, height // factor, width // factor), height, width)
    assert np.abs(naive - image).max() <= 1
    assert found["psnr"] == pytest.approx(naive_psnr(naive, truth, factor), abs=0.01)
    psnr, ssim = RECORDED[case]
    assert found["psnr"] == pytest.approx(psnr, abs=0.005)
    assert found["ssim"] == pytest.approx(ssim, abs=2e-4)


def test_the_border_does_not_count(vgg):
    truth = np.asarray(square("coffee", 100, 60, 40))
    image = np.zeros_like(truth)
    image[4:-4, 4:-4] = truth[4:-4, 4:-4]
    equal, one_off = evaluate_superres.scores([image, np.roll(image, 1, axis=0)], truth, 4, vgg)
    assert equal == {"psnr": math.inf, "ssim": pytest.approx(1), "distance": 0.0} | dict.fromkeys(
        evaluate_superres.LAYERS, 0.0
    )
    assert one_off["psnr"] < 30 and one_off["distance"] > 0.01


def test_the_distance_is_the_mean_over_the_layers(vgg):
    truth = np.asarray(square("coffee", 100, 60, 40))
    [found] = evaluate_superres.scores([truth[::-1]], truth, 4, vgg)
    layers = [found[layer] for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")]
    assert len(set(layers)) == 5 and min(layers) > 0
    assert found["distance"] == pytest.approx(np.mean(layers))


def test_a_grey_file_counts_with_its_own_values(here, vgg):
    """Y spans 219 levels where grey has 255: the same picture stored in colour is better by 20*log10(255/219)
    dB."""
    grey = square("coffee", 100, 60, 64).convert("L")
    (here / "set").mkdir()
    for name, mode in (("grey", "L"), ("alpha", "LA"), ("wide", "I;16"), ("colour", "RGB"), ("palette", "P")):
        picture = (
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
            if mode == "I;16"
            else grey.convert(mode)
        )
        assert picture.mode == mode
        picture.save(here / "set" / f"{name}.png")
    methods = {"bicubic": functools.partial(evaluate_superres.bicubic, factor=4)}
    table, pictures = evaluate_superres.score_set(images.find("set"), methods, 4, vgg)
    psnr = {path.stem: found["bicubic"]["psnr"] for path, found in table.items()}
    assert psnr["grey"] == psnr["alpha"] == psnr["wide"] and psnr["colour"] == psnr["palette"]
    assert psnr["colour"] - psnr["grey"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-6)
    assert pictures == []


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_smallest_photo_that_can_be_measured(here, factor, vgg):
    least = 16 + 2 * factor
    square("coffee", 100, 60, least).save("few/coffee.png")
    methods = {"bicubic": functools.partial(evaluate_superres.bicubic, factor=factor)}
    table, [row] = evaluate_superres.score_set([here / "few/coffee.png"], methods, factor, vgg, rows=1)
    assert all(map(math.isfinite, table[here / "few/coffee.png"]["bicubic"].values()))
    assert [picture.shape for picture, _ in row] == [(2 * least, 2 * least, 3)] * 3


# --- the command --------------------------------------------------------------------------------------------


def test_csv_sheet_and_table(here, vgg, capsys):
    save_net("sharp.h5", scale=20)
    assert run("--set", "few", "--weights", "sharp.h5", "-o", "out") is None
    rows = rows_of("out/scores.csv")
    kinds = [(row["set"], row["factor"], row["image"], row["method"]) for row in rows]
    assert kinds == [
        ("few", "4", image, m) for image in ("cat.png", "coffee.png", "mean") for m in ("bicubic", "sharp")
    ]
    by = {(row["image"], row["method"]): row for row in rows}
    for score in evaluate_superres.SCORES:
        for method in ("bicubic", "sharp"):
            each = [float(by[image, method][score]) for image in ("cat.png", "coffee.png")]
            assert float(by["mean", method][score]) == pytest.approx(np.mean(each), abs=2e-6)
    assert by["mean", "bicubic"]["psnr"] != by["mean", "sharp"]["psnr"]

    # the net's numbers, once more by hand
    truth = superres_data.cut(images.load("few/cat.png"), 4).astype(np.uint8)
    assert truth.shape == (52, 68, 3)
    low = superres_data.shrink(truth, 4)
    net = super_resolution_net(4, **NET)
    net.load(weights.load("sharp.h5")[0])
    result = images.to_uint8(net.forward(low[None].astype(np.float32))[0])
    [found] = evaluate_superres.scores([result], truth, 4, vgg)
    for score, value in found.items():
        assert float(by["cat.png", "sharp"][score]) == pytest.approx(value, rel=1e-5, abs=1e-6), score

    # the sheet: low, bicubic, net, truth, each at twice its size, of both photos
    sheet = images.load("out/few.png")
    cell = 2 * 60  # of the larger photo's cut height and width
    parts = [sheet[8 : 8 + cell, 8 + k * (cell + 8) :][:, :cell] for k in range(4)]
    inner = (
        slice((60 - 52), (60 - 52) + 104),
        slice((60 - 52), (60 - 52) + 104),
    )  # the smaller photo, in the middle
    pictures = [part[inner] for part in parts]
    assert sheet.shape[1] == 8 + 4 * (cell + 8)
    columns = [
        left
        for left in (0, 4, 8, 12, 16)
        if np.array_equal(pictures[3][::2, ::2], truth[:52, left : left + 52])
    ]
    assert len(columns) == 1
    left = columns[0]
    assert np.array_equal(pictures[0][::8, ::8], low[:13, left // 4 : left // 4 + 13])
    assert np.array_equal(pictures[1][::2, ::2], evaluate_superres.bicubic(low, 4)[:52, left : left + 52])
    assert np.array_equal(pictures[2][1::2, 1::2], result[:52, left : left + 52])

    text = capsys.readouterr().out
    mean = by["mean", "sharp"]
    line = next(line for line in text.splitlines() if line.startswith("sharp"))
    numbers = [
        f"{float(mean['psnr']):.2f}",
        *(f"{float(mean[name]):.4f}" for name in evaluate_superres.SCORES[1:]),
    ]
    assert line.split()[1:] == numbers
    assert "the paper" not in text


def test_the_square_is_where_bicubic_is_worst():
    truth = np.zeros((24, 32, 3), np.uint8)
    image = truth.copy()
    image[13:15, 21:23] = 100
    image[2, 3] = 150
    assert evaluate_superres._worst_square(image, truth, 8, 4) == (8, 16)


def test_the_papers_figures_stand_beside_its_sets(here, capsys):
    (here / "few").rename("Set5")
    save_net("a.h5", loss="pixel")
    save_net("b.h5", loss="feature")
    run("--set", "Set5", "--weights", "a.h5", "b.h5", "-o", "out", "--rows", "0")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("   ")[-1] for line in lines[1:]] == [
        "28.43 / 0.8114",
        "28.40 / 0.8205",
        "27.09 / 0.7680",
    ]
    assert not (here / "out/Set5.png").exists()


def test_without_a_set_the_photos_that_ship(here, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_superres, "PHOTOS", here / "few")
    run("--weights", "--factor", "2", "-o", "out")
    assert {(row["set"], row["factor"], row["method"]) for row in rows_of("out/scores.csv")} == {
        ("few", "2", "bicubic")
    }


def test_without_weights_all_that_ship_for_the_factor(here, vgg, monkeypatch):
    shipped = here / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(weights, "SHIPPED", shipped)
    monkeypatch.setattr(VGG16, "load", lambda xp: vgg)  # it would not be found there
    for factor in (2, 4):
        save_net(shipped / f"net_x{factor}.h5", factor)
    run("--set", "few", "-o", "out")
    assert {row["method"] for row in rows_of("out/scores.csv")} == {"bicubic", "net_x4"}


def test_the_histogram_is_matched_where_it_is_asked_for(here):
    save_net("net.h5", scale=100)
    for options in ([], ["--match-histogram"]):
        run("--set", "few", "--weights", "net.h5", *options, "-o", "matched" if options else "plain")
    plain, matched = (
        {row["image"] + row["method"]: row for row in rows_of(f"{out}/scores.csv")}
        for out in ("plain", "matched")
    )
    assert plain["cat.pngbicubic"] == matched["cat.pngbicubic"]
    net, _ = superres.load_superres("net.h5")
    truth = superres_data.cut(images.load("few/cat.png"), 4).astype(np.uint8)
    low = superres_data.shrink(truth, 4)
    for rows, result in (
        (plain, superres.enlarge(net, low)),
        (matched, superres.enlarge(net, low, match_histogram=True)),
    ):
        y, t = (metrics.luma(image[4:-4, 4:-4]) for image in (images.to_uint8(result), truth))
        assert float(rows["cat.pngnet"]["psnr"]) == pytest.approx(metrics.psnr(y, t), abs=1e-5)
    assert plain["cat.pngnet"]["psnr"] != matched["cat.pngnet"]["psnr"]


def test_two_weights_of_one_name_are_told_apart(here):
    for folder, scale in (("a", 1), ("b", 20)):
        save_net(here / folder / "weights.h5", scale=scale)
    run("--set", "few/cat.png", "--weights", "a/weights.h5", "b/weights.h5", "-o", "out")
    found = {row["method"]: row["psnr"] for row in rows_of("out/scores.csv") if row["image"] == "cat.png"}
    assert list(found) == ["bicubic", "weights", "b/weights.h5"] and len(set(found.values())) == 3


def test_the_stand_in_for_cupy_finds_the_same(here, strict):
    save_net("net.h5", scale=20)
    run("--set", "few", "--weights", "net.h5", "-o", "cpu")
    strict.reset_counters()
    run("--set", "few", "--weights", "net.h5", "-o", "cuda", "--device", "cuda")
    assert strict.launches > 0
    for cpu, cuda in zip(rows_of("cpu/scores.csv"), rows_of("cuda/scores.csv"), strict=True):
        for score in evaluate_superres.SCORES:
            assert float(cuda[score]) == pytest.approx(float(cpu[score]), rel=1e-4, abs=1e-5), (
                cpu["image"],
                score,
            )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "nowhere", "-o", "out"], "nowhere: no such file or folder"),
        (["--set", "few", "empty", "-o", "out"], "empty is an empty folder"),
        (["--set", "few", "", "-o", "out"], "empty name"),
        (["--set", "few", "-o", ""], "empty name"),
        (["--set", "few", "-o", "few/out"], "lies in the set few"),
        (["--set", ".", "-o", "out"], "lies in the set ."),
        (["--set", "few", "-o", "few/cat.png"], "is a file"),
        (["--set", "few", "other/few", "-o", "out"], "two sets called few"),
        (["--set", "few", "--rows", "-1", "-o", "out"], "--rows is -1"),
        (["--set", "few", "--weights", "two.h5", "-o", "out"], "--factor 2"),
        (["--set", "few", "--weights", "nothing.h5", "-o", "out"], "nothing.h5"),
        (["--set", "few", "--weights", "vgg16", "-o", "out"], "vgg16"),
        (["--set", "few", "tiny", "-o", "out"], "tiny.png is 23x61 pixels; x4 needs at least 24x24"),
        (["--set", "few", "broken", "-o", "out"], "broken.png: no image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_told_and_cost_no_earlier_result(here, arguments, words):
    for name in ("empty", "other/few", "tiny", "broken", "out"):
        (here / name).mkdir(parents=True)
    square("coffee", 0, 0, 64).save("other/few/a.png")
    square("coffee", 0, 0, 61).crop((0, 0, 23, 61)).save("tiny/tiny.png")
    (here / "broken/broken.png").write_text("nothing")
    save_net("two.h5", factor=2)
    for name in ("scores.csv", "few.png"):
        (here / "out" / name).write_text("earlier")
    with pytest.raises(UserError) as caught:
        run(*(["--weights"] if "--weights" not in arguments else []), *arguments)
    assert words in str(caught.value)
    assert {path.name: path.read_text() for path in (here / "out").iterdir()} == {
        "scores.csv": "earlier",
        "few.png": "earlier",
    }


def test_as_a_program(here):
    def program(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "tinynst.evaluate", *arguments], capture_output=True, text=True
        )

    done = program("superres", "--factor", "3", "-o", "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--factor" in done.stderr
    done = program("superres", "--set", "nowhere", "-o", "out")
    assert done.returncode == 2 and done.stderr == "tinynst evaluate: nowhere: no such file or folder\n"
    assert program().returncode == 2
    assert "distance" in program("superres", "--help").stdout
