"""The gradient checker, as a library (`gradcheck`, and `check` for an exercise) and as a command (`main`)."""

from .command import main
from .compare import gradcheck
from .grade import check
from .report import Diagnosis, InputResult, Report

__all__ = ["Diagnosis", "InputResult", "Report", "check", "gradcheck", "main"]
