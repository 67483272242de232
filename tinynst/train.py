"""Train a style net: see training/style.py."""

from .cli import run
from .training.style import main

if __name__ == "__main__":
    run(main, "train")
