"""One child process of a sweep: `python -m slimjax.profiling.child`, asked by `sweep.workers`.

The greeting names a network and a target, each question a unit and its channels.
"""

from __future__ import annotations

from typing import Any

from slimjax import supernet
from slimjax.cost import units
from slimjax.profiling import meters, sweep, tpu
from slimjax.workdir.versions import versions
from slimjax.worker import serve


def main() -> None:
    serve(begin)


def begin(spec: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """(what this process says about its device, the function that reads one entry)."""
    device, meter = meters.make(spec["target"], spec["batch"], spec["repeats"])
    records = supernet.named(**spec["network"]).records
    known = {unit.key: unit for unit in units.divide(records)}
    if not any(
        op.under for version in records.versions for op in version.ops
    ):  # with choices it is not one program
        known[sweep.WHOLE] = units.whole(records)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        key, sizes = question["unit"], question["sizes"]
        return meter(None if (key, tuple(sizes)) == sweep.OVERHEAD else known[key], sizes)

    compiler = tpu.versions() if spec["target"] in tpu.TARGETS else {}
    return {"device": device, "versions": versions() | compiler}, answer


if __name__ == "__main__":
    main()
