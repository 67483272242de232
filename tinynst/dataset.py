"""Pack a folder of photos into one file: see data/photos.py."""

from .cli import run
from .data.photos import main

if __name__ == "__main__":
    run(main, "dataset")
