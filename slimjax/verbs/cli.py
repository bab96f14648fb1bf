"""The command line: `slimjax VERB ...`. A mistake of the user's is one message and exit code 2."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from slimjax.errors import BadValue, RunError, UserError
from slimjax.verbs import options

if TYPE_CHECKING:  # importing it takes time that --help does not need
    from ml_collections import ConfigDict

Verb = Callable[[argparse.Namespace, list[str]], None]


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 the run failed, 2 a mistake of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = argparse.Namespace()
    try:
        arguments, rest = make_parser().parse_known_args(argv)
        arguments.command = shlex.join(["slimjax", *argv])
        arguments.run(arguments, rest)
    except BadValue as error:
        return _fail(argv, f"{_as_written(error.name, arguments)}: {error.problem}", 2)
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
    from slimjax.experiment import config_file, loop  # after the arguments: importing JAX takes seconds

    config = config_file.load(arguments.config, rest)
    _start_jax()
    _print_rows(arguments, loop.train(config, arguments.workdir, arguments.command))


def run_evaluate(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Calibrate and measure any widths of a trained network."""
    from slimjax.verbs import evaluate

    _no_more(rest)
    _start_jax()
    subnet = None if arguments.subnet is None else _parse_json("--subnet", arguments.subnet)
    _print_rows(arguments, evaluate.run(arguments.workdir, _floats("--widths", arguments.widths), subnet))


