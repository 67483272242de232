"""Settings as a dataclass that makes its own command-line options.

    @dataclasses.dataclass(init=False)
    class StyleSettings(Settings):
        lr: float = option(1e-3, "Adam's learning rate", least=0)

`StyleSettings(lr=0.01)` is what `--lr 0.01` gives: one list of names, defaults, bounds and help texts for
both. `settings.given` holds the names that were given, as opposed to left at their defaults.
"""

import argparse
import dataclasses
import difflib
import math
import types
import typing

from .errors import UserError


def option(default, help, *, least=-math.inf, most=math.inf, **argument):
    """A field of a Settings class. `least` and `most` bound a number, or each number of a list; `argument`
    goes to argparse (choices, metavar, nargs, ...)."""
    metadata = {"help": help, "least": least, "most": most, "argument": argument}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """The base of all settings. Raises TypeError for an unknown name, UserError for a value out of bounds."""

    def __init__(self, **given):
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name in given.keys() - fields.keys():
            close = difflib.get_close_matches(name, fields, 1)
            meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(fields)}"
            raise TypeError(f"{type(self).__name__} has no setting {name!r}{meant}")
        for name, field in fields.items():
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            setattr(self, name, given.get(name, default))
        self.given = frozenset(given)
        self.check_bounds()

    def check_bounds(self):
        """Raise UserError for a number that is out of bounds, or a word that is not one of the choices."""
        for field in dataclasses.fields(self):
            value, data = getattr(self, field.name), field.metadata
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, int | float) and not isinstance(each, bool):
                    if not data["least"] <= each <= data["most"] or math.isinf(each):
                        raise UserError(f"{flag(field.name)} is {each:g}; it should be {_bounds(data)}")
                choices = data["argument"].get("choices")
                if choices and each is not None and each not in choices:
                    raise UserError(
                        f"{flag(field.name)} is {each!r}; choose from {', '.join(map(str, choices))}"
                    )

    def to_dict(self):
        """{name: value}, as JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def add_options(cls, parser, names=None):
        """Give the argparse `parser` an option for each setting, or for those in `names`. What is not given
        is absent from the result of `parse_args`, so `cls(**vars(parser.parse_args()))` knows what was."""
        for field in dataclasses.fields(cls):
            if names is None or field.name in names:
                default = getattr(cls(), field.name)
                kind, several = _kind(field.type)
                how = (
                    {"action": "store_true"}
                    if kind is bool
                    else {"type": kind} | ({"nargs": "+"} if several else {})
                )
                how |= {"help": _with_default(field.metadata["help"], default), "default": argparse.SUPPRESS}
                parser.add_argument(flag(field.name), **how | field.metadata["argument"])


def flag(name):
    """The command-line option of a setting: lr_fall -> --lr-fall."""
    return f"--{name.replace('_', '-')}"


def _bounds(data):
    """In words: "at least 1", "between 0 and 1"."""
    if data["least"] > -math.inf and data["most"] < math.inf:
        return f"between {data['least']:g} and {data['most']:g}"
    if math.isinf(data["most"]):
        return f"at least {data['least']:g}" if data["least"] > -math.inf else "a finite number"
    return f"at most {data['most']:g}"


def _kind(annotation):
    """(type of one value, whether there may be several) of int, str | None, list[float]."""
    inner = [each for each in typing.get_args(annotation) if each is not types.NoneType]
    if typing.get_origin(annotation) is list:
        return inner[0], True
    return _kind(inner[0]) if inner else (annotation, False)


def _with_default(text, default):
    if default is None or default is False or default == []:
        return text
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    return f"{text} (default: {shown})"
