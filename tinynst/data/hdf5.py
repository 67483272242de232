"""HDF5 files in and out: what weights, checkpoints and packed photos share."""

import contextlib
import io
from pathlib import Path

import h5py

from ..device import to_numpy
from ..errors import UserError
from .files import written_whole


@contextlib.contextmanager
def open_hdf5(path, expected):
    """Yield the HDF5 file at `path`, open for reading; `expected` says in a few words what it should be.

    Raises UserError if the file is missing, not HDF5, or damaged (found on opening or in the block).
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {problem}; expected {expected}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError:
        raise UserError(f"{path} may not be read: change its permissions") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py raises all four on damaged files
        if "truncated" in str(error):
            reason = f"is cut short at {path.stat().st_size:,} bytes: copy or make it again"
        elif not h5py.is_hdf5(path):
            reason = "is not an HDF5 file"
        else:
            reason = f"is damaged ({error}): copy or make it again"
        raise UserError(f"{path} {reason}; expected {expected}") from None


@contextlib.contextmanager
def create_hdf5(path):
    """Yield a new HDF5 file that replaces `path` when the block succeeds. It is made in memory: on a full
    disk HDF5 itself would crash, but writing the finished bytes raises OSError."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file
    with written_whole(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def check_header(file, path, format, version, expected):
    """Raise UserError unless the open HDF5 `file` has this `format` and this `version` or an older one."""
    found = file.attrs.get("format")
    if found != format:
        what = f"a file of {found}" if isinstance(found, str) else "an HDF5 file of some other program"
        raise UserError(f"{path} is {what}; expected {expected}")
    if file.attrs["version"] > version:
        newer = f"version {file.attrs['version']} of '{format}', this program reads up to {version}"
        raise UserError(f"{path} has {newer}: install a newer tinynst")


def write_arrays(group, arrays, **storage):
    """Write the dict `arrays` into the HDF5 `group`; `storage` (compression) applies to all but scalars."""
    for name, array in arrays.items():
        if "/" in name:
            raise ValueError(f"the name of an array must not contain '/', HDF5's separator, got {name!r}")
        array = to_numpy(array)
        options = storage if array.size > 1 else {}
        # no times: the same content gives the same bytes
        group.create_dataset(name, data=array, track_times=False, **options)


def read_arrays(group):
    """The arrays of an HDF5 `group` as a dict, in the order they were written."""
    return {name: dataset[...] for name, dataset in group.items()}
