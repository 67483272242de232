"""The evaluation of super-resolution on photos that ship."""

import functools
import math

import numpy as np
import pytest
from PIL import Image

from tinynst import evaluate
from tinynst.data import degradation, images, weights
from tinynst.networks import VGG16, super_resolution_net
from tinynst.samples import PHOTOS
from tinynst.tools import evaluate_superres, report, superres

NET = {"norm": "none", "upsample": "nearest", "residual": True, "width": 3}
SCORES = evaluate_superres.SCORES


def square(name, left, top, size):
    """A part of a photo that ships, as a Pillow image."""
    return images.open_rgb(PHOTOS / f"{name}.jpg").crop((left, top, left + size, top + size))


@pytest.fixture(scope="module", autouse=True)
def vgg():
    """Loaded once; the commands of this module use it, too."""
    load, loaded = VGG16.load, VGG16.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VGG16, "load", lambda xp=np: loaded if xp is np else load(xp=xp))
        yield loaded


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a set of two small photos, of sizes that 4 does not divide."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    square("coffee", 100, 60, 61).save("few/coffee.png")
    square("chelsea", 150, 80, 71).crop((0, 0, 71, 54)).save("few/cat.png")
    return tmp_path


def save_net(path, factor=4, scale=1.0):
    """Weights of an untrained net; `scale` multiplies its last layer, and so its difference from bicubic."""
    net = super_resolution_net(factor, **NET, seed=1)
    net.layers.layers["out"].parameters()["w"][...] *= scale
    about = {"kind": "superres", "factor": factor, "settings": {"factor": factor, **NET}}
    weights.save(path, {**net.parameters(), **net.buffers()}, about)


def run(*arguments):
    """Evaluate; returns {(image, method): row} of out/scores.csv."""
    evaluate.main(["superres", *map(str, arguments), "-o", "out"])
    rows = report.read_csv("out/scores.csv", ("set", "image", "method"))
    return {(row["image"], row["method"]): row for row in rows}


# (photo, left, top, size, factor): PSNR and SSIM of bicubic, computed with plain loops over Keys' kernel
# (a = -1/2, wider when shrinking, rounded to 8 bits after each axis), and with naive_ssim of test_metrics.py
RECORDED = {
    ("coffee", 100, 60, 62, 4): (26.4127, 0.7682),
    ("chelsea", 150, 80, 75, 8): (24.0141, 0.5914),
    ("brandenburg_gate", 120, 90, 63, 2): (24.6281, 0.6878),
}


@pytest.mark.parametrize("case", RECORDED, ids=str)
def test_bicubic_is_what_plain_loops_computed(case, vgg):
    *place, factor = case
    truth = degradation.cut(np.asarray(square(*place)), factor)
    image = evaluate_superres.bicubic(degradation.shrink(truth, factor), factor)
    [found] = evaluate_superres.scores([image], truth, factor, vgg)
    psnr, ssim = RECORDED[case]
    assert found["psnr"] == pytest.approx(psnr, abs=0.005) and found["ssim"] == pytest.approx(ssim, abs=2e-4)


