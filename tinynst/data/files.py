"""Results are written whole or not at all."""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def written_whole(path):
    """Yield a temporary path beside `path`; when the block ends well it takes `path`'s place at once.

    If the block raises, or the program is killed, what stood at `path` before is untouched. The temporary name keeps
    the suffix (Pillow and h5py go by it) and holds the process id, so two programs do not meet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(
                file.fileno()
            )  # on the disk before the name points at it: a power cut leaves the old file or the new
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def only_run(folder):
    """Hold `folder` for this process; raises BlockingIOError while another one holds it. The system lets go of it when the
    process ends, however it ends. What killed runs left half written in the folder is removed. Not guarded on Windows."""
    with open(Path(folder) / ".lock", "w") as lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in Path(folder).rglob(".*.part*"):
            left.unlink()
        yield
