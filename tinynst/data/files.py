"""Output files: written whole or not at all, and never over an input."""

import contextlib
import os
import stat
from pathlib import Path

from ..errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def check_input(path, expected=""):
    """Raise UserError unless `path` is a regular file: opening a pipe would wait for a program that writes
    into it, and a device may never end. expected: the end of the message."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return
        problem = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    except FileNotFoundError:
        problem = "a link to nothing" if os.path.islink(path) else "no such file"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        problem = getattr(error, "strerror", error)
    raise UserError(f"{path}: {problem}{expected}")


@contextlib.contextmanager
def written_whole(path):
    """Yield a temporary path next to `path`; when the block succeeds, the file made there replaces `path`.

    The temporary name keeps the suffix, because Pillow and h5py read the format from it, and contains the
    process id, so two programs do not collide. An OSError ("no space left") names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows can only flush a file that is open for writing
            os.fsync(file.fileno())  # flush before renaming: a power cut leaves the old file or the new one
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def only_run(folder):
    """Lock `folder` for this process, and remove what killed runs left; BlockingIOError if it is locked.

    The system releases the lock when the process ends, however it ends. Windows has no such lock.
    """
    with open(Path(folder) / ".lock", "w") as lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in Path(folder).rglob(".*.part*"):
            left.unlink()
        yield


def check_folder(path):
    """Return `path` as a Path if it is a writable folder, or can become one; raise UserError if not."""
    path = Path(path)
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file; it should be a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{existing} may not be written into: choose another, or change its permissions")
    return path


def check_file(path, suffixes=(), sources=()):
    """Return `path` as a Path if it ends in one of `suffixes` (none: any) and may be written by a command
    that reads the files `sources`; raise UserError if not."""
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the name of this file must end in {', '.join(suffixes)}")
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device"
        raise UserError(f"{path} is {what}; give the name of a file")
    for source in map(Path, sources):
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path} would overwrite {source}, which is an input: choose another output")
    return path
