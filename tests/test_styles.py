"""The styles in a weights file: records, rows, names, and a net of one style taken out of many."""

import numpy as np
import pytest

from tinynst.data import images, styles, weights
from tinynst.errors import UserError
from tinynst.networks import style_net
from tinynst.samples import STYLES
from tinynst.tools import weights as tool
from tinynst.tools.stylize import load_style, stylize

SETTINGS = {"norm": "instance", "upsample": "smooth", "width": 2, "padding": "each"}
OBJECTIVE = {"content_layers": ["relu3_3"], "content_weights": [1.0], "style_layers": ["relu1_2"]}
OBJECTIVE |= {"style_weights": [2.0], "tv_weight": 0.0, "style_size": 64}
PHOTO = np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32)


def write(path, names=("waves", "dots", "identity")):
    """A small net of these styles, its rows all different; returns it."""
    net, rng = style_net(**SETTINGS, styles=names), np.random.default_rng(1)
    for array in net.parameters().values():
        array += (array.ndim == 2) * rng.uniform(-0.5, 0.5, array.shape).astype(np.float32)
    facts = {"painting": "waves.jpg", "objective": OBJECTIVE}
    records = [{"name": name, "title": name.title(), **facts} for name in names]
    about = {"kind": "style", "styles": records, "settings": SETTINGS, "style_image": "waves.jpg"}
    weights.save(path, net.parameters(), about)
    return net


@pytest.fixture
def ships(tmp_path, monkeypatch):
    """A gallery and a net of one style, as if they shipped; the net of the gallery."""
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "ships")
    settings = {"norm": "instance", "upsample": "transpose", "width": 2}
    about = {"kind": "style", "summary": "alone", "settings": settings}
    weights.save(tmp_path / "ships" / "candy.h5", style_net(width=2).parameters(), about)
    return write(tmp_path / "ships" / "gallery.h5")


def painted(net, style):
    return net.forward(PHOTO[None], style=style)[0].clip(0, 255)


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_record_says_what_is_known_of_the_painting(tmp_path):
    record = styles.record(STYLES / "night_cafe.jpg", OBJECTIVE)
    expected = {"name": "night_cafe", "painting": "night_cafe.jpg", "objective": OBJECTIVE}
    assert record | expected == record and record["title"] == "The Night Cafe, 1888"
    assert record["painter"].startswith("Vincent van Gogh") and "Debian" in record["source"]
    mine = {"name": "mine", "painting": "mine.png", "objective": OBJECTIVE}
    assert styles.record(tmp_path / "mine.png", OBJECTIVE) == mine


def test_a_thumbnail_is_small_and_comes_back():
    picture = images.load(STYLES / "starry_night.jpg")
    text = styles.encoded(picture)
    small = styles.thumbnail({"thumbnail": text})
    assert len(text) < 4000 and max(small.shape[:2]) == styles.THUMBNAIL
    assert np.abs(small - images.at_most(picture, styles.THUMBNAIL)).mean() < 8
    assert styles.thumbnail({}) is None


def test_what_a_user_may_call_a_style(ships, tmp_path):
    gallery, candy = (tmp_path / "ships" / f"{name}.h5" for name in ("gallery", "candy"))
    own = tmp_path / "my nets" / "own.h5"
    write(own, ("a", "b"))
    for text, expected in {
        "dots": (gallery, {"dots": 1.0}),
        "dots:0.6 waves:0.4": (gallery, {"dots": 0.6, "waves": 0.4}),
        "dots waves": (gallery, {"dots": 1.0, "waves": 1.0}),
        "candy": (candy, None),
        "gallery": (gallery, None),
        str(own): (own, None),
        f"{own}:b": (own, {"b": 1.0}),
        f"{own}:a:0.5 b:0.5": (own, {"a": 0.5, "b": 0.5}),
    }.items():
        assert styles.resolve(text) == expected, text
    for text, message in {
        "stars": "called 'stars': choose from waves, dots",
        f"{own}:c": "'c': choose from a, b",
        "dots:much": "share of dots is 'much'",
        str(tmp_path / "none.h5"): "no style weights called",
        f"{candy}:a": "one style only",
    }.items():
        assert message in refused(styles.resolve, text)
    assert "share" in refused(load_style, "dots:-1") and "zero" in refused(load_style, "dots:0")
    assert list(styles.shipped()) == ["waves", "dots", "identity", "candy"]


@pytest.mark.parametrize(
    ("text", "style"),
    [("dots", "dots"), ("waves:3 dots:1", {"waves": 0.75, "dots": 0.25}), ("gallery", "waves")],
)
def test_a_loaded_mixture_is_what_the_net_paints(ships, text, style):
    assert np.abs(stylize(load_style(text), PHOTO) - painted(ships, style)).max() < 0.55


def test_strength_walks_from_the_identity_row_to_the_style(ships):
    loaded = load_style("dots")
    assert np.array_equal(stylize(loaded, PHOTO, 0), np.rint(PHOTO))
    lost = PHOTO - ships.forward(PHOTO[None], style="identity")[0]
    for strength in (0.25, 0.5, 1):
        mix = ships.forward(PHOTO[None], style={"dots": strength, "identity": 1 - strength})[0]
        expected = (mix + (1 - strength) * lost).clip(0, 255)
        assert np.abs(stylize(loaded, PHOTO, strength) - expected).max() < 0.55
    for s in (0, 0.99):  # no jump at either end
        assert np.abs(stylize(loaded, PHOTO, s).astype(int) - stylize(loaded, PHOTO, s + 0.01)).mean() < 5


def test_one_style_taken_out_of_many_paints_the_same(ships, tmp_path, capsys):
    target, own = tmp_path / "dots.h5", tmp_path / "ships" / "gallery.h5"
    tool.main(["extract", "gallery", "dots", str(target)])
    assert "wrote" in capsys.readouterr().out
    about = weights.read_about(target)
    assert [record["name"] for record in about["styles"]] == ["dots"] and styles.names(about) == ()
    assert np.abs(stylize(load_style(target), PHOTO) - painted(ships, "dots")).max() < 0.55
    before = own.read_bytes()
    assert "no style 'stars'" in refused(styles.extract, "gallery", "stars", tmp_path / "x.h5")
    assert "holds one style only" in refused(styles.extract, "candy", "candy", tmp_path / "x.h5")
    assert "would overwrite" in refused(styles.extract, own, "dots", own)
    assert own.read_bytes() == before and not (tmp_path / "x.h5").exists()


def test_rows_are_put_together_anew():
    table = {"norm.gamma": np.array([[1.0, 2], [3, 4]]), "conv.w": np.ones((3, 3))}
    several = styles.with_rows(table, [1, 1, 0])
    assert several["norm.gamma"].tolist() == [[3, 4], [3, 4], [1, 2]]
    one = styles.with_rows(table | {"norm.beta": np.array([5.0, 6])}, 0)
    assert one["norm.gamma"].tolist() == [1, 2] and one["norm.beta"].tolist() == [5, 6]
    assert one["conv.w"] is table["conv.w"]


def test_show_names_each_style_and_prints_no_picture(ships, capsys):
    tool.main(["show", "gallery"])
    shown = capsys.readouterr().out
    for name in ("name: waves", "name: dots", "name: identity", "Dots", "waves.jpg"):
        assert name in shown
