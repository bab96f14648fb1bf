"""The other side of a comparison: PyTorch in a process of its own, asked for one step at a time."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from slimjax.errors import BadValue
from slimjax.experiment.build import Experiment
from slimjax.models.resnet import CifarResNet
from slimjax.nn.space import Subnet
from slimjax.worker import Worker


@contextlib.contextmanager
def torch_side(
    side: str, experiment: Experiment, proposals: Sequence[Subnet]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """(its version, a function that makes one step of the configured algorithm in PyTorch).

    Raises:
      BadValue: PyTorch is not installed, or has no counterpart of the network here.
    """
    if importlib.util.find_spec("torch") is None:
        raise BadValue("against", "PyTorch is not installed: pip install -e '.[torch]'.")
    spec, steps = _spec(side, experiment), _widths(experiment, proposals)
    with Worker("slimjax.bench.torch_side", spec) as worker:
        count = 0

        def once() -> None:
            nonlocal count
            worker.ask(steps[count % len(steps)])
            count += 1

        once()
        yield f"{side} {worker.hello['version']}", once


def _spec(side: str, experiment: Experiment) -> dict[str, Any]:
    model, config, slots = experiment.net.model, experiment.config, experiment.algorithm.at(0).step.slots
    if not isinstance(model, CifarResNet):
        raise BadValue("against", f"PyTorch has a CIFAR ResNet to compare with, got {type(model).__name__}.")
    return {
        "compile": side == "torch.compile",
        "blocks": (model.depth - 2) // 6,
        "channels": model.channels,
        "multiplier": model.multiplier,
        "classes": model.num_classes,
        "stem_stride": model.stem_stride,
        "image_shape": experiment.net.image_shape,
        "batch": config.train.batch_size,
        "dtype": config.model.dtype,
        "label_smoothing": config.train.label_smoothing,
        "affine": list(dict.fromkeys(slot.affine for slot in slots)),
        "slots": [{"affine": s.affine, "stats": s.stats is not None, "target": s.target} for s in slots],
        "optimizer": {
            "lr": config.optimizer.learning_rate,
            "momentum": config.optimizer.momentum,
            "nesterov": config.optimizer.nesterov,
            "weight_decay": config.optimizer.weight_decay,
        },
    }


def _widths(experiment: Experiment, proposals: Sequence[Subnet]) -> list[list[dict[str, int]]]:
    """Per step, per slot: channels by group."""
    names = [group.name for group in experiment.net.space.groups]
    slots = experiment.algorithm.at(0).step.slots
    steps = []
    for rows in proposals:
        remaining = iter(rows)
        subnets = [next(remaining) if s.subnet is None else s.subnet for s in slots]
        steps.append([{n: int(c) for n, c in zip(names, subnet, strict=True)} for subnet in subnets])
    return steps
