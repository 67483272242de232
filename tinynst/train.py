"""Train a style net: see training/style.py."""

from .cli import run
from .training.style import StyleSettings, main, train  # noqa: F401

if __name__ == "__main__":
    run(main, "train")
