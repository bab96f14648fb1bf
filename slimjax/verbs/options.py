"""What the verbs of the command line take. Nothing here imports JAX: `--help` answers at once."""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
from types import MappingProxyType
from typing import Any

from slimjax.errors import UserError

# Those of profiling.tpu, which takes seconds to import; a test holds them together.
BENCH_TARGETS = ("cpu", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e")
# Those of search_run, likewise.
METHODS = ("bayes", "evolution", "greedy", "history")
OPTION_OF = MappingProxyType({"name": "model", "timeout_seconds": "timeout", "groups": "only"})
"""Arguments of library code that the command line calls otherwise."""

NETWORK = ("multiplier", "num_classes", "image_size", "divisor")
# What a config says instead.
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
# Those of costs, likewise.
CONVENTIONS = ("plain", "slimmable", "joslim", "tfnas")


def define_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["claims", "step", "table", "costs", "search", "rescore"])
    parser.add_argument("--only", help="algorithms whose claims to decide, such as snet,usnet (default: all)")
    parser.add_argument("--config", help="for step: a config file, with --config.key=value overrides")
    parser.add_argument(
        "--repeats", type=int, default=20, help="for step, search, rescore: timed repetitions (default: 20)"
    )
    parser.add_argument("--target", choices=BENCH_TARGETS, help="for step: default is the attached device")
    parser.add_argument(
        "--against", choices=["torch", "torch.compile"], help="for step: time the same step in PyTorch too"
    )
    parser.add_argument("--seeds", type=int, default=5, help="networks per arm (default: 5)")
    parser.add_argument(
        "--workdir", type=_directory, default="runs/claims", help="keeps measurements; a later call goes on"
    )
    parser.add_argument("--table", help="for table: a latency table")
    parser.add_argument(
        "--subnets", type=int, default=40, help="for table, costs, rescore: random subnets (default: 40)"
    )
    parser.add_argument("--model", help="for costs, rescore: a model's name")
    parser.add_argument("--batch", type=int, default=128, help="for rescore: images (default: 128)")
    parser.add_argument(
        "--spread", type=float, default=0.1, help="for rescore: of layers' widths in a subnet (default: 0.1)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="for table, rescore, search: of what is random (default: 0)"
    )
    parser.add_argument(
        "--history", type=int, default=1000, help="for search: visited points (default: 1000)"
    )
    parser.add_argument("--dims", type=int, default=30, help="for search: channel groups (default: 30)")
    parser.add_argument(
        "--warm", action="store_true", help="for search: fits begin where those of the last proposals ended"
    )
    define_sweep(parser)


def define_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="a config file; it is Python code and is run")
    parser.add_argument(
        "--workdir", required=True, type=_directory, help="where checkpoints and results go; gs:// works"
    )


def define_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, type=_directory, help="of a training run")
    parser.add_argument("--widths", help="uniform widths, such as 0.25,0.3,1")
    parser.add_argument("--subnet", help="channels by group, such as '{\"stage1\": 8}'; others stay full")


def define_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, type=_directory, help="of a training run")
    parser.add_argument(
        "--budget",
        required=True,
        nargs="+",
        help="such as 'macs<=0.5' (a fraction of the largest network's) or 'latency_ms<=3.2@table.json'",
    )
    parser.add_argument(
        "--method", choices=METHODS, default="bayes", help="history: what Joslim's training has visited"
    )
    parser.add_argument("--trials", type=int, default=200, help="for bayes, evolution (default: 200)")
    parser.add_argument("--images", type=int, help="to score on (default: the config's scoring.images)")
    parser.add_argument(
        "--split", choices=["holdout", "train"], default="holdout", help="of these images (default: holdout)"
    )
    parser.add_argument("--seed", type=int, default=0)


def define_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, nargs="+", metavar="FILE", help="config files, run in turn"
    )
    parser.add_argument("--topology", required=True, help="a slice, such as v5e:4x4 or v4:2x2x1")


def define_cost(parser: argparse.ArgumentParser) -> None:
    define_network(parser)
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


def define_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True)
    define_changes(parser)


def define_changes(parser: argparse.ArgumentParser) -> None:
    """What differs from the network that a model's name means."""
    parser.add_argument("--multiplier", type=float, help="of all channels, for example 2 for ResNet-20 2x")
    parser.add_argument("--num-classes", "--num_classes", type=int)
    parser.add_argument("--image-size", "--image_size", type=int, help="pixels of a side")
    parser.add_argument("--divisor", type=int, help="channels in multiples of it (default: the model's rule)")


def network(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `define_network` defines, as arguments of `supernet.named`."""
    given = {key: getattr(arguments, key) for key in NETWORK}
    return {"name": arguments.model} | {key: value for key, value in given.items() if value is not None}


def define_profile(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="a model's name")
    which.add_argument("--config", help="a config file, with --config.key=value overrides: its own network")
    define_changes(parser)
    parser.add_argument(
        "--target", required=True, help="cpu, gpu, tpu; tpu-v5e and its like; roofline:DEVICE"
    )
    parser.add_argument("--out", required=True, help="the table, a JSON file")
    parser.add_argument("--batch", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32")
    parser.add_argument(
        "--points", type=int, default=5, help="channel counts along each of two axes (default: 5)"
    )
    parser.add_argument(
        "--min-width", "--min_width", type=float, help="smallest width (default: the model's)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of a measurement (default: 7)")
    parser.add_argument("--monotone", action="store_true", help="repair: no latency falls when channels rise")
    define_sweep(parser)


def refuse_changes(arguments: argparse.Namespace) -> None:
    """Raises: UserError: flags that change a named network, beside a config, which says everything itself."""
    for name, field in CONFIG_FIELDS.items():
        if getattr(arguments, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')}: goes with --model. With --config write --config.{field}=VALUE."
            )


def define_report(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tables", nargs="+", metavar="FILE", help="latency tables")
    what.add_argument(
        "--workdir", nargs="+", metavar="DIR", type=_directory, help="finished runs, four at most"
    )
    parser.add_argument("--table", help="for --workdir: a latency table; compares by milliseconds too")
    parser.add_argument("--out", required=True, help="the page, an HTML file")


def define_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one entry (default: 300)")
    parser.add_argument("--retries", type=int, default=2, help="further attempts at an entry (default: 2)")
    parser.add_argument(
        "--processes", type=int, help="at work at a time (default: one to measure, else one per core)"
    )
    parser.add_argument("--cache", help="folder of readings (default: ~/.cache/slimjax/latency)")


def sweep(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `define_sweep` defines, as fields of `profile.ProfileRequest`."""
    fields = {
        "timeout_seconds": arguments.timeout,
        "retries": arguments.retries,
        "processes": arguments.processes,
        "cache": arguments.cache,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _directory(text: str) -> str:
    """A workdir, absolute, because Orbax writes to no other."""
    if not text or pathlib.Path(text).is_file():
        raise argparse.ArgumentTypeError(f"expected a directory, got {text!r}")
    if text.startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise argparse.ArgumentTypeError("gs:// needs gcsfs: pip install 'slimjax[gcs]'")
    return text if "://" in text else str(pathlib.Path(text).expanduser().absolute())
