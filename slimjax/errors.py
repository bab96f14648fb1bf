"""What ends a program with a text of its own. The command line prints it without a traceback."""


class UserError(ValueError):
    """A mistake of the user's: says where, what was expected, what was found, what to do. Exit code 2."""


class BadValue(UserError):
    """A value that is not legal, by the name of the argument or field that it was given to.

    Whoever knows how the user wrote it puts that in the name's place: `checks.under`, and the command line.

    Args:
      name: such as "trials", or "search.beta".
      problem: what was expected and what was found, in sentences.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem


class RunError(RuntimeError):
    """A run that cannot go on (damaged checkpoints, a loss that is no number): says why. Exit code 1."""


class HelpAsked(Exception):
    """Nothing failed: the user asked what there is. The text is printed, and the program ends well (exit code 0)."""
