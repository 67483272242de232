"""Results are written whole or not at all."""

import contextlib
import os
from pathlib import Path


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
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # on the disk before the name points at it: a power cut leaves the old file or the new
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
