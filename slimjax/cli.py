"""The command line: `slimjax VERB ...`. A mistake of the user's is one message and exit code 2."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from slimjax.errors import RunError, UserError

if TYPE_CHECKING:  # importing it takes time that --help does not need
    from ml_collections import ConfigDict

# Those of profiling.tpu, which takes seconds to import; a test holds them together.
BENCH_TARGETS = ("cpu", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e")
# Those of costs, likewise.
CONVENTIONS = ("plain", "slimmable", "joslim", "tfnas")
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
    from slimjax import config_file, train  # after the arguments: importing JAX takes seconds

    config = config_file.load(arguments.config, rest)
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
    """Count MACs, parameters and peak memory of a network at a width."""
    from slimjax import cost_query

    _no_more(rest)
    subnet = None if arguments.subnet is None else _parse_json("--subnet", arguments.subnet)
    answer = cost_query.run(
        width=arguments.width,
        subnet=subnet,
        variant=arguments.variant,
        batch=arguments.batch,
        table=arguments.table,
        monotone=arguments.monotone,
        convention=arguments.convention,
        **_network(arguments),
    )
    _print_answer(arguments, answer)


def run_profile(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Build a table of a network's latency over channels, for a device that is here or for a TPU that is not."""
    from slimjax import latency
    from slimjax.profiling import profile

    _no_more(rest)
    network = {**_network(arguments), "dtype": arguments.dtype, "min_width": arguments.min_width}
    settings = profile.Settings(
        network, arguments.target, arguments.batch, arguments.repeats, **_sweep(arguments)
    )
    table = profile.run(settings, arguments.points)
    table = latency.monotone(table) if arguments.monotone else table
    table.save(arguments.out)
    _print_answer(arguments, {"out": arguments.out, **table.summary()})


def run_compile(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Ask the TPU compiler whether configs fit a pod slice and how fast they are. Overrides apply to all."""
    from slimjax import compile_query, config_file

    configs = {path: config_file.load(path, rest) for path in arguments.config}
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
    if arguments.what == "table":
        _bench_table(arguments, rest)
        return
    from slimjax.bench import claims

    _no_more(rest)
    _start_jax()
    groups = list(claims.GROUPS) if arguments.only is None else arguments.only.split(",")
    results = claims.run(groups, arguments.seeds, arguments.workdir)
    print(json.dumps(results) if arguments.json else claims.format_table(results), flush=True)


def _bench_step(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax import config_file

    if arguments.config is None:
        raise UserError("bench step: expected --config FILE.")
    if arguments.repeats < 1:
        raise UserError(f"--repeats: expected 1 or more, got {arguments.repeats}.")
    config = config_file.load(arguments.config, rest)
    _print_answer(arguments, _on_target(arguments, config))


def _bench_table(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.bench import table

    _no_more(rest)
    if arguments.table is None:
        raise UserError("bench table: expected --table FILE (slimjax profile makes one).")
    _print_answer(
        arguments, table.run(arguments.table, arguments.subnets, arguments.seed, **_sweep(arguments))
    )


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
    parser.add_argument("what", choices=["claims", "step", "table"])
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
    parser.add_argument("--table", help="for table: a latency table")
    parser.add_argument("--subnets", type=int, default=40, help="for table: random subnets (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="for table: of the random subnets (default: 0)")
    _define_sweep(parser)


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
    _define_network(parser)
    parser.add_argument("--width", type=float, help="uniform width multiplier (default: the full network)")
    parser.add_argument("--subnet", help="channels by group, such as '{\"stage1\": 8}'; others stay full")
    parser.add_argument(
        "--variant", help="a published subnet of the model, such as 305M of autoslim_mobilenet_v2"
    )
    parser.add_argument("--table", help="a latency table: answer milliseconds too")
    parser.add_argument(
        "--monotone", action="store_true", help="repair the table: no latency falls when channels rise"
    )
    parser.add_argument(
        "--batch", type=int, default=1, help="images that the peak memory is for (default: 1)"
    )
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        help="what counts as a MAC (default: as the model's paper has it)",
    )


def _define_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True)
    parser.add_argument("--multiplier", type=float, help="of all channels, for example 2 for ResNet-20 2x")
    parser.add_argument("--num-classes", "--num_classes", type=int)
    parser.add_argument("--image-size", "--image_size", type=int, help="pixels of a side")


def _network(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `_define_network` defines, as arguments of `supernet.named`."""
    given = {key: getattr(arguments, key) for key in ("multiplier", "num_classes", "image_size")}
    return {"name": arguments.model} | {key: value for key, value in given.items() if value is not None}


def _define_profile(parser: argparse.ArgumentParser) -> None:
    _define_network(parser)
    parser.add_argument(
        "--target", required=True, help="cpu, gpu, tpu; tpu-v5e and its like; roofline:DEVICE"
    )
    parser.add_argument("--out", required=True, help="the table, a JSON file")
    parser.add_argument("--batch", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--points", type=int, default=5, help="channel counts along each of two axes (default: 5)"
    )
    parser.add_argument(
        "--min-width", "--min_width", type=float, help="smallest width (default: the model's)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of a measurement (default: 7)")
    parser.add_argument("--monotone", action="store_true", help="repair: no latency falls when channels rise")
    _define_sweep(parser)


def _define_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one entry (default: 300)")
    parser.add_argument("--retries", type=int, default=2, help="further attempts at an entry (default: 2)")
    parser.add_argument(
        "--processes", type=int, help="at work at a time (default: one to measure, else one per core)"
    )
    parser.add_argument("--cache", help="folder of readings (default: ~/.cache/slimjax/latency)")


def _sweep(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `_define_sweep` defines, as fields of `profile.Settings`."""
    fields = {
        "timeout_seconds": arguments.timeout,
        "retries": arguments.retries,
        "processes": arguments.processes,
        "cache": arguments.cache,
    }
    return {key: value for key, value in fields.items() if value is not None}


VERBS: Mapping[str, tuple[Verb, Callable[[argparse.ArgumentParser], None]]] = MappingProxyType(
    {
        "train": (run_train, _define_train),
        "evaluate": (run_evaluate, _define_evaluate),
        "cost": (run_cost, _define_cost),
        "profile": (run_profile, _define_profile),
        "compile": (run_compile, _define_compile),
        "bench": (run_bench, _define_bench),
    }
)


def _start_jax() -> None:
    """Joins the launch's other processes and keeps compiled programs from run to run."""
    import jax

    from slimjax import sharding

    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/slimjax/programs")
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache).expanduser()))
    sharding.initialize_processes()


def _print_answer(arguments: argparse.Namespace, answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer) if arguments.json else _lines(answer), flush=True)


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
