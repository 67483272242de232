"""Train a style net: see training/style.py."""

from . import make_callable
from .cli import run
from .settings import flag
from .training.style import FROM_A_NET, StyleSettings, train

TAKEN = ", ".join(f"{flag(name)} {value}" for name, value in FROM_A_NET.items())
ABOUT = f"""Train a net that paints photos in the style of one painting or several. It starts from the shipped
net, which can already paint: ten minutes on two cores are enough. --init none, --device cuda or an option of
the net means a new net, as in the paper. A run that starts from a net takes its --norm, --upsample, --width,
--padding and losses, and on the CPU {TAKEN}, unless they are given. Without any option: a short run on photos
and a painting that ship, about two minutes."""


def main(arguments=None):
    """The command `tinynst train`."""
    return train(StyleSettings.parse(arguments, "train", ABOUT)).status


make_callable(__name__, train)  # `from tinynst import train; train(StyleSettings(...))`

if __name__ == "__main__":
    run(main, "train")
