"""HDF5 files in and out: what weights, checkpoints and packed photos share.

HDF5 can lead to other files and declare terabytes in a few bytes, and a file may come from anywhere. So each
item is compared with what it should be before it is read, and no link is followed.
"""

import contextlib
import io
import json
import math
import mmap
import os
import re
import struct

import h5py
import numpy as np

from ..device import to_numpy
from ..errors import UserError
from .files import check_input, written_whole

ITEMS = 10_000  # groups and datasets in a file
TEXT = 64 << 20  # bytes of a file that are in no array: texts, names and indices
ROOM, RATIO = 256 << 20, 4  # bytes of memory for the arrays of a file: ROOM, and RATIO for each on the disk
CHUNK = 2 << 20  # bytes of a compressed chunk, which may have been made to inflate a thousandfold
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
HEAP = re.compile(b"GCOL\1\0\0\0")  # where texts are stored: this, its size, objects
LARGEST = 1e12  # of a weight: no training leads there, and products of such numbers overflow
KINDS = {"weights": "f", "numbers": "biuf", "whole numbers": "iu", "bytes": "u", "text": "SO"}  # for NumPy


class Reader:
    """An open HDF5 file; `items`: {path: group or dataset}. Each method raises UserError if an item is not
    what it should be."""

    def __init__(self, file, path, expected):
        self.file, self.path, self.expected, links = file, path, expected, {}

        def visit(name, info):
            links[name.decode("utf-8", "surrogateescape")] = info.type
            return len(links) > ITEMS or None  # anything but None ends the visit

        file.id.links.visit(visit, info=True)
        if len(links) > ITEMS:
            raise self.error("the file", f"of more than {ITEMS:,} items", "of a few hundred")
        for name, kind in links.items():
            if kind != h5py.h5l.TYPE_HARD:
                raise self.error(name, "a link to another place", "stored here")
        self.items = {name: file[name] for name in links}
        stored = sum(self._stored(k, d.id) for k, d in self.items.items() if isinstance(d, h5py.Dataset))
        status = os.stat(path)
        if status.st_size - stored > TEXT + status.st_size // 16:
            raise self.error("its text", f"of {status.st_size - stored:,} bytes", f"of at most {TEXT:,}")
        on_disk = 512 * getattr(status, "st_blocks", 0) or status.st_size  # a file can have holes
        self.room = ROOM + RATIO * min(on_disk, status.st_size)

    def _stored(self, name, dataset):
        """How many bytes a dataset takes in this file."""
        how = dataset.get_create_plist()
        filters = [how.get_filter(k)[0] for k in range(how.get_nfilters())]
        if how.get_external_count() or how.get_layout() == h5py.h5d.VIRTUAL:
            raise self.error(name, "stored in another file", "stored in this one")
        if filters:
            sizes = [math.prod(how.get_chunk()) * dataset.get_type().get_size()]
            dataset.chunk_iter(lambda chunk: sizes.append(chunk.size))
            gzip_once = FILTERS.issuperset(filters) and filters.count(h5py.h5z.FILTER_DEFLATE) < 2
            if max(sizes) > CHUNK or not gzip_once:
                found = f"in chunks of {max(sizes):,} bytes with the filters {filters}"
                raise self.error(name, found, f"in chunks of at most {CHUNK:,}, compressed once by gzip")
        return dataset.get_storage_size()

    def error(self, item, found, wanted):
        return UserError(f"{self.path}: {item} is {found}; it should be {wanted}. Expected {self.expected}")

    def attribute(self, name):
        """An attribute of the file, a text or a whole number; None for anything else."""
        stored = self.file.attrs.get_id(name) if name in self.file.attrs else None
        known = stored is not None and stored.shape == () and stored.dtype.kind in "iuO"
        return self.file.attrs[name] if known else None

    def check_header(self, format, version):
        """Raise UserError unless the file has this `format` and this `version` or an older one."""
        found, newest = self.attribute("format"), self.attribute("version")
        if found != format:
            what = f"a file of {found}" if isinstance(found, str) else "an HDF5 file of some other program"
            raise UserError(f"{self.path} is {what}; expected {self.expected}")
        if not isinstance(newest, np.integer):
            raise self.error("the attribute version", repr(newest), "a whole number")
        if newest > version:
            newer = f"version {newest} of '{format}', this program reads up to {version}"
            raise UserError(f"{self.path} has {newer}: install a newer tinynst")

    def names(self, group):
        """The names of what a group holds, in the order in which it was written."""
        if not isinstance(self.items.get(group), h5py.Group):
            raise self.error(group, "an array" if group in self.items else "missing", "a group of arrays")
        return list(self.items[group])

    def dataset(self, name, kind, shape=None, called=None):
        """The dataset `name`, not read: a `kind` of KINDS, of this shape, where letters stand for any length
        (None: any shape). called: what the error calls it."""
        item, found = self.items.get(name), "no array" if name in self.items else "missing"
        if isinstance(item, h5py.Dataset):
            found = f"an array of {item.dtype} and shape {item.shape}"
            axes = item.shape if shape is None else shape
            fits = item.shape is not None and len(axes) == len(item.shape) and item.dtype.kind in KINDS[kind]
            if fits and all(isinstance(n, str) or n == m for n, m in zip(axes, item.shape, strict=True)):
                return item
        of_shape = f" of shape ({', '.join(map(str, shape))})" if shape else ""
        wanted = f"a {kind}" if shape == () else f"an array of {kind}{of_shape}"
        raise self.error(called or name, found, wanted)

    def array(self, name, kind, shape=None, called=None):
        """The array `name`, as `dataset`. Weights are finite and not larger than LARGEST."""
        item = self.dataset(name, kind, shape, called)
        self.room -= item.size * item.dtype.itemsize
        if self.room < 0:
            found = f"{item.dtype} of shape {item.shape}"
            raise self.error(name, found, "smaller: so much is not in the file")
        array = item[...]
        largest = float(np.abs(array).max(initial=0)) if kind == "weights" else 0.0
        if not largest <= LARGEST:
            found = f"an array with the number {largest:g}: training diverged, or it is damaged"
            raise self.error(called or name, found, f"finite and at most {LARGEST:g}")
        return array

    def json(self, name, schema):
        """What the text `name` says in JSON, if it conforms to `schema` (see `_conform`)."""
        item = self.dataset(name, "text", ())
        if h5py.check_string_dtype(item.dtype) is None or item.dtype.itemsize > TEXT:
            raise self.error(name, f"of {item.dtype}", f"a text of at most {TEXT:,} bytes")
        try:
            value = json.loads(item.asstr()[()])
        except (ValueError, RecursionError) as error:
            raise self.error(name, f"not JSON ({error})", "JSON") from None
        self._conform(name, value, schema)
        return value

    def _conform(self, name, value, schema):
        """Compare a value with a type, [the schema of its elements] or {key: schema}. A key "x?" may be
        absent or null; other keys may hold anything."""
        kind = schema if isinstance(schema, type) else type(schema)
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise self.error(name, f"{value!r:.60}", f"of type {kind.__name__}")
        for k, each in enumerate(value if isinstance(schema, list) else ()):
            self._conform(f"{name}[{k}]", each, schema[0])
        for key, inner in schema.items() if isinstance(schema, dict) else ():
            each = value.get(key.rstrip("?"))
            if each is not None or not key.endswith("?"):
                self._conform(f"{name}.{key.rstrip('?')}", each, inner)


