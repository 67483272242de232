"""Photos to train on: from a folder or packed into one HDF5 file, cropped at random, loaded ahead."""

import collections
import contextlib
import functools
import io
import itertools
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import UserError, printable
from . import images
from .files import check_file, written_whole
from .hdf5 import open_hdf5

FORMAT, VERSION = "tinynst photos", 1
EXPECTED = "packed photos; make it with: python -m tinynst.dataset FOLDER OUT.h5"
ROOM = 16 << 20  # bytes of the disk that packing leaves free
JPEG = 64 << 20  # bytes: no photo takes more


def warn(message):
    """Print "warning: message" on standard error, above a progress bar if there is one."""
    tqdm.write(f"warning: {printable(message)}", file=sys.stderr)


class Folder:
    """The photos in and below a folder, decoded on access: len(ds), and ds[i] -> (H, W, 3) uint8 RGB.

    side: photos with a longer short side are shrunk to it, which also makes large JPEGs faster to decode

    A photo that cannot be read is reported once, counted in `ds.skipped`, and replaced by the next that can
    be read, the same in every run. Raises UserError if there is none.
    """

    def __init__(self, path, side=None):
        self.path, self.side = Path(path), side
        self.files, self._bad = images.find(path), set()

    def __len__(self):
        return len(self.files)

    @property
    def skipped(self):
        return len(self._bad)

    def __getitem__(self, i):
        i = range(len(self))[i]  # negative numbers count from the end, too large ones raise IndexError
        for k in itertools.chain(range(i, len(self)), range(i)):
            if k not in self._bad:
                try:
                    return np.asarray(images.open_rgb(self.files[k], self.side, enlarge=False))
                except UserError as error:
                    self._bad.add(k)
                    warn(f"photo skipped: {error}")
        raise UserError(f"{self.path}: none of the {len(self)} photos can be read (see the warnings above)")


class Packed:
    """The photos of a file that `pack` wrote, as in Folder. Raises UserError if it is not such a file."""

    skipped = 0

    def __init__(self, path):
        self.path = Path(path)
        with open_hdf5(path, EXPECTED) as file:
            file.check_header(FORMAT, VERSION)
            self._ends = ends = file.array("ends", "whole numbers", ("N",)).astype(np.int64)
            jpeg, sizes = file.dataset("jpeg", "bytes", ("N",)), np.diff(ends, prepend=0)
            whole = len(ends) and 0 < sizes.min() and sizes.max() < JPEG and ends[-1] == len(jpeg)
            if not whole or jpeg.id.get_storage_size() < len(jpeg):
                raise UserError(f"{path} is damaged, photos are missing; expected {EXPECTED}")
        self._file = h5py.File(path, "r")

    def __len__(self):
        return len(self._ends)

    def __getitem__(self, i):
        i = range(len(self))[i]
        jpeg = slice(self._ends[i - 1] if i else 0, self._ends[i])
        try:
            return np.asarray(images.open_rgb(io.BytesIO(self._file["jpeg"][jpeg].tobytes())))
        except Exception as error:  # h5py raises errors of any kind on damaged files
            raise UserError(f"{self.path}: damaged, photo {i} cannot be read; expected {EXPECTED}") from error


def open_dataset(path, side=None):
    """Folder(path, side) for a folder, Packed(path), packed with its own side, for an .h5 file."""
    path = Path(path)
    if path.is_dir():
        return Folder(path, side)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return Packed(path)
    what = "neither a folder nor a packed file" if path.exists() else "no such file or folder"
    raise UserError(f"{path}: {what}: give a folder of photos or an .h5 file of packed ones")


def crop(photo, size, rng, scale=(0.5, 1.0)):
    """A random square of `photo` (H, W, 3) uint8, flipped half the time: (size, size, 3) float32, 0..255.

    The side of the square is drawn uniformly from scale[0] to scale[1] times the photo's short side, but is
    at least `size` if the photo allows it, so that details are shrunk and not enlarged (bicubic).
    """
    height, width = photo.shape[:2]
    short = min(height, width)
    low, high = (min(max(round(s * short), size), short) for s in scale)
    window = rng.integers(low, high + 1)
    top, left = rng.integers(height - window + 1), rng.integers(width - window + 1)
    square = photo[top : top + window, left : left + window]
    if rng.integers(2):
        square = square[:, ::-1]
    if window == size:
        return square.astype(np.float32)
    square = Image.fromarray(np.ascontiguousarray(square))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), np.float32)


