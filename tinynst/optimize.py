"""Optimise an image itself: see tools/optimize.py."""

from .cli import Parser, run
from .tools.optimize import OptimizeSettings, optimize

MODES = {
    "gatys": "a photo in the style of one painting or several, without a net",
    "invert": "the image that a layer of VGG cannot tell from a photo",
    "texture": "a painting's style and nothing else, from noise",
}


def main(arguments=None):
    """The command `tinynst optimize`; `arguments` is a list of strings (None: the command line's)."""
    about = "Optimise an image itself: style transfer, inversion, texture."
    parser = Parser(prog="tinynst optimize", description=about)
    modes = parser.add_subparsers(dest="mode", required=True, metavar=" | ".join(MODES))
    for mode, text in MODES.items():
        OptimizeSettings.add_options(modes.add_parser(mode, help=text), OptimizeSettings.options(mode))
    return optimize(OptimizeSettings(**vars(parser.parse_args(arguments)))).status


if __name__ == "__main__":
    run(main, "optimize")
