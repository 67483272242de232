"""Datasets: unreadable photos are skipped, batches depend on seed and number, packing is all or nothing."""

import csv
import threading
import time

import h5py
import numpy as np
import pytest
from PIL import Image
from test_images import picture

from tinynst import dataset as command
from tinynst import samples
from tinynst.cli import run
from tinynst.data import images
from tinynst.data.photos import Folder, Packed, batches, crop, open_dataset, pack
from tinynst.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """A folder of five photos: 0.png .. 4.png, 40 to 48 pixels high, 60 wide."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(picture(40 + 2 * i, 60, i)).save(folder / f"{i}.png")
    return folder


def spoil(folder, *numbers):
    for i in numbers:
        (folder / f"{i}.png").write_text("not an image")


def test_folder(photos):
    ds = Folder(photos)
    assert len(ds) == len(list(ds)) == 5 and ds.skipped == 0 and ds[3].dtype == np.uint8
    np.testing.assert_array_equal(ds[3], picture(46, 60, 3))
    np.testing.assert_array_equal(ds[-1], picture(48, 60, 4))
    with pytest.raises(IndexError):
        ds[5]
    assert [p.shape[:2] for p in Folder(photos, 44)] == [(40, 60), (42, 60), (44, 60), (44, 57), (44, 55)]


def test_unreadable_photos_are_skipped_with_one_warning_each(photos, capsys):
    spoil(photos, 1, 2, 4)
    ds = Folder(photos)
    for i, substitute in ((1, 3), (2, 3), (4, 0), (1, 3)):  # the next that can be read
        np.testing.assert_array_equal(ds[i], ds[substitute])
    assert ds.skipped == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("warning: photo skipped: ") for line in lines)
    assert all(any(f"{i}.png" in line for line in lines) for i in (1, 2, 4))
    spoil(photos, *range(5))
    with pytest.raises(UserError, match="none of the 5 photos"):
        take(1, Folder(photos), 2, 32, seed=0)


def test_pack_and_read_back(photos, tmp_path):
    (tmp_path / "p.h5").write_text("old")
    assert pack(photos, tmp_path / "p.h5", side=44) == (5, 0)
    ds = Packed(tmp_path / "p.h5")
    assert len(ds) == 5 and ds.skipped == 0
    for photo, expected in zip(ds, Folder(photos, side=44), strict=True):
        assert photo.dtype == np.uint8 and photo.shape == expected.shape  # smaller photos are not enlarged
        assert np.abs(photo.astype(int) - expected).mean() < 2
    np.testing.assert_array_equal(ds[-1], ds[4])
    with pytest.raises(IndexError):
        ds[5]
    with h5py.File(tmp_path / "p.h5") as file:
        expected = {"format": "tinynst photos", "version": 1, "count": 5, "source": "photos", "side": 44}
        assert dict(file.attrs) == expected


def test_pack_skips_what_it_cannot_read_and_keeps_an_old_file_if_that_is_all(photos, tmp_path, capsys):
    out = tmp_path / "out" / "p.h5"
    spoil(photos, 0)
    assert pack(photos, out) == (4, 1) and "0.png" in capsys.readouterr().err
    assert np.abs(Packed(out)[0].astype(int) - picture(42, 60, 1)).mean() < 2
    before = out.read_bytes()
    spoil(photos, *range(5))
    with pytest.raises(UserError, match="none of the 5 photos"):
        pack(photos, out)
    assert out.read_bytes() == before and len(list(out.parent.iterdir())) == 1


def test_odd_photos_can_be_packed(tmp_path, capsys):
    Image.fromarray(picture(1, 1)).save(tmp_path / "1.png")
    Image.fromarray(picture(300, 400)).save(tmp_path / "0.png")
    Image.fromarray(picture(3, 2000)).save(tmp_path / "2.png")
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(tmp_path / "прозрачный.png")
    Image.new("L", (70000, 1)).save(tmp_path / "3.png")  # JPEG ends at 65535
    assert pack(tmp_path, tmp_path / "p.h5") == (4, 1)
    assert (tmp_path / "p.h5").stat().st_size < 288 * 384 * 3 / 4  # compact
    assert "3.png: (70000, 1) does not fit into a JPEG" in capsys.readouterr().err
    shapes = [p.shape[:2] for p in Packed(tmp_path / "p.h5")]
    assert shapes == [(288, 384), (1, 1), (3, 2000), (20, 30)]


def test_open_dataset(photos, tmp_path):
    pack(photos, tmp_path / "p.h5")
    assert isinstance(open_dataset(str(tmp_path / "p.h5")), Packed)
    assert open_dataset(photos, side=20)[0].shape == (20, 30, 3)
    wrong = {"missing": "no such file", "missing.h5": "no such file", "0.png": "neither a folder"}
    for name, message in wrong.items():
        with pytest.raises(UserError, match=f"{name}.* {message}"):
            open_dataset(photos / name)


def test_one_damaged_photo_is_named(photos, tmp_path):
    pack(photos, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        end = file["ends"][0]
        file["jpeg"][end : end + 200] = 0
    ds = Packed(tmp_path / "p.h5")
    assert ds[0].shape == (40, 60, 3)
    with pytest.raises(UserError, match="damaged, photo 1"):
        ds[1]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2000), (20, 90), (64, 64), (63, 65)])
def test_crop_of_any_size(height, width):
    image = picture(height, width)
    before = image.copy()
    for seed in range(3):
        out = crop(image, 64, np.random.default_rng(seed))
        assert out.shape == (64, 64, 3) and out.dtype == np.float32
        # bicubic interpolation overshoots a little
        assert int(image.min()) - 30 <= out.min() and out.max() <= int(image.max()) + 30
    np.testing.assert_array_equal(image, before)


def ramp(height, width):
    """Red is the column, green the row: a crop shows where it was cut."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_crop_without_scaling_is_cut_exactly_and_reaches_everywhere():
    places = set()
    for seed in range(200):
        out = crop(ramp(33, 34), 32, np.random.default_rng(seed), scale=(0, 0))
        flipped = bool(out[0, 0, 0] > out[0, -1, 0])
        out = out[:, ::-1] if flipped else out
        left, top = (int(value) for value in out[0, 0, :2])
        np.testing.assert_array_equal(out, ramp(33, 34)[top : top + 32, left : left + 32])
        places.add((top, left, flipped))
    assert places == {(top, left, flip) for top in range(2) for left in range(3) for flip in (True, False)}


