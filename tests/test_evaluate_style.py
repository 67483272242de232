"""The paper's measurement, on the net and the paintings that ship, at small sizes."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from tinynst import evaluate, evaluate_style, images, weights
from tinynst.cli import UserError
from tinynst.losses import StyleObjective
from tinynst.networks import VGG16
from tinynst.samples import PHOTOS, STYLES

TWO = [str(PHOTOS / "chelsea.jpg"), str(PHOTOS / "coffee.jpg")]
SMALL = ["style", "--weights", "starry_night", "--size", "32", "--evaluations", "4"]


def rows_of(out):
    return evaluate_style.read_rows(out / "curves.csv")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The report on two photos, made once."""
    out = tmp_path_factory.mktemp("report") / "report"
    evaluate.main([*SMALL, "--images", *TWO, "--out", str(out)])
    return out


def test_the_numbers_are_those_of_the_recorded_objective(measured):
    """Made anew by hand from what the weights say: the net's value, the photo's own, and the two starts'."""
    rows = {(row["image"], row["what"], row["evaluation"]): row for row in rows_of(measured)}
    assert len(rows) == 2 * (2 + 2 * 4)
    recorded = weights.read_about(weights.find("starry_night"))["settings"]
    objective = StyleObjective(
        VGG16.load(),
        images.load(STYLES / "starry_night.jpg", recorded["style_size"], side="long")[None],
        dict(zip(recorded["content_layers"], recorded["content_weights"], strict=True)),
        dict(zip(recorded["style_layers"], recorded["style_weights"], strict=True)),
        recorded["tv_weight"],
    )
    image = images.load(TWO[0], 32)
    left = (image.shape[1] - 32) // 2
    photo = image[None, :, left : left + 32]
    targets = objective.targets(photo)
    net = evaluate_style.load_net("starry_night")
    for what, picture in {"itself": photo, "net": net.forward(photo)}.items():
        terms, _ = objective(picture, targets)
        for name, value in terms.items():
            assert abs(rows["chelsea.jpg", what, 0][name] - value) <= 1e-4 * terms["total"], (what, name)
    assert rows["chelsea.jpg", "photo", 1]["total"] == rows["chelsea.jpg", "itself", 0]["total"]
    assert rows["chelsea.jpg", "noise", 1]["content"] > 0
    for row in rows.values():
        assert abs(row["content"] + row["style"] + row["tv"] - row["total"]) <= 1e-6 * row["total"]
        assert row["seconds"] > 0 or row["what"] == "itself"


def test_the_report_says_what_the_curves_say(measured):
    """Each figure of the table, from the rows of curves.csv by other means."""
    text = (measured / "report.md").read_text()
    rows = rows_of(measured)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    head, lines = table[0], {line[0]: line for line in table[2:]}
    column = head.index("noise, 4")
    for image in ("chelsea.jpg", "coffee.jpg"):
        mine = [row for row in rows if row["image"] == image]
        net = next(row["total"] for row in mine if row["what"] == "net")
        for start in ("noise", "photo"):
            totals = [row["total"] for row in mine if row["what"] == start]
            reached = [k for k in range(1, 5) if min(totals[:k]) <= net]
            assert lines[image][head.index(f"equal to, from {start}")] == (str(reached[0]) if reached else "over 4")
            assert float(lines[image][head.index(f"{start}, 4")].replace(",", "")) == round(min(totals) / 1000)
        assert float(lines[image][head.index("net")].replace(",", "")) == round(net / 1000)
    lowest = [
        min(row["total"] for row in rows if row["image"] == image and row["what"] == "noise") for image in head_images(lines)
    ]
    assert float(lines["mean of 2 (last columns: median)"][column].replace(",", "")) == round(sum(lowest) / 2000)
    one_pass = np.median([row["seconds"] for row in rows if row["what"] == "net"])
    one = np.median([row["seconds"] for row in rows if row["what"] in ("noise", "photo")])
    assert lines["500 evaluations of L-BFGS"][1:] == [f"{500 * one:.2f}", f"{500 * one / one_pass:.1f}"]


def head_images(lines):
    return [name for name in lines if name.endswith(".jpg")]


def test_equal_to_counts_from_one():
    assert evaluate_style.equal_to([9.0, 5.0, 5.0, 2.0], 5.0) == 2
    assert evaluate_style.equal_to([9.0, 5.0], 10.0) == 1
    assert evaluate_style.equal_to([9.0, 5.0], 4.9) is None


def made_up(name, net, noise):
    """Rows of one photo: the net's total and those from noise."""
    terms = {"content": 0.0, "style": 0.0, "tv": 0.0, "seconds": 1.0, "image": name}
    rows = [{**terms, "what": "itself", "evaluation": 0, "total": 9e6}, {**terms, "what": "net", "evaluation": 0, "total": net}]
    return rows + [{**terms, "what": "noise", "evaluation": k, "total": total} for k, total in enumerate(noise, 1)]


