"""What each verb, and each tool of bench, takes. Nothing here imports JAX: `--help` answers at once."""

from __future__ import annotations

import argparse
from types import MappingProxyType

from slimjax.verbs.arguments import Commands, add_commands
from slimjax.verbs.shared_options import (
    add_changes,
    add_config,
    add_json,
    add_random,
    add_subnet,
    define_sweep,
    directory,
    numbers,
)

# Words of modules that take seconds to import; tests hold them together.
BENCH_TARGETS = ("cpu", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e")  # of profiling.tpu
IMPORTANCES = ("l1", "l2", "gamma", "depthwise")  # of nn.filters
METHODS = ("bayes", "coarse_to_fine", "elastic", "evolution", "greedy", "history")  # of verbs.search
CONVENTIONS = ("plain", "slimmable", "joslim", "tfnas")  # of cost.counts

NETWORK = ("multiplier", "num_classes", "image_size", "divisor")
"""Options that change a named network, as arguments of `supernet.named`."""

CONFIG_FIELDS = MappingProxyType(
    {
        "multiplier": "model.options.multiplier",
        "num_classes": "data.num_classes",
        "image_size": "data.image_size",
        "divisor": "model.divisor",
        "dtype": "model.dtype",
        "min_width": "model.min_width",
    }
)
"""What a config says instead."""

# Verbs


def define_train(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_config(parser)
    parser.add_argument(
        "--workdir", required=True, type=directory, help="where checkpoints and results go; gs:// works"
    )


def define_config(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_config(parser)


def define_configs(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def define_evaluate(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--workdir", required=True, type=directory, help="of a training run")
    parser.add_argument("--widths", type=numbers, help="uniform widths, such as 0.25,0.3,1")
    add_subnet(parser)


def define_search(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--workdir", required=True, type=directory, help="of a training run")
    parser.add_argument(
        "--budget",
        required=True,
        nargs="+",
        help="such as 'macs<=0.5' (a fraction of the largest network's) or 'latency_ms<=3.2@table.json'",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="default: bayes; elastic: one architecture, scaled; history: what training has visited",
    )
    parser.add_argument(
        "--from", metavar="FILE", help="for elastic: an architecture file (default: the largest subnet)"
    )
    parser.add_argument(
        "--trials", type=int, help="to score at most; for evolution in whole generations (default: 200)"
    )
    parser.add_argument("--seed", type=int, help="of what is random (default: 0)")
    parser.add_argument("--images", type=int, help="to score on (default: the config's scoring.images)")
    parser.add_argument("--split", choices=["holdout", "train"], help="of these images (default: holdout)")
    parser.add_argument(
        "--reorder",
        choices=IMPORTANCES,
        help="sort the trained channels first: by the norm of their filters, of their gammas, or of their depthwise "
        "filters alone (default: not)",
    )


def define_cost(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--model", required=True, help="a model's name")
    add_changes(parser)
    parser.add_argument("--width", type=float, help="uniform width multiplier (default: the full network)")
    add_subnet(parser)
    parser.add_argument(
        "--variant", help="a published subnet of the model, such as 305M of autoslim_mobilenet_v2"
    )
    parser.add_argument("--table", help="a latency table: answer milliseconds too")
    parser.add_argument(
        "--monotone", action="store_true", help="repair the table: no latency falls when channels rise"
    )
    parser.add_argument("--batch", type=int, help="images that the peak memory is for (default: 1)")
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        help="what counts as a MAC (default: as the model's paper has it)",
    )


def define_profile(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="a model's name")
    which.add_argument("--config", help="a config file, with --config.key=value overrides: its own network")
    add_changes(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--target", help="cpu, gpu, tpu; tpu-v5e and its like; roofline:DEVICE")
    source.add_argument(
        "--import", metavar="FILE", help="take latencies from a table in TF-NAS's released form, as JSON"
    )
    source.add_argument("--export", metavar="TABLE", help="write a table in TF-NAS's released form, as JSON")
    parser.add_argument("--device", help="for --import: what the latencies were measured on")
    parser.add_argument("--out", required=True, help="the table, a JSON file")
    parser.add_argument("--batch", type=int, help="images at a time (default: 32; --import needs it)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32")
    parser.add_argument("--points", type=int, help="channel counts along each of two axes (default: 5)")
    parser.add_argument(
        "--min-width", "--min_width", type=float, help="smallest width (default: the model's)"
    )
    parser.add_argument("--repeats", type=int, help="for cpu, gpu, tpu: rounds that are timed (default: 7)")
    parser.add_argument("--monotone", action="store_true", help="repair: no latency falls when channels rise")
    define_sweep(parser)


def define_report(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tables", nargs="+", metavar="FILE", help="latency tables")
    what.add_argument(
        "--workdir", nargs="+", metavar="DIR", type=directory, help="finished runs, four at most"
    )
    parser.add_argument("--table", help="for --workdir: a latency table; compares by milliseconds too")
    parser.add_argument(
        "--architectures",
        nargs="+",
        metavar="FILE",
        help="for --tables, two of them: architecture files, drawn by their milliseconds on both",
    )
    parser.add_argument("--out", required=True, help="the page, an HTML file")


def define_compile(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument(
        "--config", required=True, nargs="+", metavar="FILE", help="config files, run in turn"
    )
    parser.add_argument("--topology", required=True, help="a slice, such as v5e:4x4 or v4:2x2x1")


def define_bench(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, "tool", BENCHES)


VERBS: Commands = MappingProxyType(
    {
        "train": (
            "Train, calibrate, evaluate, report; on the same workdir, resume. Overrides: --config.key=value.",
            define_train,
        ),
        "config": (
            "Print every setting of a config, and mark what differs from the defaults.",
            define_config,
        ),
        "configs": ("List the configs that ship with the package, with their arguments.", define_configs),
        "evaluate": ("Calibrate and measure any widths of a trained network.", define_evaluate),
        "search": (
            "Find the best subnets of a trained network under budgets, and save them as architecture files.",
            define_search,
        ),
        "cost": ("Count MACs, parameters and peak memory of a network at a width.", define_cost),
        "profile": (
            "Build a table of a network's latency over channels, for a device that is here or for a TPU that is not.",
            define_profile,
        ),
        "report": (
            "Draw several runs' fronts, or latency tables of several targets or networks, on one page.",
            define_report,
        ),
        "compile": (
            "Ask the TPU compiler whether configs fit a pod slice and how fast they are. Overrides apply to all.",
            define_compile,
        ),
        "bench": ("Measure what the docs say.", define_bench),
    }
)
"""A verb has a module of its name, whose `run` takes the parsed arguments and the overrides of the config."""


# Tools of bench


def define_claims(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--only", help="algorithms whose claims to decide, such as snet,usnet (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="networks per arm (default: 5)")
    parser.add_argument(
        "--workdir", type=directory, default="runs/claims", help="keeps measurements; a later call goes on"
    )


def define_step(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_config(parser)
    parser.add_argument("--target", choices=BENCH_TARGETS, help="default: the attached device")
    parser.add_argument("--repeats", type=int, help="rounds, if steps are timed (default: 20)")
    parser.add_argument(
        "--against",
        choices=["flax", "torch", "torch.compile"],
        help="the largest network's step in plain Flax too, or the whole step in PyTorch",
    )


def define_bisampling(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_config(parser)
    parser.add_argument("--repeats", type=int, help="rounds of every step (default: 10)")
    parser.add_argument("--paths", type=int, help="different paths that are run first (default: 1000)")


def define_table(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--table", required=True, help="a latency table; slimjax profile makes one")
    parser.add_argument(
        "--architectures", nargs="+", metavar="FILE", help="architecture files instead of random subnets"
    )
    add_random(parser)
    define_sweep(parser)


def define_costs(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--model", required=True, help="a model's name")
    parser.add_argument("--subnets", type=int, default=40, help="random subnets (default: 40)")


def define_bench_search(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--history", type=int, default=1000, help="visited points (default: 1000)")
    parser.add_argument("--dims", type=int, default=30, help="channel groups (default: 30)")
    parser.add_argument("--repeats", type=int, default=20, help="proposals that are timed (default: 20)")
    parser.add_argument(
        "--warm", action="store_true", help="fits begin where those of the last proposals ended"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: 0)")


def define_rescore(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--model", required=True, help="a model's name")
    add_random(parser)
    parser.add_argument("--batch", type=int, default=128, help="images (default: 128)")
    parser.add_argument("--repeats", type=int, default=20, help="parts that are timed (default: 20)")
    parser.add_argument(
        "--spread", type=float, default=0.1, help="of layers' widths in a subnet (default: 0.1)"
    )


def define_elasticity(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--table", help="a latency table (default: a roofline of TF-NAS's network)")
    parser.add_argument("--subnets", type=int, default=150, help="random architectures (default: 150)")
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: 0)")
    parser.add_argument("--targets", type=numbers, help="milliseconds, such as 10,12 (default: of the table)")
    define_sweep(parser)


def define_input(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_config(parser)
    parser.add_argument("--batches", type=int, help="that are timed (default: 50)")


def define_device(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--out", required=True, help="a JSON file; a page and a latency table come beside it")
    parser.add_argument("--minutes", type=float, help="after which no part begins (default: 10)")
    parser.add_argument(
        "--config", nargs="+", metavar="FILE", help="steps to time instead of the usual ones; takes overrides"
    )


def define_staircase(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--table", required=True, help="a latency table; slimjax profile makes one")
    parser.add_argument("--trials", type=int, help="of each search (default: 100)")
    parser.add_argument("--seeds", type=int, help="searches of each kind (default: 3)")
    parser.add_argument(
        "--cost-model", choices=["gp", "exact"], help="what the optimiser knows of costs (default: exact)"
    )


BENCHES: Commands = MappingProxyType(
    {
        "claims": ("Decide the papers' claims on small real data.", define_claims),
        "step": (
            "Time a training step against its slices and the full network alone, or estimate it for a TPU.",
            define_step,
        ),
        "bisampling": (
            "Time a step of two drawn paths against one path, and against networks cut out for them.",
            define_bisampling,
        ),
        "table": (
            "Compare a latency table with whole networks, measured or compiled as its entries were.",
            define_table,
        ),
        "costs": ("Time the costing of many subnets.", define_costs),
        "search": (
            "Time proposals of the Bayesian optimiser, on networks that are made up.",
            define_bench_search,
        ),
        "elasticity": (
            "Scale random architectures to targets by a latency table: how near they come, and how fast.",
            define_elasticity,
        ),
        "device": (
            "Measure everything on the attached device: steps, input, a latency table; goes on where it stopped.",
            define_device,
        ),
        "input": ("Time how many images a second the host makes ready.", define_input),
        "staircase": (
            "Search a table's network by MACs and by milliseconds, with a made-up loss: what steps of latency give.",
            define_staircase,
        ),
        "rescore": (
            "Time scoring many subnets against as many masked forward passes.",
            define_rescore,
        ),
    }
)
