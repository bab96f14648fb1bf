"""The command line: `slimjax VERB ...`. A mistake of the user's is one message and exit code 2."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import runpy
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from slimjax.errors import RunError, UserError

if TYPE_CHECKING:  # importing it takes time that --help does not need
    from ml_collections import ConfigDict

# Those of profiling.tpu, which takes seconds to import; a test holds them together.
BENCH_TARGETS = ("cpu", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e")
Verb = Callable[[argparse.Namespace, list[str]], None]


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 the run failed, 2 a mistake of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments, rest = make_parser().parse_known_args(argv)
        arguments.command = shlex.join(["slimjax", *argv])
        arguments.run(arguments, rest)
    except UserError as error:
        return _fail(argv, str(error), 2)
    except RunError as error:
        return _fail(argv, str(error), 1)
    return 0


def make_parser() -> Parser:
    parser = Parser("slimjax", description="Networks that run at many widths.", allow_abbrev=False)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=Parser)
    for name, (run, define) in VERBS.items():
        verb = verbs.add_parser(name, help=run.__doc__, description=run.__doc__, allow_abbrev=False)
        verb.add_argument(
            "--json", action="store_true", help="print one line of JSON on stdout, nothing else"
        )
        verb.set_defaults(run=run)
        define(verb)
    return parser


def run_train(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Train, calibrate, evaluate, report; on the same workdir, resume. Overrides: --config.key=value."""
    from slimjax import train  # after the arguments: importing JAX takes seconds

    config = _load_config(arguments.config, rest)
    _start_jax()
    _print_rows(arguments, train.train(config, arguments.workdir, arguments.command))


def run_evaluate(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Calibrate and measure any widths of a trained network."""
    from slimjax import evaluate_run

    _no_more(rest)
    _start_jax()
    subnet = None if arguments.subnet is None else _parse_json("--subnet", arguments.subnet)
    _print_rows(arguments, evaluate_run.run(arguments.workdir, _floats("--widths", arguments.widths), subnet))


def run_cost(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Count MACs and parameters of a network at a width."""
    from slimjax import cost_query

    _no_more(rest)
    subnet = None if arguments.subnet is None else _parse_json("--subnet", arguments.subnet)
    answer = cost_query.run(
        arguments.model,
        width=arguments.width,
        subnet=subnet,
        multiplier=arguments.multiplier,
        num_classes=arguments.num_classes,
        image_size=arguments.image_size,
    )
    if arguments.json:
        print(json.dumps(answer))
    else:
        print(_lines(answer))


def run_compile(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Ask the TPU compiler whether configs fit a pod slice and how fast they are. Overrides apply to all."""
    from slimjax import compile_query

    configs = {path: _load_config(path, rest) for path in arguments.config}
    answers = compile_query.run(configs, arguments.topology)
    if arguments.json:
        print(json.dumps({"results": answers}), flush=True)
    elif len(answers) == 1:
        print(_lines(answers[0]), flush=True)
    else:
        print(compile_query.format_answers(answers), flush=True)
    if failed := [answer["config"] for answer in answers if "error" in answer]:
        raise RunError(f"no answer for {', '.join(failed)}: see what is printed.")


def run_bench(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Measure what README claims. `claims`: the papers' claims on small real data; `step`: what a step costs."""
    if arguments.what == "step":
        _bench_step(arguments, rest)
        return
    from slimjax.bench import claims

    _no_more(rest)
    _start_jax()
    groups = list(claims.GROUPS) if arguments.only is None else arguments.only.split(",")
    results = claims.run(groups, arguments.seeds, arguments.workdir)
    print(json.dumps(results) if arguments.json else claims.format_table(results), flush=True)


def _bench_step(arguments: argparse.Namespace, rest: list[str]) -> None:
    if arguments.config is None:
        raise UserError("bench step: expected --config FILE.")
    if arguments.repeats < 1:
        raise UserError(f"--repeats: expected 1 or more, got {arguments.repeats}.")
    config = _load_config(arguments.config, rest)
    answer = _on_target(arguments, config)
    print(json.dumps(answer) if arguments.json else _lines(answer), flush=True)


def _on_target(arguments: argparse.Namespace, config: ConfigDict) -> dict[str, Any]:
    """Times on the attached device; a TPU that is not there is estimated."""
    import jax

    from slimjax.bench import step
    from slimjax.profiling import tpu

    target = arguments.target
    if target in tpu.TARGETS and not tpu.is_attached():
        if arguments.against:
            raise UserError(f"--against: PyTorch can be timed on this machine, not estimated for {target}.")
        return step.estimate(config, target)
    if target == "cpu":
        jax.config.update("jax_platforms", "cpu")
    _start_jax()
    return step.run(config, arguments.repeats, arguments.against)


def _define_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["claims", "step"])
    parser.add_argument("--only", help="algorithms whose claims to decide, such as snet,usnet (default: all)")
    parser.add_argument("--config", help="for step: a config file, with --config.key=value overrides")
    parser.add_argument("--repeats", type=int, default=20, help="for step: timed repetitions (default: 20)")
    parser.add_argument("--target", choices=BENCH_TARGETS, help="for step: default is the attached device")
    parser.add_argument(
        "--against", choices=["torch", "torch.compile"], help="for step: time the same step in PyTorch too"
    )
    parser.add_argument("--seeds", type=int, default=5, help="networks per arm (default: 5)")
    parser.add_argument(
        "--workdir", type=_directory, default="runs/claims", help="keeps measurements; a later call goes on"
    )


def _define_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="a config file; it is Python code and is run")
    parser.add_argument(
        "--workdir", required=True, type=_directory, help="where checkpoints and results go; gs:// works"
    )


