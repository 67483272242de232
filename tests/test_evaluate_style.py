"""The paper's measurement, on the net and the paintings that ship, at small sizes."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from cases import counted

from tinynst import evaluate
from tinynst.data import images, styles, weights
from tinynst.errors import UserError
from tinynst.losses import StyleObjective
from tinynst.networks import VGG16, style_net
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools import evaluate_style, metrics

TWO = [str(PHOTOS / "chelsea.jpg"), str(PHOTOS / "coffee.jpg")]
SMALL = ["style", "--weights", "starry_night_single", "--size", "32", "--evaluations", "4"]


def rows_of(out):
    return evaluate_style.read_rows(out / "curves.csv")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The report on two photos, of a net of one style, made once."""
    out = tmp_path_factory.mktemp("report") / "report"
    evaluate.main([*SMALL, "--images", *TWO, "--out", str(out)])
    return out


def test_the_numbers_are_those_of_the_recorded_objective(measured):
    """Made anew by hand from what the weights say: the net's value, the photo's own, and the two starts'."""
    rows = {(row["image"], row["what"], row["evaluation"]): row for row in rows_of(measured)}
    assert len(rows) == 2 * (2 + 2 * 4)
    recorded = weights.read_about(weights.find("starry_night_single"))["settings"]
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
    net = evaluate_style.load_net("starry_night_single")
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
    head, lines = table_of(text)
    column = head.index("noise, 4")
    for image in ("chelsea.jpg", "coffee.jpg"):
        mine = [row for row in rows if row["image"] == image]
        net = next(row["total"] for row in mine if row["what"] == "net")
        for start in ("noise", "photo"):
            totals = [row["total"] for row in mine if row["what"] == start]
            reached = [k for k in range(1, 5) if min(totals[:k]) <= net]
            assert lines[image][head.index(f"equal to, from {start}")] == (
                str(reached[0]) if reached else "over 4"
            )
            assert float(lines[image][head.index(f"{start}, 4")].replace(",", "")) == round(
                min(totals) / 1000
            )
        assert float(lines[image][head.index("net")].replace(",", "")) == round(net / 1000)
    lowest = [
        min(row["total"] for row in rows if row["image"] == image and row["what"] == "noise")
        for image in head_images(lines)
    ]
    assert float(lines["mean of 2 (last columns: median)"][column].replace(",", "")) == round(
        sum(lowest) / 2000
    )
    one_pass = np.median([row["seconds"] for row in rows if row["what"] == "net"])
    one = np.median([row["seconds"] for row in rows if row["what"] in ("noise", "photo")])
    assert lines["500 evaluations of L-BFGS"][1:] == [f"{500 * one:.2f}", f"{500 * one / one_pass:.1f}"]


def table_of(text):
    """The first line of the tables, and {first cell: line} of the others."""
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return table[0], {line[0]: line for line in table[2:]}


def head_images(lines):
    return [name for name in lines if name.endswith(".jpg")]


def test_equal_to_counts_from_one():
    assert evaluate_style.equal_to([9.0, 5.0, 5.0, 2.0], 5.0) == 2
    assert evaluate_style.equal_to([9.0, 5.0], 10.0) == 1
    assert evaluate_style.equal_to([9.0, 5.0], 4.9) is None


def made_up(name, net, noise):
    """Rows of one photo: the net's total and those from noise."""
    terms = {
        "content": 0.0,
        "style": 0.0,
        "tv": 0.0,
        "seconds": 1.0,
        "image": name,
        "style_name": "starry_night",
    }
    rows = [
        {**terms, "what": "itself", "evaluation": 0, "total": 9e6},
        {**terms, "what": "net", "evaluation": 0, "total": net},
    ]
    return rows + [
        {**terms, "what": "noise", "evaluation": k, "total": total} for k, total in enumerate(noise, 1)
    ]


