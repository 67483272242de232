"""Train a super-resolution net: see training/superres.py."""

from . import make_callable
from .cli import Parser, run
from .training.superres import SuperResSettings, train_superres

ABOUT = """Train a net that enlarges photos. The defaults are the paper's. Without any option: a short run on
photos that ship, about two minutes on two cores."""


def main(arguments=None):
    """The command `tinynst train_superres`."""
    parser = Parser(prog="tinynst train_superres", description=ABOUT)
    SuperResSettings.add_options(parser)
    return train_superres(SuperResSettings(**vars(parser.parse_args(arguments)))).status


make_callable(
    __name__, train_superres
)  # `from tinynst import train_superres; train_superres(SuperResSettings(...))`

if __name__ == "__main__":
    run(main, "train_superres")
