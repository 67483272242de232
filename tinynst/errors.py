"""The errors that a user can put right. Commands print the message, one line, and exit with status 2."""


class UserError(Exception):
    """A mistake of the user's: the message says what was wrong, with which value, and what to do."""


class DeviceError(RuntimeError):
    """The device asked for is not there. The message says what is missing and how to get it."""
