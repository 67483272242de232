"""The sheet of photos by styles: each cell is what the net paints."""

import numpy as np
import pytest
from test_styles import write

from tinynst.data import images
from tinynst.samples import PHOTOS
from tinynst.tools import gallery
from tinynst.tools.stylize import load_style


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "many.h5")


def same(cell, net, photo, style):
    return np.abs(cell - net.forward(photo[None], style=style)[0].clip(0, 255)).max() < 0.55


def test_every_cell_is_what_the_net_paints(here):
    net = load_style("many.h5")
    photos = [images.load(PHOTOS / f"{name}.jpg", 24, side="long") for name in ("coffee", "chelsea")]
    rows, captions = gallery.gallery(net, photos, ["dots", "waves"])
    assert captions[1:] == [["dots"], ["waves"]] and len(rows) == 3
    for row, style in zip(rows[1:], ("dots", "waves"), strict=True):
        assert all(same(cell, here, photo, style) for cell, photo in zip(row, photos, strict=True))
    [row], [captions] = gallery.strip(net, photos[0], "dots", "waves")
    assert captions[1] == "dots 75%, waves 25%"
    for cell, share in zip(row, gallery.STEPS, strict=True):
        assert same(cell, here, photos[0], {"dots": 1 - share, "waves": share})
    assert gallery.strip(net, photos[0], "identity", "waves")[1][0][1] == "strength 0.25, waves"


def test_the_command(here, capsys):
    gallery.main(["--weights", "many.h5", "--size", "24", "--out", "sheet.png"])
    assert images.load("sheet.png").shape[1] == 8 + 3 * (24 + 8)  # three photos, a row for each of two styles
    gallery.main(["--weights", "many.h5", "--size", "24", "--strip", "dots", "waves", "--out", "strip.png"])
    assert images.load("strip.png").shape[1] == 8 + 5 * (24 + 8)
    assert "wrote strip.png" in capsys.readouterr().out
