"""Photos to train on: from a folder or packed into one HDF5 file, cropped at random, loaded ahead.

As a command, `python -m tinynst.dataset FOLDER OUT.h5` packs a folder: every photo is shrunk and stored once, so that
training reads a few kilobytes a photo from one file instead of megabytes from thousands.
"""

import collections
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

from ..cli import Parser
from ..errors import UserError
from . import images
from .files import written_whole
from .weights import check_header, open_hdf5

FORMAT, VERSION = "tinynst photos", 1
ROOM = 16 << 20  # bytes of a disk that are left free


def warn(message):
    """Print "warning: message" on standard error, above a progress bar if there is one."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


# --- photos by number -------------------------------------------------------------------------------------------------


class Folder:
    """The photos below a folder, decoded when asked for: len(ds), and ds[i] -> (H, W, 3) uint8 RGB.

    side: photos whose short side is longer come with it shrunk to this (a large JPEG is then several times faster to
    decode); None leaves them as they are. A photo that cannot be read is reported once through `report`, counted in
    `ds.skipped`, and the next one that can be read takes its place, the same one in every run.
    Raises UserError for a path that is not there, a folder without images, and when no photo at all can be read.
    """

    def __init__(self, path, side=None, report=warn):
        self.path, self.side, self.report = Path(path), side, report
        self.files = images.find(path)
        self._bad = set()

    def __len__(self):
        return len(self.files)

    @property
    def skipped(self):
        """How many photos could not be read so far."""
        return len(self._bad)

    def __getitem__(self, i):
        i = range(len(self))[i]  # negative numbers count from the end, others too large raise IndexError
        for number in itertools.chain(range(i, len(self)), range(i)):
            photo = None if number in self._bad else self._read(number)
            if photo is not None:
                return photo
        raise UserError(
            f"{self.path}: none of the {len(self)} photos can be read (the warnings above say why)"
        )

    def _read(self, number):
        """Photo `number`, or None if it cannot be read."""
        try:
            return np.asarray(images.open_rgb(self.files[number], self.side, enlarge=False))
        except UserError as error:
            self._bad.add(number)
            self.report(f"photo skipped: {error}")
            return None


class Packed:
    """The photos of a file that `pack` wrote: len(ds), and ds[i] -> (H, W, 3) uint8 RGB. `ds.skipped` is always 0.

    Raises UserError for a file that is missing, is not HDF5, holds something else, or is damaged.
    """

    skipped = 0

    def __init__(self, path):
        self.path = Path(path)
        expected = f"packed photos; {_HOW_TO_MAKE}"
        with open_hdf5(path, expected) as file:
            check_header(file, path, FORMAT, VERSION, expected)
            ends = np.asarray(file["ends"][()])
            if (
                ends.ndim != 1
                or not len(ends)
                or np.any(np.diff(ends, prepend=0) <= 0)
                or ends[-1] != len(file["jpeg"])
            ):
                raise UserError(f"{path} is damaged, photos are missing; expected {expected}")
        self._ends = ends
        self._file = h5py.File(path, "r")
        self._jpeg = self._file["jpeg"]

    def __len__(self):
        return len(self._ends)

    def __getitem__(self, i):
        i = range(len(self))[i]
        start = self._ends[i - 1] if i else 0
        try:
            return np.asarray(images.open_rgb(io.BytesIO(self._jpeg[start : self._ends[i]].tobytes())))
        except (UserError, OSError) as error:
            raise UserError(f"{self.path}: damaged, photo {i} cannot be read; {_HOW_TO_MAKE}") from error

    def close(self):
        """Close the file."""
        self._file.close()


_HOW_TO_MAKE = "make it with: python -m tinynst.dataset FOLDER OUT.h5"


def open_dataset(path, side=None, report=warn):
    """Return Folder(path, side, report) for a folder, Packed(path) for an .h5 file; UserError for anything else.

    A packed file has had its side chosen when it was packed, and no photo in it is ever skipped.
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path, side, report)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return Packed(path)
    if not path.exists():
        raise UserError(
            f"{path}: no such file or folder: give a folder of photos or an .h5 file of packed ones"
        )
    raise UserError(f"{path}: neither a folder of photos nor an .h5 file of packed ones")


# --- batches ----------------------------------------------------------------------------------------------------------


