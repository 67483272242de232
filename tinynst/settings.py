"""Settings as a dataclass that makes its own command-line options.

    @dataclasses.dataclass(init=False)
    class StyleSettings(Settings):
        lr: float = option(1e-3, "Adam's learning rate", least=0)

`StyleSettings(lr=0.01)` is what `--lr 0.01` gives: names, defaults, bounds and help texts are written once.
`settings.given` holds the names that were given, as opposed to left at their defaults.
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
    goes to argparse (choices, metavar, nargs, ..., and flags, such as -o and --out)."""
    metadata = {"help": help, "least": least, "most": most, "argument": argument}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """The base of all settings. None stands for the default; a list may be given as its only element, a
    string as a Path. Raises TypeError for an unknown name, UserError for a value of the wrong type or out of
    bounds."""

    def __init__(self, **given):
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name in given.keys() - fields.keys():
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
            raise TypeError(f"{type(self).__name__} has no setting {name!r}; {hint}")
        self.given = frozenset(name for name, value in given.items() if value is not None)
        for name, field in fields.items():
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            setattr(self, name, _converted(field, given[name]) if name in self.given else default)
        self.check_bounds()

    def check_bounds(self):
        """Raise UserError for a number that is out of bounds, an empty text, or a value that is not one of
        the choices."""
        for field in dataclasses.fields(self):
            value, data = getattr(self, field.name), field.metadata
            choices = data["argument"].get("choices")
            for each in value if isinstance(value, list) else [value]:
                if each == "":
                    raise UserError(f"{flag(field.name)} is empty")
                if isinstance(each, int | float) and (
                    not data["least"] <= each <= data["most"] or math.isinf(each)
                ):
                    raise UserError(f"{flag(field.name)} is {each:g}; it should be {_bounds(data)}")
                if choices and each is not None and each not in choices:
                    names = ", ".join(map(str, choices))
                    raise UserError(f"{flag(field.name)} is {each!r}; choose from {names}")

    def to_dict(self):
        """{name: value}, which JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def add_options(cls, parser, names=None):
        """Give the argparse `parser` an option for each setting, or for those in `names`: a list, or {name:
        its option} where it is called something else. What is not given is absent from the result of
        `parse_args`, so that `cls(**vars(parser.parse_args()))` knows which were given."""
        for field in dataclasses.fields(cls):
            if names is None or field.name in names:
                renamed = names[field.name] if isinstance(names, dict) else flag(field.name)
                kind, several = _kind(field.type)
                how = {"action": "store_true"} if kind is bool else {"type": kind}
                how |= {"nargs": "+"} if several else {}
                default = getattr(cls(), field.name)
                shown = " ".join(map(str, default)) if isinstance(default, list) else default
                text = field.metadata["help"] + (
                    f" (default: {shown})" if default or type(default) in (int, float) else ""
                )
                how |= {"dest": field.name, "help": text, "default": argparse.SUPPRESS}
                how |= field.metadata["argument"]
                parser.add_argument(*how.pop("flags", [renamed]), **how)


def flag(name):
    """The command-line option of a setting: lr_fall -> --lr-fall."""
    return f"--{name.replace('_', '-')}"


def _bounds(data):
    """In words: "at least 1", "between 0 and 1"."""
    least, most = data["least"], data["most"]
    if least > -math.inf and most < math.inf:
        return f"between {least:g} and {most:g}"
    if least > -math.inf:
        return f"at least {least:g}"
    return f"at most {most:g}" if most < math.inf else "a finite number"


def _kind(annotation):
    """(type of one value, whether there may be several) of int, str | None, list[float]."""
    inner = [each for each in typing.get_args(annotation) if each is not types.NoneType]
    if typing.get_origin(annotation) is list:
        return inner[0], True
    return _kind(inner[0]) if inner else (annotation, False)


def _converted(field, value):
    """`value` in the type of its setting: 3 as 3.0, a Path as a string, one style as a list of one."""
    kind, several = _kind(field.type)
    values = value if several and isinstance(value, list | tuple) else [value]
    try:
        if kind is not str and any(
            kind(each) != each and each == each for each in values
        ):  # NaN: see check_bounds
            raise ValueError
        converted = [kind(each) for each in values]
    except (TypeError, ValueError):
        raise UserError(f"{flag(field.name)} is {value!r}; it should be of type {kind.__name__}") from None
    return converted if several else converted[0]
