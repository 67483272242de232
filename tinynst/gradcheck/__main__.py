"""`python -m tinynst.gradcheck`."""

from ..cli import run
from .command import main

run(main, "gradcheck")
