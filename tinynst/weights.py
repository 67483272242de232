"""List, show, convert and blend weights: see data/weights.py."""

from .cli import run
from .data.weights import main

if __name__ == "__main__":
    run(main, "weights")
