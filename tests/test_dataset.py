"""Datasets: what cannot be read is passed over, batches depend on seed and number only, packing is whole or nothing."""

import csv
import gc
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
from PIL import Image

from tinynst import samples
from tinynst.cli import run
from tinynst.data import images
from tinynst.data import photos as dataset
from tinynst.data.photos import Batches, Folder, Packed, crop, open_dataset, pack
from tinynst.errors import UserError


def photo(height, width, seed):
    """A smooth colour picture (H, W, 3) uint8, so that JPEG changes little."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def photos(tmp_path):
    """A folder of five photos: 0.png .. 4.png, 40 to 48 pixels high, 60 wide."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(photo(40 + 2 * i, 60, i)).save(folder / f"{i}.png")
    return folder


def spoil(folder, *numbers):
    for i in numbers:
        (folder / f"{i}.png").write_text("not an image")


# --- folder and packed ------------------------------------------------------------------------------------------------


def test_folder(photos):
    ds = Folder(photos)
    assert len(ds) == 5
    assert ds[3].dtype == np.uint8
    np.testing.assert_array_equal(ds[3], photo(46, 60, 3))
    np.testing.assert_array_equal(ds[-1], photo(48, 60, 4))
    assert len(list(ds)) == 5
    assert ds.skipped == 0
    with pytest.raises(IndexError):
        ds[5]


def test_folder_can_shrink(photos):
    assert [p.shape for p in Folder(photos, side=44)] == [
        (40, 60, 3),
        (42, 60, 3),
        (44, 60, 3),
        (44, 57, 3),
        (44, 55, 3),
    ]


def test_unreadable_photos_are_skipped_with_one_warning_each(photos, capsys):
    spoil(photos, 1, 4)
    ds = Folder(photos)
    for _ in range(3):
        np.testing.assert_array_equal(ds[1], ds[2])  # the next that can be read stands in
        np.testing.assert_array_equal(ds[4], ds[0])
    assert ds.skipped == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(
        line.startswith("warning: photo skipped: ") and name in line
        for line, name in zip(lines, ["1.png", "4.png"], strict=True)
    )


