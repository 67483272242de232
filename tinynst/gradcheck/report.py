"""What a check found: a result for each input, diagnoses, and the report that holds them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from . import show


@dataclass
class Diagnosis:
    """What is wrong with one gradient: `cause` is one word, `evidence` what was seen, `hint` what to try, and where to read."""

    cause: str
    gradient: str
    evidence: str
    hint: str


@dataclass
class InputResult:
    """The comparison for one input `name`; its gradient is called "d" + name.

    passed      True, False, or None (see `reason`)
    error       largest |analytic - numeric| / scale of the checked elements (nan when none was)
    indices     (checked, ndim) integers: the elements compared; analytic, numeric, errors: (checked,) float64
    kinks       elements skipped because the left and the right slope differ however small the step
    unresolved  elements where the differences are too noisy to tell
    size        elements of the whole input; `checked` of them were compared, `probed` looked at
    method      how `numeric` was measured: "differences" or "complex step"
    gap         |analytic - numeric| in the input's shape, nan where it is not known; axes: a letter for each axis
    curve       curve() -> [(step, error of the differences at that step), ...] for the worst element
    """

    name: str
    passed: bool | None
    reason: str = ""
    error: float = np.nan
    analytic: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numeric: np.ndarray = field(default_factory=lambda: np.zeros(0))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(0))
    indices: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))
    kink_indices: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))
    unresolved: int = 0
    size: int = 0
    method: str = "differences"
    gap: np.ndarray | None = field(default=None, repr=False)
    axes: tuple = ()
    curve: Callable | None = field(default=None, repr=False)

    @property
    def checked(self):
        return len(self.analytic)

    @property
    def kinks(self):
        return len(self.kink_indices)

    @property
    def probed(self):
        return self.checked + self.kinks + self.unresolved

    @property
    def worst(self):
        """Positions in `analytic` and the others, the largest difference first."""
        return np.argsort(-np.abs(self.analytic - self.numeric), kind="stable")

    @cached_property
    def steps(self):
        """[(step, error), ...]: too large a step truncates, too small a one rounds. Measured when first asked for."""
        return self.curve() if self.curve and self.checked else []

    def __str__(self):
        return "\n".join(show.result_lines(self))


@dataclass
class Report:
    """The result of a check: `passed` is True, False, or None when inconclusive; print it to read it. In a notebook it shows
    itself, as text and as a figure."""

    title: str
    passed: bool | None
    inputs: list
    diagnoses: list
    seed: int
    tolerance: float
    notes: list

    @property
    def error(self):
        """The largest error of all inputs (nan when nothing was compared)."""
        return max((r.error for r in self.inputs if r.checked), default=np.nan)

    @property
    def kinks(self):
        return sum(r.kinks for r in self.inputs)

    def __str__(self):
        return "\n".join(show.report_lines(self))

    def plot(self, path):
        """Draw the worst gradient on a PNG (or what else matplotlib knows the suffix of). Raises OSError."""
        show.plot(self, path)

    def as_json(self):
        """What the report says as dicts, lists, numbers and words."""
        return show.as_json(self)

    def _repr_png_(self):
        return show.png(self)

    def _repr_html_(self):
        return show.html(self)
