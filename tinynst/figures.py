"""Remake the paper's figures 3, 4 and 5: see tools/figures.py."""

from .cli import run
from .tools.figures import main

if __name__ == "__main__":
    run(main, "figures")
