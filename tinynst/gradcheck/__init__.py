"""The gradient checker, as a library (`gradcheck`, and `check` for an exercise) and as a command (`main`)."""

from .. import make_callable
from .command import main
from .compare import gradcheck
from .grade import check
from .report import Diagnosis, InputResult, Report

__all__ = ["Diagnosis", "InputResult", "Report", "check", "gradcheck", "main"]

make_callable(__name__, gradcheck)  # `from tinynst import gradcheck; gradcheck(forward, backward, inputs)`
