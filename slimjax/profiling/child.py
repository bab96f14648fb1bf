"""One child process of a sweep: `python -m slimjax.profiling.child`, asked by `sweep.workers`.

The greeting names a network and a target, each question a unit and its channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimjax import supernet
from slimjax.cost import units
from slimjax.cost.units import Unit
from slimjax.profiling import meters, sweep, tpu
from slimjax.supernet import Supernet
from slimjax.workdir.versions import versions
from slimjax.worker import serve


def main() -> None:
    serve(begin)


def begin(spec: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """(what this process says about its device, the function that reads one entry)."""
    device, meter = meters.make(spec["target"], spec["batch"], spec["repeats"])
    net = supernet.named(**spec["network"])
    known = {unit.key: unit for unit in units.divide(net.records)}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        key, sizes = question["unit"], question["sizes"]
        if (key, tuple(sizes)) == sweep.OVERHEAD:
            return meter(None, sizes)
        if key == sweep.WHOLE:
            return meter(*_whole(net, sizes))
        return meter(known[key], sizes)

    compiler = tpu.versions() if spec["target"] in tpu.TARGETS else {}
    return {"device": device, "versions": versions() | compiler}, answer


def _whole(net: Supernet, subnet: Sequence[int]) -> tuple[Unit, list[int]]:
    """(the network that a subnet is, as one unit, and the channels of its axes)."""
    entries = dict(zip(net.space.index, subnet, strict=True))
    unit = units.whole(net.records, {choice.name: entries[choice.name] for choice in net.space.choices})
    return unit, [entries[group.name] for group in unit.axes]


if __name__ == "__main__":
    main()