def test_the_lowest_so_far_counts_and_a_median_that_is_not_reached_is_said_to_be_over():
    rows = (
        made_up("a", 50e3, [90e3, 40e3, np.inf])
        + made_up("b", 10e3, [80e3, 60e3, 70e3])
        + made_up("c", 9e3, [20e3, 30e3, 10e3])
    )
    lowest, nets, own = evaluate_style.curves(rows)
    assert lowest["noise"]["a"].tolist() == [90e3, 40e3, 40e3] and lowest["noise"]["b"].tolist() == [
        80e3,
        60e3,
        60e3,
    ]
    assert nets["a"]["total"] == 50e3 and own["b"]["total"] == 9e6
    eyes = [
        {"axis2": axis2, "axis4": 1.5, "border": 9.0, "saturated": share, "profile": profile}
        for axis2, share, profile in ((1.0, 0.01, "1 2 3"), (1.2, 0.02, "3 2.5 1"), (4.0, 0.06, "2 2 2"))
    ]
    text = evaluate_style.report(rows, eyes, 3)
    seen = "axis peaks 1.20 (period 2) and 1.50 (period 4), strongest line along the border 2.17 (1: nothing), saturated 3.00 %"
    assert seen in text  # medians, the maximum of the mean, a mean
    assert (
        "| a | 9,000 | 50 |" in text and "| 40 | 2 |" in text and text.count("over 3") == 3
    )  # b, c and the median


def test_the_plot_is_a_picture(measured):
    picture = images.load(measured / "curves.png")
    assert min(picture.shape[:2]) > 400 and picture.std() > 20
    assert (
        len(np.unique(picture.reshape(-1, 3).astype(int), axis=0)) > 50
    )  # colours of two curves and their ranges