def test_stand_in_does_not_depend_on_what_was_read_before(photos):
    spoil(photos, 1, 2)
    forward, backward = Folder(photos, report=str), Folder(photos, report=str)
    there = [forward[i] for i in range(5)]
    back = [backward[i] for i in reversed(range(5))][::-1]
    for a, b in zip(there, back, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_readable(photos):
    spoil(photos, *range(5))
    with pytest.raises(UserError, match="none of the 5 photos"):
        Folder(photos, report=str)[0]


def test_pack_and_read_back(photos, tmp_path):
    done = pack(photos, tmp_path / "p.h5", side=44)
    ds = Packed(tmp_path / "p.h5")
    assert done == (5, 0, (tmp_path / "p.h5").stat().st_size)
    assert len(ds) == 5
    for i, expected in enumerate(Folder(photos, side=44)):
        assert ds[i].dtype == np.uint8
        assert ds[i].shape == expected.shape  # smaller photos are not enlarged
        assert np.abs(ds[i].astype(int) - expected).mean() < 2
    np.testing.assert_array_equal(ds[-1], ds[4])
    with pytest.raises(IndexError):
        ds[5]
    assert ds.skipped == 0
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
    for i in range(8):
        Image.fromarray(photo(300, 400, i)).save(tmp_path / f"{i}.png")
    done = pack(tmp_path, tmp_path / "p.h5")
    assert done.bytes < 8 * 288 * 384 * 3 / 5
    assert {p.shape for p in Packed(tmp_path / "p.h5")} == {(288, 384, 3)}


def test_pack_skips_what_it_cannot_read(photos, tmp_path):
    spoil(photos, 0)
    reports = []
    done = pack(photos, tmp_path / "p.h5", report=reports.append)
    assert done[:2] == (4, 1)
    assert len(reports) == 1
    assert "0.png" in reports[0]
    assert np.abs(Packed(tmp_path / "p.h5")[0].astype(int) - photo(42, 60, 1)).mean() < 2


def test_pack_that_fails_leaves_the_old_file(photos, tmp_path):
    out = tmp_path / "out" / "p.h5"
    pack(photos, out)
    before = out.read_bytes()
    spoil(photos, *range(5))
    with pytest.raises(UserError, match="none of the 5 photos"):
        pack(photos, out, report=str)
    assert out.read_bytes() == before
    assert len(list(out.parent.iterdir())) == 1


def test_pack_replaces_the_old_file(photos, tmp_path):
    (tmp_path / "p.h5").write_text("old")
    pack(photos, tmp_path / "p.h5")
    assert len(Packed(tmp_path / "p.h5")) == 5


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("photos", "p.hdf", "must end in .h5"),
        ("photos", "folder.h5", "this is a folder"),
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
    Image.fromarray(photo(1, 1, 0)).save(tmp_path / "1.png")
    Image.fromarray(photo(3, 2000, 1)).save(tmp_path / "2.png")
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(tmp_path / "прозрачный.png")
    Image.new("L", (70000, 1)).save(tmp_path / "3.png")  # JPEG ends at 65535
    reports = []
    assert pack(tmp_path, tmp_path / "p.h5", report=reports.append)[:2] == (3, 1)
    assert "does not fit into a JPEG" in reports[0]
    assert [p.shape for p in Packed(tmp_path / "p.h5")] == [(1, 1, 3), (3, 2000, 3), (20, 30, 3)]


# --- opening ----------------------------------------------------------------------------------------------------------


def test_open_dataset_goes_by_what_it_is(photos, tmp_path):
    pack(photos, tmp_path / "p.h5")
    assert isinstance(open_dataset(str(tmp_path / "p.h5")), Packed)
    ds = open_dataset(photos, side=20)
    assert isinstance(ds, Folder)
    assert ds[0].shape == (20, 30, 3)


@pytest.mark.parametrize("name", ["missing", "missing.h5", "0.png"])
def test_open_dataset_refuses(photos, name):
    with pytest.raises(UserError, match=rf"{name}(: no such file|: neither a folder| does not exist)"):
        open_dataset(photos / name)


def test_wrong_h5_says_what_it_should_hold(photos, tmp_path):
    path = tmp_path / "p.h5"
    path.write_text("text")
    with pytest.raises(UserError, match=r"not an HDF5 file; expected packed photos.*tinynst\.dataset FOLDER"):
        open_dataset(path)
    with h5py.File(path, "w") as file:
        file["block1_conv1"] = np.zeros(3)
    with pytest.raises(UserError, match=r"an HDF5 file of some other program; expected packed photos"):
        open_dataset(path)
    pack(photos, path)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 9
    with pytest.raises(UserError, match="version 9 of 'tinynst photos', this program reads up to 1"):
        open_dataset(path)


def test_damaged_packed_file(photos, tmp_path):
    path = tmp_path / "p.h5"
    pack(photos, path)
    with h5py.File(path, "r+") as file:
        end = file["ends"][0]
        file["jpeg"][end : end + 200] = 0
    ds = Packed(path)
    assert ds[0].shape == (40, 60, 3)
    with pytest.raises(UserError, match="damaged, photo 1"):
        ds[1]
    ds.close()
    with h5py.File(path, "r+") as file:
        file["jpeg"].resize((100,))
    with pytest.raises(UserError, match="is damaged, photos are missing"):
        Packed(path)
    with h5py.File(path, "r+") as file:
        del file["jpeg"]
    with pytest.raises(UserError, match="is damaged"):
        Packed(path)


# --- crop -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (3, 2000), (2000, 3), (20, 90), (64, 64), (63, 65), (300, 400)]
)
def test_crop_of_any_size(height, width):
    image = photo(height, width, 0)
    before = image.copy()
    for seed in range(5):
        out = crop(image, 64, np.random.default_rng(seed))
        assert out.shape == (64, 64, 3)
        assert out.dtype == np.float32
        assert out.min() >= int(image.min()) - 30  # bicubic swings a little over
        assert out.max() <= int(image.max()) + 30
    np.testing.assert_array_equal(image, before)


