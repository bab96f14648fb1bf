"""What a compiled program's text says: cycles that the TPU compiler estimates, and collectives."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from slimjax.nn.moments import SECOND_PASS

KINDS = (
    "convolution",
    "input gradient",
    "kernel gradient",
    "reductions",
    "elementwise",
    "copies",
)
"""What instructions do. What is fused has the first kind of these that is in it."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$", re.MULTILINE)
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
# Of an asynchronous pair the end counts: its result is the exchange's, the start's has the operands in it too.
_COLLECTIVE = re.compile(rf" = (.*?) ({_KINDS})(?:-done)?\(")
_CHAIN = re.compile(r'chain_id="(\w+)"')
_LABELS = re.compile(r" convolution\(.*dim_labels=(\w+)_(\w+)->\w+")
_OPERATION = re.compile(r" = .*? ([\w\-]+)\(")
_MOVES = frozenset(
    {"copy", "copy-start", "copy-done", "transpose", "reshape", "bitcast", "broadcast", "pad", "slice"}
)
_FREE = frozenset({"parameter", "constant", "fusion", "tuple", "get-tuple-element", "convert"})
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between devices: bytes of one device's result, and how often a run of the program makes it.

    In a branch that is one of several it counts as often as the branch runs (`Module.runs`).
    """

    kind: str
    bytes: int
    count: float


@dataclasses.dataclass(frozen=True)
class Module:
    """The lines of a program's computations, callers after what they call, and where it begins."""

    computations: Mapping[str, list[str]]
    entry: str

    @classmethod
    def of(cls, program: Any) -> Module:
        """Of a compiled JAX program."""
        text = program.as_text()
        heads = list(_COMPUTATION.finditer(text))
        lines = {head[2]: text[head.end() : text.index("\n}", head.end())].splitlines() for head in heads}
        return cls(lines, next(head[2] for head in heads if head[1]))

    @functools.cached_property
    def runs(self) -> Mapping[str, float]:
        """How often each computation runs; a loop of unknown trips counts once.

        Branches of a conditional count alike, each as one of so many: as if paths were drawn evenly. A norm's second
        pass does not count, as hardly any batch takes it.
        """
        runs = collections.defaultdict(float, {self.entry: 1.0})
        for name in reversed(list(self.computations)):
            for line in self.computations[name]:
                for called in _CALLED.findall(line):
                    runs[called] += runs[name] * (self._trips(line) or 1)
                for found in _BRANCHES.findall(line):
                    branches = found.replace("%", "").split(", ")
                    # The first branch is that of a false condition.
                    rare = f"/{SECOND_PASS}/" in line
                    for number, branch in enumerate(branches):
                        runs[branch] += runs[name] * (number == 0 if rare else 1 / len(branches))
        return runs

    @property
    def unknown_loops(self) -> int:
        """Loops that count once because the text does not say how often they run."""
        return sum(self._trips(line) is None for lines in self.computations.values() for line in lines)

    @property
    def cycles(self) -> int:
        """The TPU compiler's estimate. Collectives have none, and copies between memories few."""
        return self.cycles_outside()

    def cycles_outside(self, *scopes: str) -> int:
        """The same without instructions that come from one of the `jax.named_scope`s."""
        return round(
            sum(
                self.runs[name] * int(cycles)
                for name, lines in self.computations.items()
                for line in lines
                if not any(f"/{scope}/" in line for scope in scopes)
                for cycles in _CYCLES.findall(line)
            )
        )

    def cycles_by_kind(self) -> dict[str, int]:
        """The estimate, divided among `KINDS`."""
        found = dict.fromkeys(KINDS, 0.0)
        for name, lines in self.computations.items():
            for line in lines:
                for cycles in _CYCLES.findall(line):
                    found[self._kind(line)] += self.runs[name] * int(cycles)
        return {kind: round(cycles) for kind, cycles in found.items()}

    def _kind(self, line: str) -> str:
        within = self._within(line)
        for left, right in _LABELS.findall("\n".join(within)):
            if left.startswith("f"):  # the batch is what is summed over
                return "kernel gradient"
            return "input gradient" if right.endswith("oi") else "convolution"
        operations = {found[1] for part in within if (found := _OPERATION.search(part))}
        if operations & {"reduce", "reduce-window", "select-and-scatter"}:
            return "reductions"
        return "copies" if operations <= _MOVES | _FREE else "elementwise"

    def _within(self, line: str) -> list[str]:
        """An instruction and all that it calls."""
        found = [line]
        for called in _CALLED.findall(line):
            for inner in self.computations.get(called, []):
                found += self._within(inner)
        return found

    def collectives(self) -> Iterator[Collective]:
        """The program's exchanges; one that is cut into a chain of fusions is one."""
        chains = set()
        for name, lines in self.computations.items():
            for line in lines:
                if not (found := _COLLECTIVE.search(line)) or not self.runs[name]:
                    continue
                chain = _CHAIN.search(line)
                if chain is None or chain[1] not in chains:
                    yield Collective(found[2], _bytes(found[1]), self.runs[name])
                chains |= {chain[1]} if chain else set()

    def _trips(self, line: str) -> int | None:
        """How often an instruction runs what it calls; None: a loop that does not say. Scans count from 0."""
        if " while(" not in line:
            return 1
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', line):
            return int(known[1])
        condition = self.computations[re.search(r"condition=%?([\w.\-]+)", line)[1]]  # type: ignore[index]
        limits = re.findall(r" = s32\[\]\S* constant\((\d+)\)", "\n".join(condition))
        compares = any("ROOT" in line and "direction=LT" in line for line in condition)
        return int(limits[0]) if compares and len(limits) == 1 else None


def _bytes(result: str) -> int:
    """Of an array's type such as `f32[8,64]{1,0}`, or of a tuple's."""
    return sum(
        math.prod(int(n) for n in dims.split(",") if n) * int(bits or 8) // 8
        for _, bits, dims in _ARRAY.findall(result)
    )
