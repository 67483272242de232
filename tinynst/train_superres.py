"""The command `tinynst train_superres`: train a super-resolution net. See training/superres.py."""

from . import make_callable
from .cli import run
from .training.superres import SuperResSettings, main, train_superres

__all__ = ["SuperResSettings", "train_superres"]
make_callable(__name__, train_superres)

if __name__ == "__main__":
    run(main, "train_superres")
