"""List, show, convert and blend weights: see tools/weights.py."""

from .cli import run
from .tools.weights import main

if __name__ == "__main__":
    run(main, "weights")
