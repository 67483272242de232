"""The gradient checker, as a library (`gradcheck`) and as a command (`tinynst gradcheck`, `main`)."""

from .check import gradcheck
from .command import main
from .report import Diagnosis, InputResult, Report

__all__ = ["Diagnosis", "InputResult", "Report", "gradcheck", "main"]
