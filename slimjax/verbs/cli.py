"""The command line: `slimjax VERB ...`. A mistake of the user's is one message and exit code 2.

Nothing here imports JAX, which takes seconds: a verb's module is imported when its arguments are understood.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence

import slimjax
from slimjax.errors import BadValue, HelpAsked, RunError, UserError
from slimjax.verbs import options
from slimjax.verbs.arguments import Parser, add_commands, as_written


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 the run failed, 2 a mistake of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = argparse.Namespace()
    try:
        arguments, overrides = parse(argv)
        importlib.import_module(f"slimjax.verbs.{arguments.verb}").run(arguments, overrides)
    except HelpAsked as asked:
        print(asked, flush=True)
    except BadValue as error:
        return _fail(argv, f"{as_written(error.name, arguments)}: {error.problem}", 2)
    except UserError as error:
        return _fail(argv, str(error), 2)
    except RunError as error:
        return _fail(argv, str(error), 1)
    return 0


def make_parser() -> Parser:
    parser = Parser("slimjax", description="Networks that run at many widths.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"slimjax {slimjax.__version__}")
    add_commands(parser, "verb", options.VERBS)
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, the whole command among them, and overrides of the config, `--config.key=value`.

    Raises:
      UserError: arguments that the verb does not know, or overrides without a config.
    """
    arguments, rest = make_parser().parse_known_args(argv)
    arguments.command = shlex.join(["slimjax", *argv])
    given = getattr(arguments, "config", None) is not None
    if wrong := [word for word in rest if not given or not word.startswith("--config.")]:
        hint = "Config fields are set by --config.key=value" if given else f"See {_name(arguments)} --help"
        raise UserError(f"unexpected arguments: {' '.join(wrong)}. {hint}.")
    return arguments, rest


def _name(arguments: argparse.Namespace) -> str:
    return " ".join(["slimjax", arguments.verb, *filter(None, [getattr(arguments, "tool", None)])])


def _fail(argv: Sequence[str], message: str, code: int) -> int:
    verb = next((word for word in argv if not word.startswith("-")), "")
    print(f"slimjax {verb}: error: {message}".replace("slimjax :", "slimjax:"), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