def test_resume_keeps_what_is_there_and_measures_the_rest(measured, tmp_path):
    """One photo first, then both: the numbers of the run that had both at once; the first is not measured
    again."""
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
    options = [
        "--images",
        *TWO,
        "--count",
        "1",
        "--starts",
        "photo",
        "--style-weights",
        "10",
        "--evaluations",
        "1",
    ]
    evaluate.main([*SMALL, *options, "--out", str(out)])
    rows = rows_of(out)
    assert [row["what"] for row in rows] == ["itself", "net", "photo"] and {row["image"] for row in rows} == {
        "chelsea.jpg"
    }
    evaluate.main([*SMALL, *options, "--style-weights", "5", "--out", str(tmp_path / "five")])
    assert abs(rows[0]["style"] - 2 * rows_of(tmp_path / "five")[0]["style"]) <= 1e-4 * rows[0]["style"]
    assert json.loads((out / "settings.json").read_text())["styles"]["starry_night"]["style"]["relu1_2"] == 10


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
        (["--style", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (
            ["--styles", "great_wave"],
            "no 'great_wave' to measure in starry_night_single; choose from starry_night",
        ),
        (["--curves", "nowhere"], "--curves nowhere: there is no report"),
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


def test_two_photos_of_one_name_are_refused(tmp_path):
    images.save(tmp_path / "chelsea.jpg", images.load(TWO[1], 32))
    with pytest.raises(UserError, match="two photos have the same file name"):
        evaluate.main(
            [*SMALL, "--images", *TWO, str(tmp_path / "chelsea.jpg"), "--out", str(tmp_path / "report")]
        )


def test_weights_that_do_not_say_how_they_were_trained_are_refused(tmp_path):
    arrays, about = weights.load(weights.find("starry_night_single"))
    del about["settings"]["tv_weight"]
    weights.save(tmp_path / "w.h5", arrays, about)
    with pytest.raises(
        UserError, match="does not record the objective of starry_night: train this style again"
    ):
        evaluate.main(
            [*SMALL, "--weights", str(tmp_path / "w.h5"), "--images", *TWO, "--out", str(tmp_path / "report")]
        )


def test_on_the_command_line_a_mistake_is_one_line_and_status_2():
    for options in (["style"], ["nothing"], [*SMALL, "--images", "nowhere", "--out", "nowhere"]):
        done = subprocess.run(
            [sys.executable, "-m", "tinynst.evaluate", *options], capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("tinynst evaluate")


def test_curves_can_be_read_by_others(measured):
    with open(measured / "curves.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == evaluate_style.COLUMNS


# --- a net of several styles --------------------------------------------------------------------------------

OBJECTIVES = {
    "a": {"content_layers": ["relu2_2"], "content_weights": [1.0], "style_layers": ["relu1_2", "relu2_2"]}
    | {"style_weights": [5.0, 2.0], "tv_weight": 1e-6, "style_size": 48},
    "b": {"content_layers": ["relu1_2"], "content_weights": [2.0], "style_layers": ["relu2_2"]}
    | {"style_weights": [7.0], "tv_weight": 0.0, "style_size": 64},
}
PAINTINGS = {"a": "night_cafe.jpg", "b": "mine.png"}  # one that ships, and one that the user has


def many(path, seed=0, b=None):
    """Weights of a tiny net of the styles a, b and identity; `b` changes the objective of b."""
    net = style_net(width=2, styles=("a", "b", "identity"), upsample="smooth", padding="each", seed=seed)
    rng = np.random.default_rng(seed)
    arrays = {
        name: array + (0.3 * rng.standard_normal(array.shape) if name.endswith((".gamma", ".beta")) else 0)
        for name, array in net.parameters().items()
    }
    records = [
        {
            "name": name,
            "painting": PAINTINGS[name],
            "objective": objective | ((b or {}) if name == "b" else {}),
        }
        for name, objective in OBJECTIVES.items()
    ]
    records.append({"name": "identity", "objective": None})
    settings = {"norm": "instance", "upsample": "smooth", "width": 2, "padding": "each"}
    weights.save(
        path,
        arrays,
        {"kind": "style", "style_image": "night_cafe.jpg", "styles": records, "settings": settings},
    )
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder with many.h5, the folder `paintings`, and `report` on two photos and all styles."""
    folder = tmp_path_factory.mktemp("several")
    many(folder / "many.h5")
    picture = images.load(STYLES / "starry_night.jpg", 64)[::-1]
    images.save(folder / "paintings/mine.png", picture)
    images.save(folder / "paintings/other.png", picture[:, ::-1])
    evaluate.main(arguments(folder, folder / "report"))
    return folder


def arguments(folder, out, net="many.h5", *more):
    """The arguments of an evaluation of a net in `folder`."""
    given = [
        "--weights",
        str(folder / net),
        "--style",
        str(folder / "paintings"),
        "--images",
        *TWO,
        "--out",
        str(out),
    ]
    return ["style", *given, "--size", "32", "--evaluations", "3", *more]


def totals(rows, what):
    return {
        (row["style_name"], row["image"], row["evaluation"]): row["total"]
        for row in rows
        if row["what"] in what
    }


def test_each_style_is_measured_by_its_own_row_and_objective(several):
    rows = rows_of(several / "report")
    assert [(row["style_name"], row["image"]) for row in rows if row["what"] == "net"] == [
        (style, image) for style in "ab" for image in ("chelsea.jpg", "coffee.jpg")
    ]
    assert len(rows) == 2 * 2 * (2 + 2 * 3)
    net, vgg = evaluate_style.load_net(several / "many.h5"), VGG16.load()
    photo = evaluate_style.middle(images.load(TWO[1], 32), 32)[None]
    paths = {"a": STYLES / "night_cafe.jpg", "b": several / "paintings/mine.png"}
    measured = totals(rows, ["net"])
    eyes = {
        (row["style_name"], row["image"]): row
        for row in evaluate_style.read_eyes(several / "report/eyes.csv")
    }
    assert len(eyes) == 4
    for style, path in paths.items():
        painting = images.load(path, OBJECTIVES[style]["style_size"], side="long")[None]
        objective = styles.style_objective(vgg, painting, OBJECTIVES[style])
        painted = net.forward(photo, style=style)
        assert measured[style, "coffee.jpg", 0] == pytest.approx(
            objective.value(painted, objective.targets(photo)), rel=1e-4
        )
        seen, picture = eyes[style, "coffee.jpg"], painted[0].clip(0, 255)
        assert {2: seen["axis2"], 4: seen["axis4"]} == pytest.approx(metrics.axis_peaks(picture), rel=1e-3)
        assert seen["saturated"] == pytest.approx(metrics.saturated(picture), abs=1e-9)
        profile = [float(number) for number in seen["profile"].split()]
        np.testing.assert_allclose(profile, metrics.border_lines(picture, 8), atol=1e-3)
        assert max(profile) == pytest.approx(seen["border"], abs=1e-3)


def test_the_table_has_a_line_for_each_style(several):
    head, lines = table_of((several / "report/report.md").read_text())
    rows, eyes = rows_of(several / "report"), evaluate_style.read_eyes(several / "report/eyes.csv")
    columns = ["equal to, from noise", "equal to, from photo", "axis, 2", "axis, 4", "border", "saturated, %"]
    assert head == ["style", "itself", "net", *columns]
    assert [name for name in lines if name in ("a", "b", "identity")] == ["a", "b"]
    for style in "ab":
        mine = [row for row in rows if row["style_name"] == style]
        net = [row["total"] for row in mine if row["what"] == "net"]
        told = float(lines[style][2].replace(",", ""))
        assert told == pytest.approx(np.mean(net) / 1000, abs=0.5, rel=0.05)
        least = [min(k for k in found if k > 0) for found in evaluate_style.counts(mine).values()]
        assert [line.split("(")[1].split(" to ")[0] for line in lines[style][3:5]] == [
            "over 3" if k == np.inf else str(k) for k in least
        ]
        seen = [row for row in eyes if row["style_name"] == style]
        assert float(lines[style][5]) == pytest.approx(np.median([row["axis2"] for row in seen]), abs=0.006)
        assert float(lines[style][8]) == pytest.approx(
            100 * np.mean([row["saturated"] for row in seen]), abs=0.006
        )
    picture = images.load(several / "report/curves.png")
    assert min(picture.shape[:2]) > 200 and picture.std() > 10


def test_a_line_tells_the_median_and_the_range():
    rows, eyes = [], []
    for style, nets in {"a": (50e3, 90e3, 40e3), "b": (1e3, 60e3, 70e3)}.items():
        for name, net in zip("xyz", nets, strict=True):
            rows += [{**row, "style_name": style} for row in made_up(name, net, [90e3, 60e3, 50e3, 40e3])]
            seen = {"axis2": 1.0, "axis4": 2.0, "border": 3.0, "saturated": 0.5, "profile": "1 3"}
            eyes.append({"style_name": style, "image": name, **seen})
    _, lines = table_of(evaluate_style.report(rows, eyes, 4))
    assert lines["a"] == ["a", "9,000", "60", "3 (1 to 4)", "1.00", "2.00", "3.00", "50.00"]
    assert lines["b"] == ["b", "9,000", "44", "2 (2 to over 4)", "1.00", "2.00", "3.00", "50.00"]
    assert evaluate_style.counts(rows[: len(rows) // 2]) == {"noise": [3, 1, 4]}


def test_curves_of_an_earlier_report_are_taken_over(several, tmp_path, monkeypatch, capsys):
    """A net trained further: it is measured anew, L-BFGS is not run. By folder or by file; some of its
    evaluations, too."""
    many(several / "further.h5", seed=1)
    called = counted(monkeypatch, evaluate_style, "descend")
    before = rows_of(several / "report")
    evaluate.main(arguments(several, tmp_path / "again", "further.h5", "--curves", str(several / "report")))
    after = rows_of(tmp_path / "again")
    assert called == [] and "8 of 8 curves of L-BFGS are in earlier reports" in capsys.readouterr().out
    assert [row for row in after if row["what"] != "net"] == [row for row in before if row["what"] != "net"]
    nets = [totals(rows, ["net"]) for rows in (before, after)]
    assert nets[0].keys() == nets[1].keys() and all(nets[0][key] != nets[1][key] for key in nets[0])
    fewer = ["--evaluations", "2", "--starts", "photo", "--curves", str(tmp_path / "again/curves.csv")]
    evaluate.main(arguments(several, tmp_path / "fewer", "further.h5", *fewer))
    assert called == []
    expected = [row for row in after if row["what"] == "photo" and row["evaluation"] <= 2]
    assert [row for row in rows_of(tmp_path / "fewer") if row["what"] == "photo"] == expected and len(
        expected
    ) == 8


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (["--evaluations", "4"], 8),
        (["--seed", "1"], 8),
        (["--size", "36"], 8),
        (["--style-weights", "3"], 8),
        (["--starts", "noise", "--styles", "b"], 0),
    ],
)
def test_what_would_not_be_the_same_is_not_taken_over(several, tmp_path, monkeypatch, options, runs):
    called = counted(monkeypatch, evaluate_style, "descend")
    evaluate.main(
        arguments(several, tmp_path / "out", "many.h5", "--curves", str(several / "report"), *options)
    )
    assert len(called) == runs


def test_a_changed_objective_painting_or_photo_is_not_taken_over(several, tmp_path, monkeypatch):
    called = counted(monkeypatch, evaluate_style, "descend")
    earlier = ["--curves", str(several / "report")]
    many(several / "changed.h5", b={"tv_weight": 1e-5})
    evaluate.main(arguments(several, tmp_path / "objective", "changed.h5", *earlier))
    assert len(called) == 4  # of b only
    again, before = (
        totals(rows_of(out), ["noise", "photo"]) for out in (tmp_path / "objective", several / "report")
    )
    assert {key[0] for key in before if again[key] != before[key]} == {"b"}
    images.save(tmp_path / "mine.png", images.load(several / "paintings/other.png"))
    evaluate.main(
        [*arguments(several, tmp_path / "painting"), *earlier, "--style", str(tmp_path / "mine.png")]
    )
    assert len(called) == 8
    images.save(tmp_path / "chelsea.jpg", images.load(TWO[1]))
    photos = ["--images", str(tmp_path / "chelsea.jpg"), TWO[1]]
    evaluate.main([*arguments(several, tmp_path / "photo"), *earlier, *photos])
    assert len(called) == 12  # two styles from two starts


def test_resume_keeps_the_pairs_that_are_measured(several, tmp_path, monkeypatch):
    """Both styles on one photo first: the other photo is then measured for both."""
    evaluate.main(arguments(several, tmp_path / "out", "many.h5", "--count", "1"))
    called = counted(monkeypatch, evaluate_style, "descend")
    evaluate.main(arguments(several, tmp_path / "out", "many.h5", "--resume"))
    assert len(called) == 4
    done, expected = (rows_of(out) for out in (tmp_path / "out", several / "report"))
    assert len(done) == len(expected)
    for what in ("itself", "net", "noise", "photo"):
        assert totals(done, [what]) == pytest.approx(totals(expected, [what]), rel=1e-6)
    assert len(evaluate_style.read_eyes(tmp_path / "out/eyes.csv")) == 4
    evaluate.main(arguments(several, tmp_path / "out", "many.h5", "--resume"))
    assert len(called) == 4 and rows_of(tmp_path / "out") == done
    with pytest.raises(UserError, match="begun with other styles, paintings or objectives"):
        evaluate.main(arguments(several, tmp_path / "out", "many.h5", "--resume", "--styles", "a"))


def test_one_style_of_many_by_name(several, tmp_path):
    """FILE.h5:NAME and --styles NAME are the same, and the report is that of one style."""
    for k, (net, more) in enumerate({"many.h5:b": [], "many.h5": ["--styles", "b"]}.items()):
        evaluate.main(arguments(several, tmp_path / str(k), net, "--count", "1", "--evaluations", "1", *more))
    first, second = (rows_of(tmp_path / k) for k in "01")
    assert [row["total"] for row in first] == [row["total"] for row in second]
    expected = totals(rows_of(several / "report"), ["net"])["b", "chelsea.jpg", 0]
    assert totals(first, ["net"]) == {("b", "chelsea.jpg", 0): pytest.approx(expected, rel=1e-6)}
    assert table_of((tmp_path / "0/report.md").read_text())[0][0] == "photo"
    net, objective, settings = evaluate_style.net_and_objective(
        f"{several / 'many.h5'}:b", np, [several / "paintings"]
    )
    assert settings["painting"] == "mine.png" and objective.style == {"relu2_2": 7.0}
    assert net.style.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("net", "more", "message"),
    [
        ("many.h5", ["--styles", "identity"], "no 'identity' to measure"),
        ("many.h5", ["--styles", "a", "c"], "no 'c' to measure"),
        ("many.h5:c", [], "no style weights called 'c': choose from a, b, identity"),
        ("many.h5:a b", [], "is a mixture: name one style"),
        ("many.h5:identity", [], "does not record the objective of identity"),
        (
            "many.h5",
            ["--style", TWO[0]],
            "the painting mine.png of the style b is not there: give it with --style",
        ),
    ],
)
def test_mistakes_with_several_styles_end_in_one_line(several, tmp_path, net, more, message):
    with pytest.raises(UserError) as error:
        evaluate.main([*arguments(several, tmp_path / "report", net), *more])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


def test_a_figure_wants_one_style(several):
    with pytest.raises(UserError, match="holds 2 styles: name one"):
        evaluate_style.net_and_objective(several / "many.h5", np, [several / "paintings"])


def test_the_painting_of_a_net_of_one_style_may_have_any_name(several, tmp_path):
    styles.extract(several / "many.h5", "b", tmp_path / "one.h5")
    one = tmp_path / "paintings/other.png"
    images.save(one, images.load(several / "paintings/mine.png"))
    evaluate.main([*arguments(tmp_path, tmp_path / "out", "one.h5"), "--style", str(one)])
    net = ["itself", "net"]
    expected = {
        key: value for key, value in totals(rows_of(several / "report"), net).items() if key[0] == "b"
    }
    assert totals(rows_of(tmp_path / "out"), net) == pytest.approx(expected, rel=1e-5)
