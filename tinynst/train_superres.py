"""Train a super-resolution net: see training/superres.py."""

from .cli import run
from .training.superres import main

if __name__ == "__main__":
    run(main, "train_superres")
