"""Train a super-resolution net: see training/superres.py."""

from .cli import run
from .training.superres import SuperResSettings, main, train_superres  # noqa: F401

if __name__ == "__main__":
    run(main, "train_superres")
