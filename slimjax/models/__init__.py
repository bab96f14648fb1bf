"""The networks, and the names by which configs and the command line know them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flax import linen as nn

from slimjax.errors import UserError
from slimjax.models.imagenet_resnet import ResNet
from slimjax.models.mobilenet_v1 import MobileNetV1
from slimjax.models.mobilenet_v2 import MobileNetV2
from slimjax.models.resnet import CifarResNet
from slimjax.models.shufflenet import ShuffleNet
from slimjax.widths import Rounding


@dataclasses.dataclass(frozen=True)
class Entry:
    """A named network with the conventions of the paper it is named after.

    Args:
      module: the Flax class.
      fields: arguments that the name fixes.
      rounding, min_width: defaults of its width space.
      image_shape: [H, W, C] that its published costs refer to.
      counts_pooling: whether those costs include average pooling.
      max_width: the width that means full size (see `widths.WidthSpace`).
    """

    module: type[nn.Module]
    fields: Mapping[str, Any]
    rounding: Rounding
    min_width: float
    image_shape: tuple[int, int, int]
    counts_pooling: bool
    max_width: float = 1.0

    @property
    def defaults(self) -> dict[str, Any]:
        """The module's arguments with their defaults."""
        fields = dataclasses.fields(self.module)
        return {field.name: field.default for field in fields if field.name not in ("parent", "name")}

    def build(self, **fields: Any) -> nn.Module:
        """The module; `fields` that it does not have are a UserError."""
        if unknown := sorted(set(fields) - set(self.defaults)):
            known = ", ".join(self.defaults)
            raise UserError(f"model {self.module.__name__}: unknown fields {unknown}. It has: {known}.")
        return self.module(**{**self.fields, **fields})


def _resnet(depth: int, **fields: Any) -> Entry:
    fields = {"depth": depth, **fields}
    return Entry(CifarResNet, fields, Rounding("truncate"), 0.25, (32, 32, 3), counts_pooling=False)


def _imagenet_resnet(depth: int, min_width: float, counts_pooling: bool, **fields: Any) -> Entry:
    fields, shape = {"depth": depth, **fields}, (224, 224, 3)
    return Entry(ResNet, fields, Rounding("truncate"), min_width, shape, counts_pooling)


def _mobilenet(module: type[nn.Module], min_width: float) -> Entry:
    return Entry(module, {}, Rounding("make_divisible", 8), min_width, (224, 224, 3), counts_pooling=True)


def _shufflenet() -> Entry:
    shape = (224, 224, 3)
    return Entry(ShuffleNet, {}, Rounding("truncate"), 0.5, shape, counts_pooling=True, max_width=2.0)


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        # US- and S-MobileNets are the same modules: switchable norms live in the state, not in the network.
        "us_mobilenet_v1": _mobilenet(MobileNetV1, 0.25),
        "s_mobilenet_v1": _mobilenet(MobileNetV1, 0.25),
        "us_mobilenet_v2": _mobilenet(MobileNetV2, 0.35),
        "s_mobilenet_v2": _mobilenet(MobileNetV2, 0.35),
        "s_shufflenet": _shufflenet(),
        "resnet8": _resnet(8),
        "resnet20": _resnet(20),
        "resnet32": _resnet(32),
        "resnet44": _resnet(44),
        "resnet56": _resnet(56),
        # Joslim's, then the Slimmable Networks paper's: they differ in what their published costs include.
        "resnet18": _imagenet_resnet(18, 0.42, counts_pooling=False),
        "resnet50": _imagenet_resnet(50, 0.42, counts_pooling=False),
        "s_resnet50": _imagenet_resnet(50, 0.25, counts_pooling=True),
    }
)


def lookup(name: str) -> Entry:
    """The entry of a model name.

    Raises:
      UserError: listing the names, with the nearest ones first.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(str(name), MODELS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"model: unknown name {name!r}.{hint} Known: {', '.join(MODELS)}.")
