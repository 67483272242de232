"""The paper's measurement, of a tiny net of several styles, with a small random VGG."""

import csv

import numpy as np
import pytest
from cases import counted, small_vgg

from tinynst import evaluate
from tinynst.data import images, styles, weights
from tinynst.errors import UserError
from tinynst.networks import VGG16, style_net
from tinynst.samples import PHOTOS, STYLES
from tinynst.tools import evaluate_style, metrics, report
from tinynst.tools.stylize import load_style

TWO = [str(PHOTOS / "chelsea.jpg"), str(PHOTOS / "coffee.jpg")]
OBJECTIVES = {
    "a": {"content_layers": ["relu2_2"], "content_weights": [1.0], "style_layers": ["relu1_2", "relu2_2"]}
    | {"style_weights": [5.0, 2.0], "tv_weight": 1e-6, "style_size": 48},
    "b": {"content_layers": ["relu1_2"], "content_weights": [2.0], "style_layers": ["relu2_2"]}
    | {"style_weights": [7.0], "tv_weight": 0.0, "style_size": 64},
}
PAINTINGS = {"a": "starry_night.jpg", "b": "mine.png"}  # one that ships, and one of the user's


@pytest.fixture(scope="module", autouse=True)
def random_vgg():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VGG16, "load", lambda path=None, xp=np: small_vgg(xp, "relu2_2", np.float32))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with many.h5, `paintings`, and `report` on two photos and all styles."""
    folder = tmp_path_factory.mktemp("several")
    picture = images.load(STYLES / "starry_night.jpg", 64)[::-1]
    images.save(folder / "paintings/mine.png", picture)
    save_net(folder / "many.h5")
    run(folder, folder / "report")
    return folder


def save_net(path, seed=0, **of_b):
    """Weights of a tiny net of the styles a, b and identity; `of_b` changes the objective of b."""
    net = style_net(width=2, styles=("a", "b", "identity"), upsample="smooth", padding="each", seed=seed)
    rng, arrays = np.random.default_rng(seed), net.parameters()
    for name in arrays:
        if name.endswith((".gamma", ".beta")):
            arrays[name] = arrays[name] + 0.3 * rng.standard_normal(arrays[name].shape)
    objectives = OBJECTIVES | {"b": OBJECTIVES["b"] | of_b}
    records = [{"name": name, "painting": PAINTINGS[name], "objective": objectives[name]} for name in "ab"]
    settings = {"norm": "instance", "upsample": "smooth", "width": 2, "padding": "each"}
    about = {"kind": "style", "styles": [*records, {"name": "identity"}], "settings": settings}
    weights.save(path, arrays, about | {"style_image": PAINTINGS["a"]})


def run(folder, out, *more, net="many.h5"):
    """Evaluate a net in `folder`; returns {(style, image): {what: rows}}."""
    given = ["--weights", f"{folder / net}", "--style", f"{folder / 'paintings'}", "--images", *TWO]
    evaluate.main(["style", *given, "--size", "32", "--evaluations", "3", "--out", str(out), *more])
    return measured(out)


def measured(out):
    rows = report.grouped(report.read_csv(out / "curves.csv", evaluate_style.TEXT), "style_name", "image")
    return {pair: report.grouped(mine, "what") for pair, mine in rows.items()}


def totals(found, *what):
    return np.array([row["total"] for by in found.values() for name in what for row in by[name]])


def test_each_style_is_measured_by_its_own_row_and_objective(folder):
    found = measured(folder / "report")
    assert list(found) == [(style, image) for style in "ab" for image in ("chelsea.jpg", "coffee.jpg")]
    net, vgg = load_style(folder / "many.h5"), VGG16.load()
    photo = evaluate_style.load_middle(TWO[1], 32)[None]
    for style, path in (("a", STYLES / "starry_night.jpg"), ("b", folder / "paintings/mine.png")):
        by = found[style, "coffee.jpg"]
        [seen] = by["net"]
        painting = images.load(path, OBJECTIVES[style]["style_size"], side="long")[None]
        objective = styles.style_objective(vgg, painting, OBJECTIVES[style])
        painted = net.forward(photo, style=style)
        for what, picture in (("itself", photo), ("net", painted)):
            terms, _ = objective(picture, objective.targets(photo))
            assert {name: by[what][0][name] for name in terms} == pytest.approx(terms, rel=1e-4)
        assert by["photo"][0]["total"] == by["itself"][0]["total"] and by["noise"][0]["content"] > 0
        assert [row["evaluation"] for row in by["noise"]] == [1, 2, 3] and by["net"][0]["seconds"] > 0
        picture = painted[0].clip(0, 255)
        assert {2: seen["axis2"], 4: seen["axis4"]} == pytest.approx(metrics.axis_peaks(picture), rel=1e-3)
        assert seen["saturated"] == pytest.approx(metrics.saturated(picture), abs=1e-9)
        np.testing.assert_allclose(
            np.array(seen["profile"].split(), float), metrics.border_lines(picture, 8), atol=1e-3
        )
    with open(folder / "report/curves.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == evaluate_style.COLUMNS


def made_up(style, image, net, noise):
    """Rows of curves.csv of one photo: the net's total, and those from noise."""
    pair = {"style_name": style, "image": image, "content": 0.0, "style": 0.0, "tv": 0.0}
    values = [("itself", 0, 9e6), ("net", 0, net), *(("noise", k, total) for k, total in enumerate(noise, 1))]
    rows = [
        {**pair, "what": what, "evaluation": k, "seconds": 3.0 if k else 2.0, "total": total}
        for what, k, total in values
    ]
    rows[1] |= {"axis2": ord(image) - ord("w"), "axis4": 2.0, "saturated": 0.5, "profile": "1 3"}
    return rows


