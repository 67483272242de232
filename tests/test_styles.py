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
OBJECTIVE = {
    "content_layers": ["relu3_3"],
    "content_weights": [1.0],
    "style_layers": ["relu1_2"],
    "style_weights": [2.0],
}
OBJECTIVE |= {"tv_weight": 0.0, "style_size": 64}


def write(path, names=("waves", "dots", "identity")):
    """A small net of these styles, its rows all different; returns it."""
    net = style_net(**SETTINGS, styles=names)
    rng = np.random.default_rng(1)
    for array in net.parameters().values():
        array += (array.ndim == 2) * rng.uniform(-0.5, 0.5, array.shape).astype(np.float32)
    records = [
        {"name": name, "title": name.title(), "painting": f"{name}.jpg", "objective": OBJECTIVE}
        for name in names
    ]
    about = {"kind": "style", "styles": records, "settings": SETTINGS, "style_image": "waves.jpg"}
    weights.save(path, net.parameters(), about)
    return net


@pytest.fixture
def ships(tmp_path, monkeypatch):
    """A gallery and a net of one style, as if they shipped."""
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "ships")
    one = style_net(width=2)
    about = {
        "kind": "style",
        "summary": "alone",
        "settings": {"norm": "instance", "upsample": "transpose", "width": 2},
    }
    weights.save(tmp_path / "ships" / "candy.h5", one.parameters(), about)
    return write(tmp_path / "ships" / "gallery.h5"), tmp_path


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_record_says_what_is_known_of_the_painting(tmp_path):
    record = styles.record(STYLES / "night_cafe.jpg", OBJECTIVE)
    expected = {"name": "night_cafe", "painting": "night_cafe.jpg", "objective": OBJECTIVE}
    assert {name: record[name] for name in expected} == expected
    assert record["title"] == "The Night Cafe, 1888" and record["painter"].startswith("Vincent van Gogh")
    assert "Debian" in record["source"]
    images.save(tmp_path / "mine.png", np.zeros((20, 20, 3)))
    assert styles.record(tmp_path / "mine.png", OBJECTIVE) == {
        "name": "mine",
        "painting": "mine.png",
        "objective": OBJECTIVE,
    }


def test_a_thumbnail_is_small_and_comes_back():
    picture = images.load(STYLES / "starry_night.jpg")
    text = styles.encoded(picture)
    assert len(text) < 4000
    small = styles.thumbnail({"thumbnail": text})
    assert max(small.shape[:2]) == styles.THUMBNAIL
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
    assert "'stars'" in refused(styles.resolve, "stars") and "waves, dots" in refused(styles.resolve, "stars")
    assert "'c'" in refused(styles.resolve, f"{own}:c") and "a, b" in refused(styles.resolve, f"{own}:c")
    assert "share of dots is 'much'" in refused(styles.resolve, "dots:much")
    assert "no style weights called" in refused(styles.resolve, str(tmp_path / "none.h5"))
    assert "one style only" in refused(styles.resolve, f"{candy}:a")
    assert "share" in refused(load_style, "dots:-1") and "zero" in refused(load_style, "dots:0")


def test_a_loaded_mixture_is_what_the_net_paints(ships):
    net, _ = ships
    photo = np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32)
    for text, style in {
        "dots": "dots",
        "waves:3 dots:1": {"waves": 0.75, "dots": 0.25},
        "gallery": "waves",
    }.items():
        expected = net.forward(photo[None], style=style)[0].clip(0, 255)
        assert np.abs(stylize(load_style(text), photo) - expected).max() < 0.55
    assert list(styles.shipped()) == ["waves", "dots", "identity", "candy"]


def test_strength_walks_from_the_identity_row_to_the_style(ships):
    net, _ = ships
    photo = np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32)
    loaded = load_style("dots")
    assert np.array_equal(stylize(loaded, photo, 0), np.rint(photo))
    lost = photo - net.forward(photo[None], style="identity")[0]
    for strength in (0.25, 0.5, 1):
        expected = (
            net.forward(photo[None], style={"dots": strength, "identity": 1 - strength})[0]
            + (1 - strength) * lost
        )
        assert np.abs(stylize(loaded, photo, strength) - expected.clip(0, 255)).max() < 0.55
    steps = [
        np.abs(stylize(loaded, photo, s).astype(int) - stylize(loaded, photo, s + 0.01)).mean()
        for s in (0, 0.3, 0.98, 0.99)
    ]
    assert max(steps) < 5  # no jump at either end


def test_one_style_taken_out_of_many_paints_the_same(ships, capsys):
    net, folder = ships
    tool.main(["extract", "gallery", "dots", str(folder / "dots.h5")])
    assert "wrote" in capsys.readouterr().out
    about = weights.read_about(folder / "dots.h5")
    assert [record["name"] for record in about["styles"]] == ["dots"] and styles.names(about) == ()
    photo = np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32)
    expected = net.forward(photo[None], style="dots")[0].clip(0, 255)
    assert np.abs(stylize(load_style(folder / "dots.h5"), photo) - expected).max() < 0.55
    assert "no style 'stars'" in refused(styles.extract, "gallery", "stars", folder / "x.h5")
    assert "holds one style only" in refused(styles.extract, "candy", "candy", folder / "x.h5")
    own = folder / "ships" / "gallery.h5"
    before = own.read_bytes()
    assert "would overwrite" in refused(styles.extract, own, "dots", own)
    assert own.read_bytes() == before and not (folder / "x.h5").exists()


def test_rows_are_put_together_anew():
    arrays = {
        "norm.gamma": np.array([[1.0, 2], [3, 4]]),
        "norm.beta": np.array([5.0, 6]),
        "conv.w": np.ones((3, 3)),
    }
    several, one = (
        styles.with_rows(arrays | {"norm.beta": np.array([[5.0, 6], [7, 8]])}, [1, 1, 0]),
        styles.with_rows(arrays, 0),
    )
    assert several["norm.gamma"].tolist() == [[3, 4], [3, 4], [1, 2]] and several["norm.beta"].tolist()[
        2
    ] == [5, 6]
    assert one["norm.gamma"].tolist() == [1, 2] and one["norm.beta"].tolist() == [5, 6]
    assert one["conv.w"] is arrays["conv.w"]


def test_show_names_each_style_and_prints_no_picture(ships, capsys):
    tool.main(["show", "gallery"])
    shown = capsys.readouterr().out
    for name in ("name: waves", "name: dots", "name: identity", "Dots", "waves.jpg"):
        assert name in shown
