"""The architecture file: a found subnet, what it costs, how it was found and how to train it.

It is one JSON object, and may be written by hand:

    {"schema": 1, "network": {"name": "resnet20"}, "channels": {"stage1": 12, "stage1/block1": 10},
     "costs": {"macs": 12345678, "params": 123456}, "accuracy": {"top1": 0.9}, "how": {"search": "greedy"},
     "retrain": "slimjax train ..."}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from slimjax import files
from slimjax.checks import check, integer, number
from slimjax.errors import UserError
from slimjax.files import write_atomic
from slimjax.nn.space import Space, Subnet

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A found subnet.

    Args:
      network: which supernet it is a subnet of: arguments of `supernet.named`.
      channels: of every slimmable group, and the name of the option of every choice, that the subnet has.
      costs: by name, with units in the names: "macs", "params", "peak_bytes", "latency_ms".
      accuracy: scores by name; None: not measured.
      how: how it was found: search, targets, seed.
      retrain: the command that trains it; empty: none is known.

    Raises:
      ValueError: channels that are no whole positive numbers, or numbers that are not finite.
    """

    network: Mapping[str, Any]
    channels: Mapping[str, int | str]
    costs: Mapping[str, float]
    accuracy: Mapping[str, float] | None = None
    how: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    retrain: str = ""

    def __post_init__(self) -> None:
        for name in ("network", "channels", "costs", "how"):
            _check_object(name, getattr(self, name))
        if not isinstance(self.retrain, str):
            raise ValueError(f"retrain: expected a command, got {self.retrain!r}")
        for group, count in self.channels.items():
            if not isinstance(count, str):
                check(f"channels.{group}", count, integer(1))
        _check_numbers("costs", self.costs)
        if self.accuracy is not None:
            _check_object("accuracy", self.accuracy)
            _check_numbers("accuracy", self.accuracy)

    def subnet(self, space: Space) -> Subnet:
        """int32 [G]. Raises: UserError: groups that the space has not, or the file has not; illegal counts."""
        subnet = space.from_channels(self.channels)
        if absent := [name for name in space.to_channels(subnet) if name not in self.channels]:
            raise UserError(f"architecture: lacks the channels of groups {', '.join(absent)}.")
        return subnet


def write(path: epath.PathLike, architecture: Architecture) -> None:
    """Writes the file wholly or not at all; its directory is made if it is missing."""
    fields = vars(architecture).items()
    body = {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields}
    text = json.dumps({"schema": SCHEMA, **body}, indent=1, allow_nan=False) + "\n"
    epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


def load(path: epath.PathLike) -> Architecture:
    """Reads an architecture file.

    Raises:
      UserError: no such file; not a whole JSON file; another schema; keys that are missing or unknown; wrong
        values. The message has the path and what to do.
    """
    missing = "A search writes one for each budget"
    return files.load(path, "architecture", SCHEMA, _from_json, missing, "Mend the file or search again")


def load_all(paths: Sequence[str]) -> dict[str, Architecture]:
    """Files of subnets of one network, by the names of the files; by their paths where names are the same.

    Raises:
      UserError: what `load` finds; networks that differ.
    """
    found = {path: load(path) for path in paths}
    first, *others = found.items()
    for path, other in others:
        if other.network != first[1].network:
            raise UserError(
                f"architecture {path}: its network is not that of {first[0]}. Give files of one network."
            )
    stems = [epath.Path(path).stem for path in found]
    return dict(zip(stems if len(set(stems)) == len(stems) else found, found.values(), strict=True))


def _from_json(body: Mapping[str, Any]) -> Architecture:
    known = {"schema", *(field.name for field in dataclasses.fields(Architecture))}
    if absent := sorted(known - set(body)):
        raise ValueError(f"lacks {', '.join(absent)}")
    if unknown := sorted(set(body) - known):
        raise ValueError(f"unknown keys {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    return Architecture(**{name: value for name, value in body.items() if name != "schema"})


def _check_object(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected an object, got {value!r}")


def _check_numbers(name: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        check(f"{name}.{key}", value, number())
