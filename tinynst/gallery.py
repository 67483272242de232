"""Photos by styles as one picture: see tools/gallery.py."""

from .cli import run
from .tools.gallery import main

if __name__ == "__main__":
    run(main, "gallery")
