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

from ..errors import UserError
from . import images
from .files import check_file, written_whole
from .hdf5 import check_header, open_hdf5

FORMAT, VERSION = "tinynst photos", 1
EXPECTED = "packed photos; make it with: python -m tinynst.dataset FOLDER OUT.h5"
ROOM = 16 << 20  # bytes of the disk that packing leaves free


def warn(message):
    """Print "warning: message" on standard error, above a progress bar if there is one."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


class _Photos:
    """len(ds), and ds[i] -> (H, W, 3) uint8 RGB: `_read(i)` of `_count` photos. ds.skipped cannot be read."""

    skipped = 0

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        return self._read(range(self._count)[i])  # negative numbers count from the end


class Folder(_Photos):
    """The photos in and below a folder, decoded on access.

    side: photos with a longer short side are shrunk to it, so that large JPEGs are decoded several times
        faster (None: full size)

    A photo that cannot be read is reported once through `report`, counted in `ds.skipped`, and replaced by
    the next one that can be read, the same one in every run. Raises UserError for a missing path, a folder
    without images, and if no photo can be read.
    """

    def __init__(self, path, side=None, report=warn):
        self.path, self.side, self.report = Path(path), side, report
        self.files = images.find(path)
        self._count, self._bad = len(self.files), set()

    @property
    def skipped(self):
        return len(self._bad)

    def _read(self, i):
        for k in itertools.chain(range(i, len(self)), range(i)):
            if k not in self._bad:
                try:
                    return np.asarray(images.open_rgb(self.files[k], self.side, enlarge=False))
                except UserError as error:
                    self._bad.add(k)
                    self.report(f"photo skipped: {error}")
        raise UserError(f"{self.path}: none of the {len(self)} photos can be read (see the warnings above)")


class Packed(_Photos):
    """The photos of a file that `pack` wrote. Raises UserError for a file that is missing, of another kind,
    or damaged."""

    def __init__(self, path):
        self.path = Path(path)
        with open_hdf5(path, EXPECTED) as file:
            check_header(file, path, FORMAT, VERSION, EXPECTED)
            self._ends = ends = np.asarray(file["ends"][()])
            rising = ends.ndim == 1 and len(ends) and np.all(np.diff(ends, prepend=0) > 0)
            if not rising or ends[-1] != len(file["jpeg"]):
                raise UserError(f"{path} is damaged, photos are missing; expected {EXPECTED}")
        self._count, self._file = len(ends), h5py.File(path, "r")

    def _read(self, i):
        start = self._ends[i - 1] if i else 0
        try:
            jpeg = self._file["jpeg"][start : self._ends[i]].tobytes()
            return np.asarray(images.open_rgb(io.BytesIO(jpeg)))
        except (UserError, OSError) as error:
            raise UserError(f"{self.path}: damaged, photo {i} cannot be read; expected {EXPECTED}") from error

    def close(self):
        """Close the file."""
        self._file.close()


def open_dataset(path, side=None, report=warn):
    """Folder(path, side, report) for a folder, Packed(path) for an .h5 file; UserError for anything else.

    `side` does not apply to a packed file: it was chosen when the file was packed.
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path, side, report)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return Packed(path)
    what = "neither a folder of photos nor an .h5 file of packed ones"
    if not path.exists():
        what = "no such file or folder: give a folder of photos or an .h5 file of packed ones"
    raise UserError(f"{path}: {what}")


def crop(photo, size, rng, scale=(0.5, 1.0)):
    """A random square of `photo` (H, W, 3) uint8, flipped half the time: (size, size, 3) float32, 0..255.

    The side of the square is drawn uniformly from scale[0] to scale[1] times the photo's short side, but is
    at least `size` if the photo allows it, so that details are shrunk and not enlarged; then it is resized
    (bicubic). Raises ValueError unless 0 <= scale[0] <= scale[1] <= 1.
    """
    if not 0 <= scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be (low, high) with 0 <= low <= high <= 1, not {scale}")
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
    """`with batches(...) as b`: an endless iterator of (batch, size, size, 3) float32, 0..255.

    Batch k depends on (seed, k) only: a run that resumes with start=k gets the batches that it would have got
    without the interruption. An epoch is a permutation of the photos; a batch may span two epochs. `ahead`
    batches are loaded ahead on a background thread, which ends with the block. An error while loading is
    raised by next(), ValueError for a wrong argument.
    """
    if min(batch, size, ahead) < 1 or min(seed, start) < 0:
        rule = "batch, size and ahead must be at least 1, seed and start at least 0"
        raise ValueError(f"{rule}, not {batch}, {size}, {ahead}, {seed} and {start}")
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


Packing = collections.namedtuple("Packing", "packed skipped bytes")


def pack(folder, out, side=288, report=warn):
    """Write the photos in and below `folder` into the HDF5 file `out`, short side at most `side` pixels.

    Layout: dataset "jpeg", uint8, all photos as JPEG (quality 95), one after the other; dataset "ends",
    int64, where each ends; attributes format, version, count, source, side. At 288 pixels a photo takes 55 kB
    (raw pixels: 351 kB) and 0.7 ms to decode, little next to a training step.

    A photo that cannot be read or stored is reported through `report` and left out. Returns Packing(packed,
    skipped, bytes of the file). Raises UserError, and leaves an old file as it is, if nothing can be packed.
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
                try:
                    data = _as_jpeg(path, side)
                except UserError as error:
                    report(f"photo skipped: {error}")
                    continue
                if shutil.disk_usage(temporary.parent).free < len(data) + ROOM:  # HDF5 would crash
                    raise UserError(f"{out}: no room on the disk after {len(ends)} photos; it is not written")
                start = len(jpeg)
                ends.append(start + len(data))
                jpeg.resize((ends[-1],))
                jpeg[start:] = np.frombuffer(data, np.uint8)
            if not ends:
                raise UserError(f"{folder}: none of the {len(files)} photos can be read; nothing is written")
            file["ends"] = np.array(ends, np.int64)
            source = folder.resolve().name
            file.attrs.update(format=FORMAT, version=VERSION, count=len(ends), source=source, side=side)
    return Packing(len(ends), len(files) - len(ends), out.stat().st_size)


def _as_jpeg(path, side):
    """The photo at `path` as the bytes of a JPEG, its short side at most `side`."""
    photo, data = images.open_rgb(path, side, enlarge=False), io.BytesIO()
    try:
        photo.save(data, "JPEG", quality=95)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {photo.width}x{photo.height} does not fit into a JPEG ({error})") from error
    return data.getvalue()