def test_the_border_does_not_count_and_the_distance_is_a_mean(vgg):
    truth = np.asarray(square("coffee", 100, 60, 40))
    image = np.zeros_like(truth)
    image[4:-4, 4:-4] = truth[4:-4, 4:-4]
    equal, one_off = evaluate_superres.scores([image, np.roll(image, 1, axis=0)], truth, 4, vgg)
    assert equal == dict.fromkeys(SCORES, 0.0) | {"psnr": math.inf, "ssim": pytest.approx(1)}
    layers = [one_off[layer] for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")]
    assert one_off["psnr"] < 30 and min(layers) > 0.01
    assert one_off["distance"] == pytest.approx(np.mean(layers))


def test_a_grey_file_counts_with_its_own_values(here, vgg, monkeypatch):
    """Y spans 219 levels where grey has 255: as a colour file the same picture scores 20*log10(255/219) dB
    more."""
    grey = square("coffee", 100, 60, 64).convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    pictures = {"grey": grey, "alpha": grey.convert("LA"), "wide": wide}
    pictures |= {"colour": grey.convert("RGB"), "palette": grey.convert("P")}
    (here / "set").mkdir()
    for name, picture in pictures.items():
        picture.save(here / "set" / f"{name}.png")
    methods = {"bicubic": functools.partial(evaluate_superres.bicubic, factor=4)}
    monkeypatch.setattr(evaluate_superres, "ROWS", 2)
    rows, sheet = evaluate_superres.score_set(images.find("set"), methods, 4, vgg)
    psnr = {row["image"].removesuffix(".png"): row["psnr"] for row in rows}
    assert psnr["grey"] == psnr["alpha"] == psnr["wide"] and psnr["colour"] == psnr["palette"]
    assert psnr["colour"] - psnr["grey"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-6)
    assert len(sheet) == 2


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_smallest_photo_that_can_be_measured(here, factor, vgg):
    square("coffee", 100, 60, 16 + 2 * factor).save("few/coffee.png")
    methods = {"bicubic": functools.partial(evaluate_superres.bicubic, factor=factor)}
    rows, [(row, _)] = evaluate_superres.score_set([here / "few/coffee.png"], methods, factor, vgg)
    assert all(math.isfinite(rows[0][score]) for score in SCORES)
    assert [picture.shape for picture in row] == [(32 + 4 * factor, 32 + 4 * factor, 3)] * 3


@pytest.mark.parametrize("match", [False, True])
def test_csv_sheet_and_table(here, vgg, capsys, match):
    save_net("sharp.h5", scale=20)
    by = run("--set", "few", "--weights", "sharp.h5", *["--match-histogram"] * match)
    assert list(by) == [(i, m) for i in ("cat.png", "coffee.png", "mean") for m in ("bicubic", "sharp")]
    assert {(row["set"], row["factor"]) for row in by.values()} == {("few", 4)}
    for method in ("bicubic", "sharp"):
        each = [[by[image, method][score] for score in SCORES] for image in ("cat.png", "coffee.png")]
        np.testing.assert_allclose(np.mean(each, axis=0), [by["mean", method][s] for s in SCORES], atol=2e-6)

    # the net's numbers, once more by hand
    truth = degradation.cut(images.load("few/cat.png"), 4).astype(np.uint8)
    low = degradation.shrink(truth, 4)
    result = superres.enlarge(superres.load_superres("sharp.h5")[0], low, match_histogram=match)
    [found] = evaluate_superres.scores([result], truth, 4, vgg)
    assert {score: by["cat.png", "sharp"][score] for score in SCORES} == pytest.approx(found, abs=1e-6)

    # the sheet: low, bicubic, net, truth, each at twice its size, of both photos
    square = evaluate_superres.worst_square(evaluate_superres.bicubic(low, 4), truth, 4)
    sheet, cell = images.load("out/few.png"), 2 * 60
    for k, picture in enumerate(
        (low.repeat(4, 0).repeat(4, 1), evaluate_superres.bicubic(low, 4), result, truth)
    ):
        left = (
            8 + k * (cell + 8) + (cell - 104) // 2
        )  # the smaller photo, 52x68, is in the middle of its cell
        shown = sheet[8 + (cell - 104) // 2 :, left:][:104, :104]
        np.testing.assert_array_equal(shown, picture[square].repeat(2, 0).repeat(2, 1))

    text, mean = capsys.readouterr().out, by["mean", "sharp"]
    line = next(line for line in text.splitlines() if line.startswith("| sharp"))
    assert line.split()[3:-1:2] == [f"{mean['psnr']:.2f}", *(f"{mean[score]:.4f}" for score in SCORES[1:])]


def test_the_square_is_where_bicubic_is_worst(monkeypatch):
    monkeypatch.setattr(evaluate_superres, "SQUARE", 8)
    truth = np.zeros((24, 32, 3), np.uint8)
    image = truth.copy()
    image[13:15, 21:23], image[2, 3] = 100, 150
    assert evaluate_superres.worst_square(image, truth, 4) == (slice(8, 16), slice(16, 24))


def test_of_two_weights_of_one_name_the_second_has_its_path_as_its_name(here):
    save_net("a.h5")
    save_net("other/a.h5", scale=20)
    found = run("--set", "few", "--weights", "a.h5", "other/a.h5")
    assert found["mean", "a"]["psnr"] != found["mean", "other/a.h5"]["psnr"]


def test_by_default_what_ships_is_measured(here, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", here / "shipped")
    for factor in (2, 4):
        save_net(here / f"shipped/net_x{factor}.h5", factor)
    assert {method for _, method in run("--set", "few")} == {"bicubic", "net_x4"}
    found = run("--set", "few", "--weights", "--factor", "2")
    assert {(row["factor"], method) for (_, method), row in found.items()} == {(2, "bicubic")}
    assert evaluate_superres.EvaluateSuperresSettings(out="out").set == [str(PHOTOS)]


def test_the_stand_in_for_cupy_finds_the_same(here, strict):
    save_net("net.h5", scale=20)
    cpu = run("--set", "few", "--weights", "net.h5")
    strict.reset_counters()
    cuda = run("--set", "few", "--weights", "net.h5", "--device", "cuda")
    assert strict.launches > 0 and list(cpu) == list(cuda)
    for key in cpu:
        cpu[key], cuda[key] = ([row[key][score] for score in SCORES] for row in (cpu, cuda))
        np.testing.assert_allclose(cuda[key], cpu[key], rtol=1e-4, atol=1e-5)