def table_of(text):
    """The columns of the first table, and {first cell: line} of all lines that follow."""
    table = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line] for line in table]
    return table[0], {line[0]: line for line in table[1:]}


def test_the_report_shows_the_lowest_so_far_counts_and_medians():
    rows = []
    for style, nets in {"a": (50e3, 90e3, 40e3), "b": (1e3, 60e3, 70e3)}.items():
        for image, net in zip("xyz", nets, strict=True):
            rows += made_up(style, image, net, [90e3, 60e3, 50e3, np.inf, 40e3])
    text = evaluate_style.report(rows, 5)
    head, lines = table_of(text)
    terms = ["", "itself", "net", "content", "style", "TV", "noise, 5", "equal to, from noise"]
    assert head == [*terms, "axis, 2", "axis, 4", "border", "saturated, %"]
    rest = ["0", "0", "0", "40"]
    assert lines["a"] == ["a", "9,000", "60", *rest, "3 (1 to 5)", "2.00", "2.00", "3.00", "50.00"]
    assert lines["b"] == ["b", "9,000", "44", *rest, "2 (2 to over 5)", "2.00", "2.00", "3.00", "50.00"]
    assert "500 evaluations\ntake 750.0 times one pass" in text
    _, lines = table_of(evaluate_style.report(rows[21:], 5))
    assert lines["x"] == ["x", "9,000", "1", *rest, "over 5", "1.00", "2.00", "3.00", "50.00"]
    assert lines["all 3"][1:] == ["9,000", "44", *rest, "2 (2 to over 5)", "2.00", "2.00", "3.00", "50.00"]


def test_one_style_by_name(folder, tmp_path):
    """FILE.h5:NAME and --styles NAME are the same; a net of one style takes a painting of any name."""
    styles.extract(folder / "many.h5", "b", tmp_path / "b.h5")
    images.save(tmp_path / "other.png", images.load(folder / "paintings/mine.png"))
    one = ["--images", TWO[0]]
    found = [run(folder, tmp_path / "0", *one, net="many.h5:b")]
    found += [run(folder, tmp_path / "1", *one, "--styles", "b")]
    found += [run(tmp_path, tmp_path / "2", *one, "--style", str(tmp_path / "other.png"), net="b.h5")]
    expected = measured(folder / "report")["b", "chelsea.jpg"]
    for each in found:
        [by] = each.values()
        assert list(by) == ["itself", "net", "noise", "photo"]
        np.testing.assert_allclose(*(totals({0: by}, *by) for by in (by, expected)), rtol=1e-5)
    for picture in (tmp_path / "0/curves.png", folder / "report/curves.png"):
        picture = images.load(picture)
        assert min(picture.shape[:2]) > 200 and picture.std() > 10


def test_resume_measures_what_is_missing(folder, tmp_path, monkeypatch):
    """Both styles on one photo first: the other photo is then measured for both."""
    out = tmp_path / "out"
    first = run(folder, out, "--images", TWO[0])
    called = counted(monkeypatch, evaluate_style, "descend")
    done, expected = run(folder, out, "--resume"), measured(folder / "report")
    assert len(called) == 4 and {pair: done[pair] for pair in first} == first
    for pair, by in expected.items():
        for what in by:
            np.testing.assert_allclose(totals({0: done[pair]}, what), totals({0: by}, what), rtol=1e-6)
    assert run(folder, out, "--resume") == done and len(called) == 4
    for options, message in (
        ([], "holds a report already"),
        (["--resume", "--size", "40"], "begun with size 32, not 40"),
        (["--resume", "--styles", "a"], "begun with other styles, paintings or objectives"),
    ):
        with pytest.raises(UserError, match=message):
            run(folder, out, *options)
    assert measured(out) == done


def test_curves_of_an_earlier_report_are_used_where_they_are_the_same(folder, tmp_path, monkeypatch):
    before = measured(folder / "report")
    started = counted(monkeypatch, evaluate_style, "descend")
    found = run(folder, tmp_path / "new", "--starts", "noise", "--curves", str(folder / "report"))
    assert not started and {frozenset(by) for by in found.values()} == {frozenset({"itself", "net", "noise"})}
    for pair, by in found.items():
        assert by["noise"] == before[pair]["noise"]
    with pytest.raises(UserError, match="has 3 evaluations at 32 pixels"):
        run(folder, tmp_path / "other", "--curves", str(folder / "report"), "--evaluations", "4")
    with pytest.raises(UserError, match=r"there is no curves\.csv"):
        run(folder, tmp_path / "other", "--curves", str(tmp_path))


def test_on_the_stand_in_for_cupy(strict, folder, tmp_path):
    found, expected = run(folder, tmp_path / "out", "--device", "cuda"), measured(folder / "report")
    np.testing.assert_allclose(
        *(totals(each, "itself", "net", "noise") for each in (found, expected)), rtol=1e-3
    )