def _check_heaps(path):
    """Raise ValueError for a heap of texts on which HDF5 (2.0) would never end: an object has no size, or
    one that wraps round. Our heaps are near an end of the file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parts = [(0, TEXT), (max(TEXT, len(data) - TEXT), len(data))]
        for heap in (match.start() for part in parts for match in HEAP.finditer(data, *part)):
            place, end = heap + 16, heap + int.from_bytes(data[heap + 8 : heap + 16], "little")
            while place + 16 <= min(end, len(data)):
                index, size = struct.unpack("<H6xQ", data[place : place + 16])
                size = 16 + -(-size // 8) * 8 if index else size  # index 0: free space
                if not 0 < size <= end - place:
                    raise ValueError(f"a text of {size:,} bytes")
                place += size


@contextlib.contextmanager
def open_hdf5(path, expected):
    """Yield a Reader of the HDF5 file at `path`; `expected` says in a few words what it should be.

    Raises UserError if the file is missing, not HDF5, or damaged (found on opening or in the block).
    """
    check_input(path, f"; expected {expected}")
    try:
        _check_heaps(path)
        with h5py.File(path, "r") as file:
            yield Reader(file, path, expected)
    except UserError:
        raise
    except Exception as error:  # h5py raises errors of any kind on damaged files
        reason = f"is damaged ({error}): copy or make it again"
        if isinstance(error, PermissionError):
            reason = "may not be read: change its permissions"
        elif "truncated" in str(error):
            reason = f"is cut short at {os.path.getsize(path):,} bytes: copy or make it again"
        elif not h5py.is_hdf5(path):
            reason = "is not an HDF5 file"
        raise UserError(f"{path} {reason}; expected {expected}") from error


@contextlib.contextmanager
def create_hdf5(path):
    """Yield a new HDF5 file that replaces `path` when the block succeeds. It is made in memory: on a full
    disk HDF5 itself would crash, but writing the finished bytes raises OSError."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file
    with written_whole(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def write_arrays(group, arrays, **storage):
    """Write the dict `arrays` into the HDF5 `group`; `storage` (compression) applies to all but scalars."""
    for name, array in arrays.items():
        if "/" in name:
            raise ValueError(f"the name of an array must not contain '/', HDF5's separator, got {name!r}")
        array = to_numpy(array)
        options = storage if array.size > 1 else {}
        # no times: the same content gives the same bytes
        group.create_dataset(name, data=array, track_times=False, **options)