def crop(photo, size, rng, scale=(0.5, 1.0)):
    """Cut a random square out of `photo` (H, W, 3) uint8, flip it half the time: (size, size, 3) float32, 0..255.

    The square's side is drawn evenly from scale[0] to scale[1] times the photo's short side, but is never less than
    `size` while the photo is large enough, so that details are shrunk and not blown up; the square is then resized
    (bicubic). Of a photo smaller than `size` the whole short side is taken and enlarged.
    Raises ValueError unless 0 <= scale[0] <= scale[1] <= 1.
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


class Batches:
    """An endless iterator of (batch, size, size, 3) float32 arrays, 0..255, loaded ahead on a background thread.

    Batch k depends on (seed, k) alone, not on what was drawn before it: a run that resumes with start=k sees exactly
    the batches that it would have seen without the break. An epoch is a permutation of the photos; a batch may reach
    over several. At most `ahead` batches wait. An error while loading is raised by next(). The thread ends with
    close(), at the end of a `with` block, or with the last reference to the object.
    """

    def __init__(self, dataset, batch, size, seed, start=0, scale=(0.5, 1.0), ahead=3):
        if min(batch, size, ahead) < 1 or min(seed, start) < 0:
            raise ValueError(
                f"batch, size and ahead must be at least 1, seed and start at least 0, "
                f"not {batch}, {size}, {ahead}, {seed} and {start}"
            )
        self._make = _Maker(dataset, batch, size, seed, scale)
        self._next = start
        # One thread keeps up: Pillow lets go of the interpreter lock while it decodes, and a step takes longer.
        self._pool = ThreadPoolExecutor(1, "tinynst-batches")
        self._waiting = collections.deque()
        for _ in range(ahead):
            self._order()

    def _order(self):
        """Ask the thread for one batch more. The job holds no reference to self, so that self can be collected."""
        self._waiting.append(self._pool.submit(self._make, self._next))
        self._next += 1

    def __iter__(self):
        return self

    def __next__(self):
        if not self._waiting:
            raise StopIteration
        result = self._waiting.popleft()
        self._order()
        return result.result()

    def close(self):
        """End the thread; next() then raises StopIteration. Closing twice does no harm."""
        self._waiting.clear()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class _Maker:
    """Batch number k as a function of k."""

    def __init__(self, dataset, batch, size, seed, scale):
        self.dataset, self.batch, self.size, self.seed, self.scale = dataset, batch, size, seed, scale
        self._epoch = None

    def __call__(self, k):
        return np.stack([self._sample(number) for number in range(k * self.batch, (k + 1) * self.batch)])

    def _sample(self, number):
        """Sample `number`, counted from the start of training."""
        epoch, place = divmod(number, len(self.dataset))
        if epoch != self._epoch:
            self._epoch, self._photos = (
                epoch,
                np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.dataset)),
            )
        # 0 and 1 keep the streams of epochs and of samples apart
        return crop(
            self.dataset[self._photos[place]],
            self.size,
            np.random.default_rng((self.seed, 1, number)),
            self.scale,
        )


# --- packing ----------------------------------------------------------------------------------------------------------

Packing = collections.namedtuple("Packing", "packed skipped bytes")


def pack(folder, out, side=288, report=warn):
    """Write the photos below `folder` into the HDF5 file `out`, short side at most `side` pixels (never enlarged).

    Layout: dataset "jpeg", all photos as JPEG (quality 95), one after the other, as uint8; dataset "ends", int64,
    where each one ends; attributes format, version, count, source, side. On 400 photos of 288 pixels that took 55 kB
    a photo where raw pixels take 351 kB; reading one at random takes 0.02 ms and decoding it 0.7 ms, so the pixels'
    only advantage is small against a training step.

    A photo that cannot be read or stored is reported through `report` and left out. Returns Packing(packed, skipped,
    bytes of the file). Raises UserError if `out` does not end in .h5, `folder` has no images, or none can be read.
    `out` is written whole or not at all.
    """
    out = Path(out)
    if out.suffix.lower() != ".h5":
        raise UserError(f"{out}: the packed file's name must end in .h5")
    if out.is_dir():
        raise UserError(f"{out}: this is a folder: give the name of a file")
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: " + ("not a folder" if Path(folder).exists() else "no such folder"))
    if side < 1:
        raise UserError(f"--side must be at least 1 pixel, not {side}")
    files = images.find(folder)
    ends = []
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
                    raise UserError(
                        f"{out}: no room left on the disk after {len(ends)} photos; it is not written"
                    )
                start = len(jpeg)
                jpeg.resize((start + len(data),))
                jpeg[start:] = np.frombuffer(data, np.uint8)
                ends.append(len(jpeg))
            if not ends:
                raise UserError(
                    f"{folder}: none of the {len(files)} photos can be read; {out} is not written"
                )
            file["ends"] = np.array(ends, np.int64)
            source = Path(folder).resolve().name
            file.attrs.update(format=FORMAT, version=VERSION, count=len(ends), source=source, side=side)
    return Packing(len(ends), len(files) - len(ends), out.stat().st_size)


def _as_jpeg(path, side):
    """The photo at `path` as the bytes of a JPEG, its short side at most `side`."""
    photo = images.open_rgb(path, side, enlarge=False)
    data = io.BytesIO()
    try:
        photo.save(data, "JPEG", quality=95)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {photo.width}x{photo.height} does not fit into a JPEG ({error})") from error
    return data.getvalue()


def main(arguments=None):
    """The command `python -m tinynst.dataset FOLDER OUT.h5`."""
    parser = Parser(
        prog="tinynst dataset", description="Pack a folder of photos into one HDF5 file to train from."
    )
    parser.add_argument("folder", metavar="FOLDER", help="photos, in folders below it too")
    parser.add_argument("out", metavar="OUT.h5", help="the file to write")
    parser.add_argument("--side", type=int, default=288, help="shrink photos to this short side, in pixels")
    options = parser.parse_args(arguments)
    done = pack(options.folder, options.out, options.side)
    print(f"{options.out}: {done.packed} photos packed, {done.skipped} skipped, {done.bytes / 1e6:.1f} MB")
