"""The two kinds of failure that explain themselves. The command line prints both without a traceback."""


class UserError(ValueError):
    """A mistake of the user's: says where, what was expected, what was found, what to do. Exit code 2."""


class RunError(RuntimeError):
    """A run that cannot go on (damaged checkpoints, a loss that is no number): says why. Exit code 1."""
