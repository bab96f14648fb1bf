"""The shipped configs, with everything that their arguments can be."""

import functools
import itertools

from ml_collections import ConfigDict

from slimjax.experiment import config_file


@functools.cache
def combinations() -> tuple[str, ...]:
    """Every shipped config with each of its arguments' values: `cifar_usnet:model=resnet20,classes=10`."""
    return tuple(
        ":".join(filter(None, (name, ",".join(values))))
        for name, path in config_file.shipped().items()
        for values in itertools.product(*map(_values, config_file.read(path).arguments.values()))
    )


def _values(argument) -> list[str]:
    choices = ("false", "true") if argument.kind is bool else argument.choices
    assert choices, f"{argument.name}: a shipped config's arguments say all their values"
    return [f"{argument.name}={choice}" for choice in choices]


def load(shipped: str, *overrides: str) -> ConfigDict:
    return config_file.load(f"slimjax:{shipped}", [f"--config.{override}" for override in overrides])
