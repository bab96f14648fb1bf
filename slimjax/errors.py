"""The one exception class for mistakes of the user's."""


class UserError(ValueError):
    """A mistake of the user's: the message says where, what was expected, what was found, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
