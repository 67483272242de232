"""The command `tinynst train`: train a style net. See training/style.py."""

from . import make_callable
from .cli import run
from .training.style import StyleSettings, main, train

__all__ = ["StyleSettings", "train"]
make_callable(__name__, train)

if __name__ == "__main__":
    run(main, "train")
