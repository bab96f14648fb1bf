"""A run's directory: the names of its files, which run it holds, and whether this slimjax can read it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from etils import epath
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.files import flatten, write_atomic
from slimjax.workdir.lock import WorkdirLock
from slimjax.workdir.versions import check_schema, stamp, versions

T = TypeVar("T")


class RunDir:
    """The directory of one run, on a disk or in a bucket; making this object touches nothing.

    Args:
      path: local path or bucket (anything `epath` opens, such as `gs://...`).
    """

    def __init__(self, path: epath.PathLike) -> None:
        self.path = epath.Path(path)
        self.config = self.path / "config.json"
        self.versions = self.path / "versions.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.trials = self.path / "trials.jsonl"
        self.front = self.path / "front.json"
        self.report = self.path / "report.html"
        self.lock = self.path / "lock"

    def __str__(self) -> str:
        return str(self.path)

    def search(self, method: str) -> SearchDir:
        """Where a search of this run's network leaves its files."""
        return SearchDir(self.path / f"search-{method}")

    @contextlib.contextmanager
    def claim(self, config_json: str, ignore: Iterable[str] = ()) -> Iterator[None]:
        """Holds the directory for this process's run, which `record` writes down; there is no lock in a bucket.

        Raises:
          UserError: another process holds it, or what `record` raises.
        """
        with contextlib.nullcontext() if "://" in str(self) else WorkdirLock(self.lock):
            self.record(config_json, ignore)
            yield

    def record(self, config_json: str, ignore: Iterable[str] = ()) -> None:
        """Writes config and versions, each wholly or not at all; one process does.

        Args:
          config_json: the config as a JSON object.
          ignore: dotted keys ("train.steps", or "data" for all below it) that may differ from an earlier run's.

        Raises:
          UserError: the directory holds a run of another schema, or with another config; lists key, its value
            then and now.
        """
        self.check_schema()
        if self.config.exists():
            self._check_same_config(json.loads(config_json), frozenset(ignore))
        self.path.mkdir(parents=True, exist_ok=True)
        # Versions first: a config without them, which a kill would leave, is an old run's.
        write_atomic(self.versions, json.dumps({**stamp(), **versions()}, indent=2) + "\n")
        write_atomic(self.config, config_json)

    def check_schema(self) -> None:
        """Refuses a run that another schema's slimjax wrote. Raises: UserError: says which version it was."""
        if self.versions.exists():
            check_schema(self, _read(self.versions, "versions", dict))
        elif self.config.exists():
            check_schema(self, {})

    def read_config(self) -> ConfigDict:
        """The config that the run wrote down. Raises: UserError: no run, a damaged one, or one of another schema."""
        self.check_schema()
        if not self.config.exists():
            raise UserError(f"{self}: expected a training run, but it has no {self.config.name}.")
        return _read(self.config, "config", ConfigDict)

    def _check_same_config(self, config: Mapping[str, Any], ignore: frozenset[str]) -> None:
        old, new = dict(flatten(_read(self.config, "config", dict))), dict(flatten(config))
        lines = [
            f"\n  {key}: was {_show(old, key)}, is {_show(new, key)}"
            for key in sorted(old.keys() | new.keys())
            if _show(old, key) != _show(new, key) and not _is_under(key, ignore)
        ]
        if lines:
            hint = "\nResume with the same config, or take another workdir."
            raise UserError(f"{self} holds a run with another config:{''.join(lines)}{hint}")


class SearchDir:
    """What a search leaves behind: an architecture file for each budget, its rows, and how to train them.

    Args:
      path: local path or bucket.
    """

    def __init__(self, path: epath.PathLike) -> None:
        self.path = epath.Path(path)
        self.front = self.path / "front.json"
        self.retrain = self.path / "retrain.py"
        self.retrained = self.path / "retrained"

    def trials(self, about: str) -> epath.Path:
        """The log of trials; `about` says what their scores depend on."""
        return self.path / f"trials-{about}.jsonl"

    def architecture(self, budget: str) -> epath.Path:
        """`macs<=0.5` becomes `macs-0.5.json`; a table's path is left out."""
        return self.path / f"{budget.partition('@')[0].replace('<=', '-')}.json"


def _read(file: epath.Path, what: str, make: Callable[[Any], T]) -> T:
    """What `make` makes of a run's JSON file. Raises: UserError: names the file and what to do."""
    try:
        return make(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file}: expected the {what} of a run as JSON ({error}). Restore it or take another workdir."
        ) from error


def _show(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "absent"


def _is_under(key: str, ignore: frozenset[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ignore)