def ramp(height, width):
    """Red is the column, green the row: a crop shows where it was cut."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_crop_without_scaling_is_cut_exactly_and_reaches_everywhere():
    corners, flips = set(), set()
    for seed in range(300):
        out = crop(ramp(34, 36), 32, np.random.default_rng(seed), scale=(0, 0))
        flipped = out[0, 0, 0] > out[0, -1, 0]
        left, top = out[0, -1 if flipped else 0, 0], out[0, 0, 1]
        expected = ramp(34, 36)[int(top) : int(top) + 32, int(left) : int(left) + 32]
        np.testing.assert_array_equal(out[:, ::-1] if flipped else out, expected)
        corners.add((int(top), int(left)))
        flips.add(bool(flipped))
    assert corners == {(top, left) for top in range(3) for left in range(5)}
    assert flips == {True, False}


def test_crop_scale_is_the_share_of_the_short_side():
    def widths(scale):
        outs = [crop(ramp(200, 250), 50, np.random.default_rng(seed), scale) for seed in range(100)]
        return np.array([np.ptp(out[25, :, 0]) for out in outs])

    assert (np.abs(widths((1, 1)) - 198) < 5).all()  # the whole short side
    assert (np.abs(widths((0, 0)) - 49) < 2).all()  # never less than the size asked for
    spread = widths((0.5, 1.0))
    assert 95 < spread.min() < 110
    assert 185 < spread.max() < 201


@pytest.mark.parametrize("scale", [(0.9, 0.5), (-1, 1), (0, 2)])
def test_crop_refuses_a_scale(scale):
    with pytest.raises(ValueError, match="scale must be"):
        crop(photo(9, 9, 0), 4, np.random.default_rng(0), scale)


# --- batches ----------------------------------------------------------------------------------------------------------


def take(n, *arguments, **options):
    with Batches(*arguments, **options) as batches:
        return [next(batches) for _ in range(n)]


def test_batches(photos):
    first = take(4, Folder(photos), 2, 32, seed=1)
    assert all(b.shape == (2, 32, 32, 3) and b.dtype == np.float32 for b in first)
    np.testing.assert_array_equal(first, take(4, Folder(photos), 2, 32, seed=1))
    assert not np.array_equal(first, take(4, Folder(photos), 2, 32, seed=2))


def test_resumed_run_gets_the_batches_of_an_unbroken_one(photos):
    whole = take(9, Folder(photos), 2, 32, seed=3)
    np.testing.assert_array_equal(whole[6:], take(3, Folder(photos), 2, 32, seed=3, start=6))


def test_a_skipped_photo_does_not_shift_a_resumed_run(photos):
    spoil(photos, 2)
    whole = take(9, Folder(photos, report=str), 2, 32, seed=3)
    np.testing.assert_array_equal(whole[6:], take(3, Folder(photos, report=str), 2, 32, seed=3, start=6))


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


def test_batch_larger_than_the_dataset():
    (batch,) = take(1, Numbers(3), 7, 8, seed=0)
    values = batch[:, 0, 0, 0].astype(int)
    assert sorted(values[:3]) == sorted(values[3:6]) == [0, 1, 2]


def test_a_photo_is_cut_differently_each_time(photos):
    (batch,) = take(1, Folder(photos / "0.png"), 6, 32, seed=0)
    assert len({sample.tobytes() for sample in batch}) > 3


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("tinynst-batches")]


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_loads_ahead_on_a_thread_but_not_without_bound():
    numbers = Numbers(100)
    with Batches(numbers, 2, 8, seed=0, ahead=3) as batches:
        assert wait_for(lambda: len(numbers.read) == 6)
        time.sleep(0.05)
        assert len(numbers.read) == 6
        next(batches)
        assert wait_for(lambda: len(numbers.read) == 8)
        assert len(threads()) == 1
    assert threads() == []
    batches.close()
    assert list(batches) == []


def test_thread_ends_when_the_iterator_is_collected():
    batches = Batches(Numbers(5), 2, 8, seed=0)
    next(batches)
    assert len(threads()) == 1
    del batches
    gc.collect()
    assert wait_for(lambda: threads() == [])


def test_error_on_the_thread_reaches_the_consumer(photos):
    ds = Folder(photos, report=str)
    spoil(photos, *range(5))
    with Batches(ds, 2, 32, seed=0) as batches, pytest.raises(UserError, match="none of the 5 photos"):
        next(batches)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"size": 0}, {"seed": -1}, {"start": -1}])
def test_batches_refuse(wrong):
    with pytest.raises(ValueError, match="at least"):
        Batches(Numbers(3), **{"batch": 1, "size": 8, "seed": 0, **wrong})


def test_packed_batches(photos, tmp_path):
    pack(photos, tmp_path / "p.h5")
    ds = Packed(tmp_path / "p.h5")
    folder, packed = (np.stack(take(3, each, 2, 32, seed=5)) for each in (Folder(photos), ds))
    assert np.abs(folder - packed).mean() < 2
    ds.close()


# --- command ----------------------------------------------------------------------------------------------------------


def test_command(photos, tmp_path):
    spoil(photos, 1)
    out = tmp_path / "p.h5"
    command = [sys.executable, "-m", "tinynst.dataset", str(photos), str(out), "--side", "20"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == f"{out}: 4 photos packed, 1 skipped, {out.stat().st_size / 1e6:.1f} MB\n"
    assert [line[:8] for line in done.stderr.splitlines()] == ["warning:"]  # no progress bar off a terminal
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
        run(dataset.main, "dataset", arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


# --- what ships -------------------------------------------------------------------------------------------------------

ALLOWED = {"CC0-1.0", "Public domain", "CC-BY-2.0", "CC-BY-4.0"}


@pytest.mark.parametrize(("folder", "count"), [(samples.PHOTOS, 80), (samples.STYLES, 9)])
def test_every_sample_has_a_source_and_a_licence_that_allows_it(folder, count):
    with open(folder / "SOURCES.tsv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert set(lines[0]) == {"file", "licence", "author", "title", "source", "changes"}
    assert all(all(line.values()) for line in lines)
    assert sorted(line["file"] for line in lines) == [path.name for path in images.find(folder)]
    assert len(lines) == count
    assert {line["licence"] for line in lines} <= ALLOWED
    credits = (samples.PHOTOS / "LICENCES.txt").read_text(encoding="utf-8")
    assert all(line["file"] in credits for line in lines if line["licence"].startswith("CC-BY"))


@pytest.mark.parametrize("folder", [samples.PHOTOS, samples.STYLES])
def test_samples_are_small(folder):
    for path in images.find(folder):
        assert max(images.load(path).shape) <= 512 or min(images.load(path).shape[:2]) <= 240
        if folder == samples.STYLES:
            assert max(images.load(path).shape) <= 512
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2.5e6
