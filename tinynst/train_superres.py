"""Train a super-resolution net: see training/superres.py."""

from . import make_callable
from .cli import run
from .training.superres import SuperResSettings, train_superres

ABOUT = """Train a net that enlarges photos. The defaults are the paper's. Without any option: a short run on
photos that ship, about two minutes on two cores."""


def main(arguments=None):
    """The command `tinynst train_superres`."""
    return train_superres(SuperResSettings.parse(arguments, "train_superres", ABOUT)).status


make_callable(__name__, train_superres)  # `from tinynst import train_superres; train_superres(...)`

if __name__ == "__main__":
    run(main, "train_superres")