def _define_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, type=_directory, help="of a training run")
    parser.add_argument("--widths", help="uniform widths, such as 0.25,0.3,1")
    parser.add_argument("--subnet", help="channels by group, such as '{\"stage1\": 8}'; others stay full")


def _define_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, nargs="+", metavar="FILE", help="config files, run in turn"
    )
    parser.add_argument("--topology", required=True, help="a slice, such as v5e:4x4 or v4:2x2x1")


def _define_cost(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True)
    parser.add_argument("--width", type=float, help="uniform width multiplier (default: 1)")
    parser.add_argument("--subnet", help="channels by group, such as '{\"stage1\": 8}'; others stay full")
    parser.add_argument("--multiplier", type=float, help="of all channels, for example 2 for ResNet-20 2x")
    parser.add_argument("--num-classes", "--num_classes", type=int)
    parser.add_argument("--image-size", "--image_size", type=int, help="pixels of a side")


VERBS: Mapping[str, tuple[Verb, Callable[[argparse.ArgumentParser], None]]] = MappingProxyType(
    {
        "train": (run_train, _define_train),
        "evaluate": (run_evaluate, _define_evaluate),
        "cost": (run_cost, _define_cost),
        "compile": (run_compile, _define_compile),
        "bench": (run_bench, _define_bench),
    }
)


def _load_config(path: str, overrides: list[str]) -> ConfigDict:
    """The config that a file makes, with `--config.key=value` overrides, through ml_collections."""
    from absl import flags
    from ml_collections import config_flags

    _no_more([argument for argument in overrides if not argument.startswith("--config.")])
    config, values, argv = _run_config_file(path), flags.FlagValues(), ["slimjax", *overrides]
    try:
        # New attributes pass here and are judged by `validate`: all mistakes are reported at once.
        config_flags.DEFINE_config_dict(
            "config",
            config,
            flag_values=values,
            sys_argv=argv,
            lock_config=False,
            accept_new_attributes=True,
        )
        values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"overrides of {path}: {_reason(error)}") from error
    return config


def _reason(error: BaseException) -> str:
    """The text of an error; ml_collections wraps KeyErrors in others, and a KeyError quotes its text."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return str(error.args[0] if error.args else error)


def _run_config_file(path: str) -> ConfigDict:
    """What `get_config` of a file returns. The file is Python code: anything can go wrong in it."""
    from ml_collections import ConfigDict

    if not pathlib.Path(path).is_file():
        raise UserError(f"--config: expected a Python file with get_config(), got {path!r}: no such file.")
    try:
        make = runpy.run_path(path).get("get_config")
        config = make() if callable(make) else None
    except Exception as error:
        where = f"{path}, line {_line_in(path, error)}"
        raise UserError(f"{where}: {type(error).__name__}: {error}\nMend the config file.") from error
    if not isinstance(config, ConfigDict):
        got = type(config).__name__ if callable(make) else "no such function"
        raise UserError(f"{path}: expected a function get_config() that returns a ConfigDict, got {got}.")
    return config


def _line_in(path: str, error: Exception) -> int | None:
    """The line of a file at which an error left it, or which cannot be parsed."""
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None


def _start_jax() -> None:
    """Joins the launch's other processes and keeps compiled programs from run to run."""
    import jax

    from slimjax import sharding

    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/slimjax/programs")
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache).expanduser()))
    sharding.initialize_processes()


def _print_rows(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    import jax

    from slimjax import report

    if jax.process_index() == 0:
        print(json.dumps(rows) if arguments.json else report.format_table(rows), flush=True)


def _fail(argv: Sequence[str], message: str, code: int) -> int:
    verb = next((word for word in argv if not word.startswith("-")), "")
    print(f"slimjax {verb}: error: {message}".replace("slimjax :", "slimjax:"), file=sys.stderr)
    return code


def _no_more(rest: list[str]) -> None:
    if rest:
        raise UserError(
            f"unexpected arguments: {' '.join(rest)}. Config fields are set by --config.key=value."
        )


def _directory(text: str) -> str:
    """A workdir, absolute, because Orbax writes to no other."""
    if not text or pathlib.Path(text).is_file():
        raise argparse.ArgumentTypeError(f"expected a directory, got {text!r}")
    if text.startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise argparse.ArgumentTypeError("gs:// needs gcsfs: pip install 'slimjax[gcs]'")
    return text if "://" in text else str(pathlib.Path(text).expanduser().absolute())


def _parse_json(flag: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'{flag}: expected JSON such as {{"stage1": 8}}, got {text!r} ({error}).') from error


def _floats(flag: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag}: expected numbers such as 0.25,0.5,1, got {text!r}.") from error


def _lines(answer: Mapping[str, Any]) -> str:
    return "\n".join(f"{key:>21}  {_readable(value)}" for key, value in answer.items())


def _readable(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


if __name__ == "__main__":
    sys.exit(main())
