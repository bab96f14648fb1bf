"""Slimmable networks: a few fixed widths (switches), trained together.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimjax.algorithms.base import Algorithm, Chosen
from slimjax.algorithms.turns import throughout
from slimjax.checks import check, number, one_of
from slimjax.errors import BadValue, UserError
from slimjax.nn.space import Subnet
from slimjax.nn.widths import width_name
from slimjax.step.composed import ComposedStep
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot
from slimjax.step.state import SHARED, TrainState
from slimjax.workdir import architecture


def snet(
    engine: Engine,
    *,
    widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    architectures: Sequence[str] = (),
    variants: Sequence[str] = (),
    private_affine: bool = True,
    private_stats: bool = True,
    private_tail: bool = False,
    inplace_distillation: bool = False,
    dropout: float = 0.0,
) -> Algorithm:
    """Every switch in every step, widest first, hard labels for all, gradients summed, one update.

    Paper: section 3.3 (switchable batch normalisation), algorithm 1.
    Differs: gammas, betas and statistics of a switch are stored at full size and used in leading slices,
    where the authors allocate each at its own size. What is used has the same size and begins with the same values.
    Reduces to: independent training of one width, when `widths` has one entry.

    Args:
      widths: the switches.
      architectures: files of subnets that are switches too, by the files' names (AutoSlim's last phase).
      variants: names of published subnets of the model that are switches too.
      private_affine: each switch has gammas and betas of its own.
      private_stats: each switch has running statistics of its own. With both false this is the naive shared
        batch norm, whose test accuracy collapses: every switch writes to the same statistics in turn.
      private_tail: also of norms whose channels are never narrowed, as the paper's text has it. False, as the released
        S-MobileNetV2 has its last 1280 channels: one norm, of which all switches train the gammas and betas and write
        the statistics in turn. Calibration gives each its own statistics there too.
      inplace_distillation: switches below the widest learn from its detached softmax.
      dropout: of the classifier's input, in every switch; and with it what the model says of drop-connect.
    """
    check("dropout", dropout, number(0, 0.99))
    switches = _switch_subnets(engine, widths, architectures, variants)
    slots = tuple(
        Slot(
            name=name,
            subnet=tuple(subnet.tolist()),
            affine=name if private_affine else SHARED,
            stats=name if private_stats else SHARED,
            target="teacher" if inplace_distillation and place else "labels",
            dropout=dropout,
        )
        for place, (name, subnet) in enumerate(switches.items())
    )
    nothing = np.zeros((0, len(engine.net.space)), np.int32)

    def choose(state: TrainState, subnets: Mapping[str, Subnet] | None = None) -> dict[str, Chosen]:
        del state
        return _switches(slots) if subnets is None else _owners(slots, subnets, private_affine)

    return Algorithm(
        phases=throughout(ComposedStep(engine, slots)),
        init=lambda seed: engine.init(seed, slots, shares_fixed=not private_tail),
        propose=lambda arrays, step: nothing,
        choose=choose,
    )


def _switch_subnets(
    engine: Engine, widths: Sequence[float], architectures: Sequence[str], variants: Sequence[str]
) -> dict[str, Subnet]:
    """Subnets by name, the costliest first."""
    space, published = engine.net.space, engine.net.variants
    for i, name in enumerate(variants):
        check(f"variants[{i}]", name, one_of(*published))
    named = {width_name(width): space.uniform(width) for width in widths}
    named |= {Path(path).stem: architecture.load(path).subnet(space) for path in architectures}
    named |= {name: space.from_channels(published[name]) for name in variants}
    if not named or len(named) < len(widths) + len(architectures) + len(variants):
        raise BadValue(
            "widths",
            f"expected one or more different widths, got {tuple(widths)} "
            f"(and architectures {tuple(architectures)} and variants {tuple(variants)}, whose names must differ too).",
        )
    return dict(sorted(named.items(), key=lambda item: -int(engine.net.macs(item[1]))))


def _switches(slots: Sequence[Slot]) -> dict[str, Chosen]:
    return {s.name: Chosen(np.array(s.subnet, np.int32), s.affine, s.stats) for s in reversed(slots)}


def _owners(slots: Sequence[Slot], subnets: Mapping[str, Subnet], private: bool) -> dict[str, Chosen]:
    """Each asked-for subnet with the gammas and betas of the switch that it equals."""
    by_channels: dict[Any, Slot] = {slot.subnet: slot for slot in reversed(slots)}
    result = {}
    for name, subnet in subnets.items():
        slot = by_channels.get(tuple(subnet.tolist()), None if private else slots[0])
        if slot is None:
            raise UserError(
                f"{name}: a slimmable network runs at its switches only "
                f"({', '.join(s.name for s in slots)}), "
                "because gammas and betas are private. Train a US-Net for arbitrary widths."
            )
        result[name] = Chosen(subnet, slot.affine, slot.stats)
    return result
