"""Errors that the user can fix. Commands print the message on one line and exit with status 2."""


class UserError(Exception):
    """Wrong input from the user. The message says what was wrong, with which value, and what to do."""


class DeviceError(RuntimeError):
    """The requested device is not available. The message says what is missing and how to install it."""
