"""Optimise an image itself: see tools/optimize.py."""

from .cli import run
from .tools.optimize import OptimizeSettings, optimize

ABOUT = """Optimise an image itself. gatys: a photo in the style of one painting or several, without a net;
invert: the image that a layer of VGG cannot tell from a photo; texture: a painting's style and nothing else,
from noise."""


def main(arguments=None):
    """The command `tinynst optimize`."""
    return optimize(OptimizeSettings.parse(arguments, "optimize", ABOUT)).status


if __name__ == "__main__":
    run(main, "optimize")
