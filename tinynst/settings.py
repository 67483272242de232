"""Settings as a dataclass that makes its own command-line options.

    @dataclasses.dataclass(init=False)
    class StyleSettings(Settings):
        lr: float = option(1e-3, "Adam's learning rate", least=0)

`StyleSettings(lr=0.01)` is what `--lr 0.01` gives: names, defaults, bounds and help texts are written once.
"""

import argparse
import copy
import dataclasses
import difflib
import math
import types
import typing

from .cli import Parser
from .errors import UserError


def option(default, help, *, least=-math.inf, most=math.inf, **argument):
    """A field of a Settings class. `least` and `most` bound a number, or each number of a list; `argument`
    goes to argparse: choices, metavar, nargs, ..., and flags, such as ("-o", "--out"), or ("images",) for a
    positional argument."""
    metadata = {"default": default, "help": help, "least": least, "most": most, "argument": argument}
    return dataclasses.field(metadata=metadata)


class Settings:
    """The base of all settings. None stands for the default, and a list may be given as its only element.
    `given` holds the names that were given. Raises TypeError for an unknown name, UserError for a value of
    the wrong type or out of bounds."""

    def __init__(self, **given):
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name in given.keys() - fields.keys():
            (closest,) = difflib.get_close_matches(name, fields, 1, cutoff=0)
            raise TypeError(f"{type(self).__name__} has no setting {name!r}; did you mean {closest}?")
        self.given = frozenset(name for name, value in given.items() if value is not None)
        for name, field in fields.items():
            default = copy.copy(field.metadata["default"])
            setattr(self, name, _converted(field, given[name]) if name in self.given else default)
        self.check_bounds()

    def check_bounds(self):
        """Raise UserError for a number out of bounds, an empty text, or a value that is not a choice."""
        for field in dataclasses.fields(self):
            value, least, most = getattr(self, field.name), field.metadata["least"], field.metadata["most"]
            argument = field.metadata["argument"]
            name, choices = max(argument.get("flags", [flag(field.name)]), key=len), argument.get("choices")
            for each in value if isinstance(value, list) else [value]:
                if each == "":
                    raise UserError(f"{name} is empty")
                number = isinstance(each, int | float)
                if number and (not least <= each <= most or math.isinf(each)):
                    bounds = f"between {least:g} and {most:g}" if most < math.inf else f"at least {least:g}"
                    bounds = "a finite number" if least == -math.inf else bounds
                    raise UserError(f"{name} is {each:g}; it should be {bounds}")
                if choices and each is not None and each not in choices:
                    raise UserError(f"{name} is {each!r}; choose from {', '.join(map(str, choices))}")

    def to_dict(self):
        """{name: value}, which JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def add_options(cls, parser):
        """Give the argparse `parser` an option for each setting. One that is not given is absent from the
        result of `parse_args`, so that `cls(**vars(parser.parse_args()))` knows which were given."""
        for field in dataclasses.fields(cls):
            kind, several = _kind(field.type)
            default, text = field.metadata["default"], field.metadata["help"]
            argument = dict(field.metadata["argument"])
            flags = argument.pop("flags", [flag(field.name)])
            how = {"dest": field.name} if flags[0].startswith("-") else {}  # otherwise positional
            if how and (default or type(default) in (int, float)):
                shown = " ".join(map(str, default)) if isinstance(default, list) else default
                text = f"{text} (default: {shown})"
            how |= {"help": text, "default": argparse.SUPPRESS}
            how |= {"action": "store_true"} if kind is bool else {"type": kind}
            how |= {"nargs": "+"} if several else {}
            if kind in (int, float) and "choices" not in argument:
                how["metavar"] = "N" if kind is int else "X"
            parser.add_argument(*flags, **how | argument)

    @classmethod
    def parse(cls, arguments, command, about, epilog=None):
        """The settings in `arguments` (strings; None: those of the command line) of `tinynst COMMAND`, whose
        --help shows `about`, the options and `epilog`."""
        parser = Parser(prog=f"tinynst {command}", description=about, epilog=epilog)
        cls.add_options(parser)
        return cls(**vars(parser.parse_args(arguments)))


def flag(name):
    """The command-line option of a setting: lr_fall -> --lr-fall."""
    return f"--{name.replace('_', '-')}"


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
        converted = [kind(each) for each in values]
        for each, result in zip(values, converted, strict=True):
            if kind is not str and result != each and each == each:  # NaN: see check_bounds
                raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{flag(field.name)} is {value!r}; it should be of type {kind.__name__}") from None
    return converted if several else converted[0]
