"""Enlarge photos: see tools/superres.py."""

from .cli import run
from .tools.superres import enlarge, load_superres, main  # noqa: F401

if __name__ == "__main__":
    run(main, "superres")
