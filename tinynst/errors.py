"""Errors that the user can fix. Commands print the message on one line and exit with status 2."""


class UserError(Exception):
    """Wrong input from the user. The message says what was wrong, with which value, and what to do."""


def printable(text):
    """`text` on one line that cannot steer a terminal: control characters, as file names can hold them, are
    written as \\n, \\x1b, ..."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return "".join(shown)


class DeviceError(RuntimeError):
    """The requested device is not available. The message says what is missing and how to install it."""