def test_crop_scale_is_the_share_of_the_short_side():
    def widths(scale):
        outs = [crop(ramp(200, 250), 50, np.random.default_rng(seed), scale) for seed in range(60)]
        return np.array([np.ptp(out[25, :, 0]) for out in outs])

    assert (np.abs(widths((1, 1)) - 198) < 5).all()  # the whole short side
    assert (np.abs(widths((0, 0)) - 49) < 2).all()  # never less than the size asked for
    spread = widths((0.5, 1.0))
    assert 95 < spread.min() < 110 and 185 < spread.max() < 201


def take(n, *arguments, **options):
    with batches(*arguments, **options) as loaded:
        return [next(loaded) for _ in range(n)]


def test_batches_depend_on_seed_and_number_only(photos, tmp_path):
    spoil(photos, 2)  # a skipped photo shifts nothing
    whole = take(9, Folder(photos), 2, 32, seed=3)
    assert all(x.shape == (2, 32, 32, 3) and x.dtype == np.float32 for x in whole)
    np.testing.assert_array_equal(whole[6:], take(3, Folder(photos), 2, 32, seed=3, start=6))
    assert not np.array_equal(whole[:3], take(3, Folder(photos), 2, 32, seed=2))
    assert len({sample.tobytes() for sample in take(1, Folder(photos / "0.png"), 6, 32, seed=0)[0]}) > 3
    pack(photos, tmp_path / "p.h5")
    assert np.isfinite(take(2, Packed(tmp_path / "p.h5"), 2, 32, seed=5)).all()


class Numbers:
    """A dataset whose photo i is all i."""

    def __init__(self, n):
        self.n, self.read = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read.append(int(i))
        return np.full((8, 8, 3), i, np.uint8)


def test_every_epoch_shows_every_photo_once_in_another_order():
    values = np.concatenate(take(6, Numbers(8), 4, 8, seed=0))[:, 0, 0, 0].astype(int).reshape(3, 8)
    assert [sorted(epoch) for epoch in values] == [list(range(8))] * 3
    assert len({tuple(epoch) for epoch in values}) == 3
    large = take(1, Numbers(3), 7, 8, seed=0)[0][:, 0, 0, 0].astype(int)
    assert sorted(large[:3]) == sorted(large[3:6]) == [0, 1, 2]


def test_loads_ahead_on_a_thread_but_not_without_bound():
    def wait_for(condition):
        end = time.monotonic() + 10
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        return condition()

    numbers, threads = Numbers(100), threading.active_count()
    with batches(numbers, 2, 8, seed=0, ahead=3) as loaded:
        assert wait_for(lambda: len(numbers.read) == 6)
        time.sleep(0.05)
        assert len(numbers.read) == 6
        next(loaded)
        assert wait_for(lambda: len(numbers.read) == 8) and threading.active_count() == threads + 1
    assert threading.active_count() == threads


def test_command(photos, tmp_path, capsys):
    spoil(photos, 1)
    out = tmp_path / "p.h5"
    command.main([str(photos), str(out), "--side", "20"])
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 4 photos packed, 1 skipped, {out.stat().st_size / 1e6:.1f} MB\n"
    assert [line[:8] for line in printed.err.splitlines()] == ["warning:"]  # no progress bar off a terminal
    assert Packed(out)[0].shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "p.h5"], "missing: no such folder"),
        (["photos", "p.txt"], "must end in .h5"),
        (["photos", "folder.h5"], "is a folder"),
        (["photos/0.png", "p.h5"], "not a folder"),
        (["folder.h5", "p.h5"], "is an empty folder"),
        (["photos", "p.h5", "--side", "0"], "--side must be at least 1"),
        (["photos"], "required: OUT.h5"),
    ],
)
def test_command_ends_in_one_line(photos, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(SystemExit) as stop:
        run(command.main, "dataset", arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.h5", "photos"]


@pytest.mark.parametrize(("folder", "count"), [(samples.PHOTOS, 80), (samples.STYLES, 9)])
def test_every_sample_is_small_and_has_a_source_and_a_licence_that_allows_it(folder, count):
    with open(folder / "SOURCES.tsv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert set(lines[0]) == {"file", "licence", "author", "title", "source", "changes"}
    assert len(lines) == count and all(all(line.values()) for line in lines)
    assert sorted(line["file"] for line in lines) == [path.name for path in images.find(folder)]
    assert {line["licence"] for line in lines} <= {"CC0-1.0", "Public domain", "CC-BY-2.0", "CC-BY-4.0"}
    credits = (samples.PHOTOS / "LICENCES.txt").read_text(encoding="utf-8")
    assert all(line["file"] in credits for line in lines if line["licence"].startswith("CC-BY"))
    for path in images.find(folder):
        with Image.open(path) as file:
            assert max(file.size) <= 512 or (folder == samples.PHOTOS and min(file.size) <= 240)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2.5e6