@contextlib.contextmanager
def batches(dataset, batch, size, seed, start=0, scale=(0.5, 1.0), ahead=3):
    """`with batches(...) as loaded`: an endless iterator of (batch, size, size, 3) float32, 0..255.

    Batch k depends on (seed, k) only, so a run resumes at start=k with the same batches. An epoch is a
    permutation of the photos; a batch may span two. `ahead` batches are loaded ahead on a background thread,
    which ends with the block. Errors while loading are raised by next().
    """
    # One thread is enough: Pillow decodes without the interpreter lock, and a step takes longer.
    pool, load = ThreadPoolExecutor(1), functools.partial(_batch, dataset, batch, size, seed, scale)
    waiting = collections.deque(pool.submit(load, k) for k in range(start, start + ahead))

    def loaded():
        for k in itertools.count(start + ahead):
            first = waiting.popleft()
            waiting.append(pool.submit(load, k))
            yield first.result()

    try:
        yield loaded()
    finally:
        pool.shutdown(cancel_futures=True)


def _batch(dataset, batch, size, seed, scale, k):
    """Batch number k: samples k * batch to (k + 1) * batch - 1, counted from the start of training."""
    samples = []
    for number in range(k * batch, (k + 1) * batch):
        epoch, place = divmod(number, len(dataset))
        photo = dataset[_order(seed, epoch, len(dataset))[place]]
        samples.append(crop(photo, size, np.random.default_rng((seed, 1, number)), scale))
    return np.stack(samples)


@functools.lru_cache(maxsize=4)
def _order(seed, epoch, count):
    """The order of the photos in an epoch. 0 here and 1 in `_batch` make two independent random streams."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


def pack(folder, out, side=288):
    """Write the photos in and below `folder` into the HDF5 file `out`, short side at most `side` pixels.

    Dataset "jpeg", uint8, holds all photos as JPEG (quality 95), one after the other; "ends", int64, where
    each ends. At 288 pixels a photo takes 55 kB (raw: 351 kB) and 0.7 ms to decode.

    A photo that cannot be read or stored is reported and left out. Returns how many were (packed, left out).
    Raises UserError, and leaves an old file as it is, if nothing can be packed.
    """
    out, folder = check_file(out, (".h5",)), Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: " + ("not a folder" if folder.exists() else "no such folder"))
    if side < 1:
        raise UserError(f"--side must be at least 1 pixel, not {side}")
    files, ends = images.find(folder), []
    with written_whole(out) as temporary:
        with h5py.File(temporary, "w") as file:
            jpeg = file.create_dataset("jpeg", (0,), np.uint8, maxshape=(None,), chunks=(1 << 16,))
            for path in tqdm(files, "packing", unit=" photos", disable=None):  # None: only on a terminal
                data = io.BytesIO()
                try:
                    photo = images.open_rgb(path, side, enlarge=False)
                    photo.save(data, "JPEG", quality=95)
                except UserError as error:
                    warn(f"photo skipped: {error}")
                    continue
                except (OSError, ValueError) as error:
                    warn(f"photo skipped: {path}: {photo.size} does not fit into a JPEG ({error})")
                    continue
                data = np.frombuffer(data.getbuffer(), np.uint8)
                if shutil.disk_usage(temporary.parent).free < len(data) + ROOM:  # HDF5 would crash
                    raise UserError(f"{out}: no room on the disk after {len(ends)} photos; it is not written")
                ends.append(len(jpeg) + len(data))
                jpeg.resize((ends[-1],))
                jpeg[ends[-1] - len(data) :] = data
            if not ends:
                raise UserError(f"{folder}: none of the {len(files)} photos can be read; nothing is written")
            file["ends"] = np.array(ends, np.int64)
            source = folder.resolve().name
            file.attrs.update(format=FORMAT, version=VERSION, count=len(ends), source=source, side=side)
    return len(ends), len(files) - len(ends)