def test_the_lowest_so_far_counts_and_a_median_that_is_not_reached_is_said_to_be_over():
    rows = (
        made_up("a", 50e3, [90e3, 40e3, np.inf])
        + made_up("b", 10e3, [80e3, 60e3, 70e3])
        + made_up("c", 9e3, [20e3, 30e3, 10e3])
    )
    lowest, nets, own = evaluate_style.curves(rows)
    assert lowest["noise"]["a"].tolist() == [90e3, 40e3, 40e3] and lowest["noise"]["b"].tolist() == [80e3, 60e3, 60e3]
    assert nets["a"]["total"] == 50e3 and own["b"]["total"] == 9e6
    text = evaluate_style.report(rows, 3)
    assert "| a | 9,000 | 50 |" in text and "| 40 | 2 |" in text and text.count("over 3") == 3  # b, c and the median


def test_the_plot_is_a_picture(measured):
    picture = images.load(measured / "curves.png")
    assert min(picture.shape[:2]) > 400 and picture.std() > 20
    assert len(np.unique(picture.reshape(-1, 3).astype(int), axis=0)) > 50  # colours of two curves and their ranges


def test_resume_keeps_what_is_there_and_measures_the_rest(measured, tmp_path):
    """One photo first, then both: the numbers of the run that had both at once; the first is not measured again."""
    out = tmp_path / "report"
    evaluate.main([*SMALL, "--images", TWO[0], "--out", str(out)])
    first = rows_of(out)
    with pytest.raises(UserError, match="holds a report already"):
        evaluate.main([*SMALL, "--images", *TWO, "--out", str(out)])
    with pytest.raises(UserError, match="begun with size 32, not 40"):
        evaluate.main([*SMALL, "--size", "40", "--images", *TWO, "--out", str(out), "--resume"])
    evaluate.main([*SMALL, "--images", *TWO, "--out", str(out), "--resume"])
    both, expected = rows_of(out), rows_of(measured)
    assert both[: len(first)] == first
    assert [row["total"] for row in both] == [row["total"] for row in expected]


def test_count_starts_and_style_weights(tmp_path):
    out = tmp_path / "report"
    options = ["--images", *TWO, "--count", "1", "--starts", "photo", "--style-weights", "10", "--evaluations", "1"]
    evaluate.main([*SMALL, *options, "--out", str(out)])
    rows = rows_of(out)
    assert [row["what"] for row in rows] == ["itself", "net", "photo"] and {row["image"] for row in rows} == {"chelsea.jpg"}
    evaluate.main([*SMALL, *options, "--style-weights", "5", "--out", str(tmp_path / "five")])
    assert abs(rows[0]["style"] - 2 * rows_of(tmp_path / "five")[0]["style"]) <= 1e-4 * rows[0]["style"]
    assert json.loads((out / "settings.json").read_text())["style"]["relu1_2"] == 10


def test_on_the_stand_in_for_cupy(strict, measured, tmp_path):
    out = tmp_path / "report"
    evaluate.main([*SMALL, "--images", TWO[0], "--device", "cuda", "--out", str(out)])
    totals = np.array([row["total"] for row in rows_of(out)])
    expected = np.array([row["total"] for row in rows_of(measured) if row["image"] == "chelsea.jpg"])
    np.testing.assert_allclose(totals, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "no-such-style"], "no-such-style"),
        (["--images", "nowhere"], "nowhere"),
        (["--style", "nowhere.jpg"], "nowhere.jpg is not there: give it with --style"),
        (["--size", "31"], "--size is 31; it should be at least 32"),
        (["--evaluations", "0"], "--evaluations is 0"),
        (["--count", "0"], "--count is 0"),
        (["--style-weights", "1", "2"], "one for each of 4 layers"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        evaluate.main([*SMALL, "--images", *TWO, "--out", str(tmp_path / "report"), *options])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


def test_weights_that_do_not_say_how_they_were_trained_are_refused(tmp_path):
    arrays, about = weights.load(weights.find("starry_night"))
    del about["settings"]["tv_weight"]
    weights.save(tmp_path / "w.h5", arrays, about)
    with pytest.raises(UserError, match="does not record 'tv_weight'"):
        evaluate.main([*SMALL, "--weights", str(tmp_path / "w.h5"), "--images", *TWO, "--out", str(tmp_path / "report")])


def test_on_the_command_line_a_mistake_is_one_line_and_status_2():
    for options in (["style"], ["nothing"], [*SMALL, "--images", "nowhere", "--out", "nowhere"]):
        done = subprocess.run([sys.executable, "-m", "tinynst.evaluate", *options], capture_output=True, text=True)
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("tinynst evaluate")


def test_curves_can_be_read_by_others(measured):
    with open(measured / "curves.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == evaluate_style.COLUMNS
