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
        Folder(photos, report=str)[0]


def test_pack_and_read_back(photos, tmp_path):
    (tmp_path / "p.h5").write_text("old")
    done = pack(photos, tmp_path / "p.h5", side=44)
    ds = Packed(tmp_path / "p.h5")
    assert done == (5, 0, (tmp_path / "p.h5").stat().st_size) and len(ds) == 5 and ds.skipped == 0
    for photo, expected in zip(ds, Folder(photos, side=44), strict=True):
        assert photo.dtype == np.uint8 and photo.shape == expected.shape  # smaller photos are not enlarged
        assert np.abs(photo.astype(int) - expected).mean() < 2
    np.testing.assert_array_equal(ds[-1], ds[4])
    with pytest.raises(IndexError):
        ds[5]
    ds.close()
    with h5py.File(tmp_path / "p.h5") as file:
        attributes = dict(file.attrs)
    assert attributes == {
        "format": "tinynst photos",
        "version": 1,
        "count": 5,
        "source": "photos",
        "side": 44,
    }


def test_pack_is_compact(tmp_path):
    Image.fromarray(picture(300, 400)).save(tmp_path / "a.png")
    assert pack(tmp_path, tmp_path / "p.h5").bytes < 288 * 384 * 3 / 4
    assert Packed(tmp_path / "p.h5")[0].shape == (288, 384, 3)


def test_pack_skips_what_it_cannot_read_and_keeps_an_old_file_if_that_is_all(photos, tmp_path):
    out, reports = tmp_path / "out" / "p.h5", []
    spoil(photos, 0)
    assert pack(photos, out, report=reports.append)[:2] == (4, 1)
    assert len(reports) == 1 and "0.png" in reports[0]
    assert np.abs(Packed(out)[0].astype(int) - picture(42, 60, 1)).mean() < 2
    before = out.read_bytes()
    spoil(photos, *range(5))
    with pytest.raises(UserError, match="none of the 5 photos"):
        pack(photos, out, report=str)
    assert out.read_bytes() == before and len(list(out.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("photos", "p.hdf", "must end in .h5"),
        ("photos", "folder.h5", "is a folder"),
        ("missing", "p.h5", "no such folder"),
        ("photos/0.png", "p.h5", "not a folder"),
        ("empty", "p.h5", "is an empty folder"),
        ("texts", "p.h5", "holds 1 file but no image"),
    ],
)
def test_pack_refuses(photos, tmp_path, folder, out, message):
    for name in ("folder.h5", "empty", "texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    with pytest.raises(UserError, match=message):
        pack(tmp_path / folder, tmp_path / out)
    assert not (tmp_path / out).is_file()


def test_odd_photos_can_be_packed(tmp_path):
    Image.fromarray(picture(1, 1)).save(tmp_path / "1.png")
    Image.fromarray(picture(3, 2000)).save(tmp_path / "2.png")
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(tmp_path / "прозрачный.png")
    Image.new("L", (70000, 1)).save(tmp_path / "3.png")  # JPEG ends at 65535
    reports = []
    assert pack(tmp_path, tmp_path / "p.h5", report=reports.append)[:2] == (3, 1)
    assert "does not fit into a JPEG" in reports[0]
    assert [p.shape for p in Packed(tmp_path / "p.h5")] == [(1, 1, 3), (3, 2000, 3), (20, 30, 3)]


def test_open_dataset(photos, tmp_path):
    pack(photos, tmp_path / "p.h5")
    assert isinstance(open_dataset(str(tmp_path / "p.h5")), Packed)
    assert open_dataset(photos, side=20)[0].shape == (20, 30, 3)
    wrong = {"missing": "no such file", "missing.h5": "does not exist", "0.png": "neither a folder"}
    for name, message in wrong.items():
        with pytest.raises(UserError, match=f"{name}.* {message}"):
            open_dataset(photos / name)


def test_packed_files_that_are_wrong_or_damaged(photos, tmp_path):
    path = tmp_path / "p.h5"

    def refused(message):
        with pytest.raises(UserError, match=message):
            open_dataset(path)

    path.write_text("text")
    refused(r"not an HDF5 file; expected packed photos.*tinynst\.dataset FOLDER")
    with h5py.File(path, "w") as file:
        file["block1_conv1"] = np.zeros(3)
    refused("an HDF5 file of some other program; expected packed photos")
    pack(photos, path)
    with h5py.File(path, "r+") as file:
        end = file["ends"][0]
        file["jpeg"][end : end + 200] = 0
    ds = Packed(path)
    assert ds[0].shape == (40, 60, 3)
    with pytest.raises(UserError, match="damaged, photo 1"):
        ds[1]
    ds.close()
    for damage, message in (
        (lambda file: file["jpeg"].resize((100,)), "is damaged, photos are missing"),
        (lambda file: file.pop("jpeg"), "is damaged"),
        (
            lambda file: file.attrs.update(version=9),
            "version 9 of 'tinynst photos', this program reads up to 1",
        ),
    ):
        with h5py.File(path, "r+") as file:
            damage(file)
        refused(message)


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
    with pytest.raises(ValueError, match="scale must be"):
        crop(image, 4, np.random.default_rng(0), (0.9, 0.5))


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
    whole = take(9, Folder(photos, report=str), 2, 32, seed=3)
    assert all(b.shape == (2, 32, 32, 3) and b.dtype == np.float32 for b in whole)
    np.testing.assert_array_equal(whole[6:], take(3, Folder(photos, report=str), 2, 32, seed=3, start=6))
    assert not np.array_equal(whole[:3], take(3, Folder(photos, report=str), 2, 32, seed=2))
    assert len({sample.tobytes() for sample in take(1, Folder(photos / "0.png"), 6, 32, seed=0)[0]}) > 3
    pack(photos, tmp_path / "p.h5", report=str)
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


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_loads_ahead_on_a_thread_but_not_without_bound():
    numbers, threads = Numbers(100), threading.active_count()
    with batches(numbers, 2, 8, seed=0, ahead=3) as loaded:
        assert wait_for(lambda: len(numbers.read) == 6)
        time.sleep(0.05)
        assert len(numbers.read) == 6
        next(loaded)
        assert wait_for(lambda: len(numbers.read) == 8) and threading.active_count() == threads + 1
    assert threading.active_count() == threads


def test_errors_of_batches(photos):
    ds = Folder(photos, report=str)
    spoil(photos, *range(5))
    with batches(ds, 2, 32, seed=0) as loaded, pytest.raises(UserError, match="none of the 5 photos"):
        next(loaded)
    for wrong in ({"batch": 0}, {"size": 0}, {"seed": -1}, {"start": -1}):
        with pytest.raises(ValueError, match="at least"):
            take(1, Numbers(3), **{"batch": 1, "size": 8, "seed": 0, **wrong})


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
        (["photos", "p.h5", "--side", "0"], "--side must be at least 1"),
        (["photos"], "required: OUT.h5"),
    ],
)
def test_command_ends_in_one_line(photos, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(command.main, "dataset", arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


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
