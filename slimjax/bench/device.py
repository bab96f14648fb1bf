"""`slimjax bench device`: all that can be measured on what is attached, in one command that can be interrupted.

Every part is a command of its own, run in a process of its own, so that one does not hold what another needs. Answers
are kept in one file as they come; a later call goes on with the parts that it lacks.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from slimjax import files
from slimjax.checks import check, number
from slimjax.errors import RunError, UserError
from slimjax.progress import Progress
from slimjax.report.page import write_page

SCHEMA = 1

LARGE = (
    "--config.data.name=synthetic",
    "--config.data.image_size=224",
    "--config.data.channels=3",
    "--config.data.num_classes=1000",
    "--config.data.statistics=imagenet",
    "--config.data.augment=none",
    "--config.data.holdout=0",
    "--config.train.batch_size=64",
    "--config.devices=1",
)
SMALL = ("--config.data.name=synthetic", "--config.data.statistics=cifar10", "--config.devices=1")
LONGEST = 240.0
"""Seconds after which a part is stopped."""

NETWORKS = ("resnet50", "resnet18", "us_mobilenet_v2")

_HELLO = """
import jax, json
found = jax.devices()
print(json.dumps([jax.__version__, len(found), found[0].platform, found[0].device_kind]))
"""


@dataclasses.dataclass(frozen=True)
class Part:
    """A command of slimjax whose JSON is kept."""

    name: str
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        return shlex.join(("slimjax", *self.words))


def parts(
    platform: str, table: str, configs: Sequence[str] = (), overrides: Sequence[str] = ()
) -> list[Part]:
    """What is measured on a platform ("cpu", "gpu" or "tpu"), the most telling first.

    Args:
      table: where the latency table goes.
      configs, overrides: steps that are timed instead of the usual ones.
    """
    on_cpu = platform == "cpu"
    small = ("--config", "slimjax:cifar_usnet:model=resnet20,classes=10", *SMALL)
    usual = (
        [small]
        if on_cpu
        else [("--config", f"slimjax:imagenet_usnet:model={name}", *LARGE) for name in NETWORKS]
    )
    steps = [("--config", config, *overrides) for config in configs] or usual
    rounds = ("--repeats", "5")
    found = [
        Part(f"step {i}", ("bench", "step", *step, *rounds, "--against", "flax"))
        for i, step in enumerate(steps, 1)
    ]
    if importlib.util.find_spec("torch") and not configs:
        sides = ("torch",) if on_cpu else ("torch", "torch.compile")
        found += [Part(side, ("bench", "step", *small, *rounds, "--against", side)) for side in sides]
    target = ("--target", platform, "--batch", "32", "--points", "3")
    return [
        *found,
        Part("input", ("bench", "input", *steps[0])),
        Part("table", ("profile", "--model", "resnet20", *target, "--out", table)),
        Part("table against networks", ("bench", "table", "--table", table, "--subnets", "12")),
    ]


def run(
    out: str, minutes: float = 10.0, configs: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs the parts that `out` lacks, until `minutes` are over, and writes `out` and a page beside it.

    Returns: the device, answers by part, and `missing`: parts by what kept them from an answer.

    Raises:
      RunError: there is no device that answers.
    """
    check("minutes", minutes, number(0, above=True))
    deadline = time.monotonic() + 60 * minutes
    version, count, platform, kind = _hello()
    about = {
        "device": f"{count} x {kind}",
        "platform": platform,
        "jax": version,
        "python": sys.version.split()[0],
    }
    known = _load(out, about)
    wanted = parts(platform, str(Path(out).with_suffix(".table.json")), configs, overrides)
    missing: dict[str, str] = {}
    with Progress(len(wanted), "device", noun="part") as progress:
        for part in wanted:
            if known.get(part.name, {}).get("command") != part.command:
                answer = _ask(part, min(LONGEST, deadline - time.monotonic()))
                if isinstance(answer, str):
                    missing[part.name] = answer
                else:
                    known[part.name] = {"command": part.command, **answer}
                    _save(out, about, known)
            progress.advance()
    found = {part.name: known[part.name] for part in wanted if part.name in known}
    _write_page(Path(out).with_suffix(".html"), about, found, missing)
    return {**about, "out": out, "parts": found, "missing": missing}


def _hello() -> tuple[str, int, str, str]:
    """In a process of its own: this one leaves the device alone."""
    asked = subprocess.run([sys.executable, "-c", _HELLO], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise RunError(f"JAX finds no device: {asked.stderr.strip().splitlines()[-1]}")
    version, count, platform, kind = json.loads(asked.stdout.splitlines()[-1])
    return version, count, platform, kind


def _ask(part: Part, seconds: float) -> dict[str, Any] | str:
    """The part's answer, or why there is none."""
    if seconds <= 0:
        return "no time left: run the command again"
    command = [sys.executable, "-m", "slimjax", *part.words, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _load(out: str, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers in the file. Raises: UserError: they are of another device or other versions."""
    if not Path(out).exists():
        return {}
    body = files.load(
        out,
        "measurements of a device",
        SCHEMA,
        dict,
        missing="slimjax bench device makes one.",
        mend="Delete it, or name another.",
    )
    if (found := {key: body.get(key) for key in about}) != about:
        raise UserError(f"--out: {out} is of {found}; this is {about}. Name another file.")
    return dict(body["parts"])


def _save(out: str, about: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    files.write_atomic(out, json.dumps({"schema": SCHEMA, **about, "parts": found}, indent=1) + "\n")


_COLUMNS = ("part", "full", "sandwich", "over slices", "over the other side", "more")


def _write_page(path: Path, about: dict[str, Any], found: dict[str, Any], missing: dict[str, str]) -> None:
    rows = [_row(name, answer) for name, answer in found.items()]
    notes = [f"{name}: not measured: {reason}" for name, reason in missing.items()]
    title = f"Measured on {about['device']}, jax {about['jax']}"
    write_page(path, title, list[Markup](), "Parts", _COLUMNS, rows, "slimjax bench device", notes)


def _row(name: str, answer: dict[str, Any]) -> tuple[str, ...]:
    def shown(key: str, form: str, unit: str = "") -> str:
        return f"{answer[key]:{form}}{unit}" if key in answer else ""

    more = [
        answer.get("config", ""),
        answer.get("against", ""),
        shown("images_per_second", ",.0f", " images/s"),
        f"rank correlation {answer['spearman']:.3f}" if "spearman" in answer else "",
    ]
    return (
        name, shown("full", ".2f", " ms"), shown("sandwich", ".2f", " ms"), shown("ratio_to_slices", ".3f"),
        shown("ratio_to_against", ".3f"), ", ".join(filter(None, more)),
    )  # fmt: skip
