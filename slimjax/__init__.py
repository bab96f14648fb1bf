"""slimjax: networks that run at many widths, trained once, in JAX.

These names are what a network of one's own, and a run of one's own, are made of. They are imported when they are first
used, so that `import slimjax` and the command line's `--help` answer at once.

Docstrings name the paper's section, and what differs from it or from its authors' code; docs/fidelity.md has all
differences in one list.
"""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimjax.errors import RunError, UserError
    from slimjax.experiment import recipes
    from slimjax.experiment.loop import train
    from slimjax.nn.choices import Choice, Window
    from slimjax.nn.feature_map import FeatureMap
    from slimjax.nn.heads import PoolingHead, SqueezeExcite
    from slimjax.nn.layers import BatchNorm, Conv, Dense, DepthwiseConv
    from slimjax.nn.mixed import Depth, Mixed
    from slimjax.nn.space import Space
    from slimjax.nn.widths import Group, Rounding
    from slimjax.supernet import Supernet, named

__version__ = "0.2.0"

_HOMES: Mapping[str, str] = MappingProxyType(
    {
        "BatchNorm": "slimjax.nn.layers",
        "Choice": "slimjax.nn.choices",
        "Conv": "slimjax.nn.layers",
        "Dense": "slimjax.nn.layers",
        "Depth": "slimjax.nn.mixed",
        "DepthwiseConv": "slimjax.nn.layers",
        "FeatureMap": "slimjax.nn.feature_map",
        "Group": "slimjax.nn.widths",
        "Mixed": "slimjax.nn.mixed",
        "PoolingHead": "slimjax.nn.heads",
        "Rounding": "slimjax.nn.widths",
        "RunError": "slimjax.errors",
        "Space": "slimjax.nn.space",
        "SqueezeExcite": "slimjax.nn.heads",
        "Supernet": "slimjax.supernet",
        "UserError": "slimjax.errors",
        "Window": "slimjax.nn.choices",
        "named": "slimjax.supernet",
        "recipes": "slimjax.experiment.recipes",
        "train": "slimjax.experiment.loop",
    }
)
"""Where each public name is defined; a module is its own home."""

__all__ = [
    "BatchNorm",
    "Choice",
    "Conv",
    "Dense",
    "Depth",
    "DepthwiseConv",
    "FeatureMap",
    "Group",
    "Mixed",
    "PoolingHead",
    "Rounding",
    "RunError",
    "Space",
    "SqueezeExcite",
    "Supernet",
    "UserError",
    "Window",
    "__version__",
    "named",
    "recipes",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slimjax' has no attribute {name!r}. It has: {', '.join(__all__)}.")
    home = importlib.import_module(_HOMES[name])
    return home if _HOMES[name].endswith(f".{name}") else getattr(home, name)