def run_search(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Find the best subnets of a trained network under budgets, and save them as architecture files."""
    from slimjax.verbs import search

    _no_more(rest)
    _start_jax()
    wanted = search.Search(
        arguments.workdir,
        tuple(arguments.budget),
        arguments.method,
        arguments.images,
        arguments.trials,
        arguments.split,
        arguments.seed,
    )
    _print_rows(arguments, search.run(wanted))


def run_cost(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Count MACs, parameters and peak memory of a network at a width."""
    from slimjax.verbs import cost

    _no_more(rest)
    subnet = None if arguments.subnet is None else _parse_json("--subnet", arguments.subnet)
    answer = cost.run(
        width=arguments.width,
        subnet=subnet,
        variant=arguments.variant,
        batch=arguments.batch,
        table=arguments.table,
        monotone=arguments.monotone,
        convention=arguments.convention,
        **options.network(arguments),
    )
    _print_answer(arguments, answer)


def run_profile(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Build a table of a network's latency over channels, for a device that is here or for a TPU that is not."""
    from slimjax.cost import latency
    from slimjax.profiling import page, profile

    _use_cpu()
    request = profile.ProfileRequest(
        _profiled_network(arguments, rest),
        arguments.target,
        arguments.batch,
        arguments.repeats,
        **options.sweep(arguments),
    )
    table = profile.run(request, arguments.points)
    table = latency.monotone(table) if arguments.monotone else table
    table.save(arguments.out)
    picture = str(pathlib.Path(arguments.out).with_suffix(".html"))
    page.write(picture, [table], arguments.command)
    _print_answer(arguments, {"out": arguments.out, "page": picture, **table.summary()})


def _profiled_network(arguments: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """Of a name or of a config, as arguments of `supernet.named`."""
    if arguments.config is None:
        _no_more(rest)
        dtype = arguments.dtype or "float32"
        return {**options.network(arguments), "dtype": dtype, "min_width": arguments.min_width}
    from slimjax.experiment import build, config_file

    options.refuse_changes(arguments)
    return build.read_network(config_file.load(arguments.config, rest))


def run_report(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Draw several runs' fronts, or latency tables of several targets or networks, on one page."""
    _no_more(rest)
    if arguments.workdir:
        from slimjax.verbs import report

        compared = report.write(arguments.out, arguments.workdir, arguments.command, arguments.table)
        _print_answer(arguments, {"out": arguments.out, "runs": compared})
        return
    if arguments.table is not None:
        raise UserError("--table: goes with --workdir. Tables to draw are given as --tables.")
    from slimjax.cost import latency
    from slimjax.profiling import page

    page.write(arguments.out, [latency.load(path) for path in arguments.tables], arguments.command)
    _print_answer(arguments, {"out": arguments.out})


def run_compile(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Ask the TPU compiler whether configs fit a pod slice and how fast they are. Overrides apply to all."""
    from slimjax.experiment import config_file
    from slimjax.verbs import compile

    configs = {path: config_file.load(path, rest) for path in arguments.config}
    answers = compile.run(configs, arguments.topology)
    if arguments.json:
        print(json.dumps({"results": answers}), flush=True)
    elif len(answers) == 1:
        print(_lines(answers[0]), flush=True)
    else:
        print(compile.format_answers(answers), flush=True)
    if failed := [answer["config"] for answer in answers if "error" in answer]:
        raise RunError(f"no answer for {', '.join(failed)}: see what is printed.")


def run_bench(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Measure what README claims: `claims` of the papers, a `step`, a `table`, `costs`, a `search`, `rescore`."""
    benches = {
        "claims": _bench_claims,
        "step": _bench_step,
        "table": _bench_table,
        "costs": _bench_costs,
        "search": _bench_search,
        "rescore": _bench_rescore,
    }
    benches[arguments.what](arguments, rest)


def _bench_claims(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.bench.claims import decide

    _no_more(rest)
    _start_jax()
    groups = list(decide.GROUPS) if arguments.only is None else arguments.only.split(",")
    results = decide.run(groups, arguments.seeds, arguments.workdir)
    print(json.dumps(results) if arguments.json else decide.format_table(results), flush=True)


def _bench_step(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.experiment import config_file

    if arguments.config is None:
        raise UserError("bench step: expected --config FILE.")
    if arguments.repeats < 1:
        raise UserError(f"--repeats: expected 1 or more, got {arguments.repeats}.")
    config = config_file.load(arguments.config, rest)
    _print_answer(arguments, _on_target(arguments, config))


def _bench_costs(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.bench import costs

    _no_more(rest)
    _use_cpu()
    if arguments.model is None:
        raise UserError("bench costs: expected --model NAME.")
    _print_answer(arguments, costs.run(arguments.model, arguments.subnets))


def _bench_rescore(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.bench import rescore

    _no_more(rest)
    if arguments.model is None:
        raise UserError("bench rescore: expected --model NAME.")
    given = (arguments.model, arguments.subnets, arguments.batch, arguments.repeats)
    _print_answer(arguments, rescore.run(*given, spread=arguments.spread, seed=arguments.seed))


def _bench_table(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.bench import table

    _no_more(rest)
    _use_cpu()
    if arguments.table is None:
        raise UserError("bench table: expected --table FILE (slimjax profile makes one).")
    _print_answer(
        arguments, table.run(arguments.table, arguments.subnets, arguments.seed, **options.sweep(arguments))
    )


def _bench_search(arguments: argparse.Namespace, rest: list[str]) -> None:
    from slimjax.bench import search

    _no_more(rest)
    for flag, least in {"history": 3, "dims": 2, "repeats": 1, "seed": 0}.items():
        if getattr(arguments, flag) < least:
            raise UserError(f"--{flag}: expected {least} or more, got {getattr(arguments, flag)}.")
    answer = search.run(arguments.history, arguments.dims, arguments.repeats, arguments.warm, arguments.seed)
    _print_answer(arguments, answer)


def _on_target(arguments: argparse.Namespace, config: ConfigDict) -> dict[str, Any]:
    """Times on the attached device; a TPU that is not there is estimated."""
    from slimjax.bench import step
    from slimjax.profiling import tpu

    target = arguments.target
    if target in tpu.TARGETS and not tpu.is_attached():
        if arguments.against:
            raise UserError(f"--against: PyTorch can be timed on this machine, not estimated for {target}.")
        return step.estimate(config, target)
    if target == "cpu":
        _use_cpu()
    _start_jax()
    return step.run(config, arguments.repeats, arguments.against)


VERBS: Mapping[str, tuple[Verb, Callable[[argparse.ArgumentParser], None]]] = MappingProxyType(
    {
        "train": (run_train, options.define_train),
        "evaluate": (run_evaluate, options.define_evaluate),
        "search": (run_search, options.define_search),
        "cost": (run_cost, options.define_cost),
        "profile": (run_profile, options.define_profile),
        "report": (run_report, options.define_report),
        "compile": (run_compile, options.define_compile),
        "bench": (run_bench, options.define_bench),
    }
)


def _use_cpu() -> None:
    """This process only traces, or is to use the CPU: accelerators are left to others."""
    import jax

    jax.config.update("jax_platforms", "cpu")


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

    from slimjax.report import page

    if jax.process_index() == 0:
        print(json.dumps(rows) if arguments.json else page.format_table(rows), flush=True)


def _fail(argv: Sequence[str], message: str, code: int) -> int:
    verb = next((word for word in argv if not word.startswith("-")), "")
    print(f"slimjax {verb}: error: {message}".replace("slimjax :", "slimjax:"), file=sys.stderr)
    return code


def _as_written(name: str, arguments: argparse.Namespace) -> str:
    """The option that gave library code an argument of this name; the name itself, where none did."""
    option = options.OPTION_OF.get(name, name)
    given = getattr(arguments, option, None) is not None
    return f"--{option.replace('_', '-')}" if given else name


def _no_more(rest: list[str]) -> None:
    if rest:
        raise UserError(
            f"unexpected arguments: {' '.join(rest)}. Config fields are set by --config.key=value."
        )


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
