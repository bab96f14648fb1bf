"""The networks, and the names by which configs and the command line know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flax import linen as nn

from slimjax import registry
from slimjax.errors import BadValue, UserError
from slimjax.models import autoslim, tfnas
from slimjax.models.autoslim import Variants
from slimjax.models.imagenet_resnet import ResNet
from slimjax.models.inverted_residual import MNASNET, InvertedResidualNet
from slimjax.models.mobilenet_v1 import MobileNetV1
from slimjax.models.mobilenet_v3 import SMALL, MobileNetV3
from slimjax.models.ofa import OFAMobileNetV3
from slimjax.models.resnet import CifarResNet
from slimjax.models.shufflenet import ShuffleNet
from slimjax.models.tfnas import TFNASNet
from slimjax.models.vgg import VGG
from slimjax.nn.widths import Rounding

RUN_FIELDS = ("num_classes", "dtype", "norm")
"""Fields of a network that a run sets: how many classes, in which type to compute, and what makes its norms. A network
of your own may lack the last two: it computes in float32, with `nn.layers.BatchNorm` as it is."""

REQUIRED = dataclasses.MISSING
"""The default of a field that has none."""

EVERY_COUNT = Rounding("truncate")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A named network with the conventions of the paper it is named after, or of your own.

    Args:
      module: the Flax class. It has `RUN_FIELDS` and is called with (images, widths=None, train=False).
      fields: arguments that the name fixes.
      rounding, min_width: defaults of its width space.
      image_shape: [H, W, C] that its published costs refer to; training takes that of its data.
      convention: what those costs count, a key of `costs.CONVENTIONS`.
      variants: published subnets: name to channels by group.
      max_width: the width that means full size (see `nn.space.Space`).
      streams, one_fraction: what Joslim's code does to widths of this network (see `supernet.Supernet`).
    """

    module: type[nn.Module]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rounding: Rounding = EVERY_COUNT
    min_width: float = 0.25
    image_shape: tuple[int, int, int] = (32, 32, 3)
    convention: str = "plain"
    variants: Variants = dataclasses.field(default_factory=dict)
    max_width: float = 1.0
    streams: tuple[str, ...] | None = None
    one_fraction: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
        """The module's arguments with their defaults; `REQUIRED` where there is none."""
        fields = dataclasses.fields(self.module)
        return {field.name: _default(field) for field in fields if field.name not in ("parent", "name")}

    def build(self, **fields: Any) -> nn.Module:
        """The module; `fields` that it does not have are a UserError."""
        if unknown := sorted(set(fields) - set(self.defaults)):
            known = ", ".join(self.defaults)
            raise UserError(f"model {self.module.__name__}: unknown fields {unknown}. It has: {known}.")
        given = {**self.fields, **fields}
        if missing := [key for key, value in self.defaults.items() if value is REQUIRED and key not in given]:
            raise UserError(
                f"model {self.module.__name__}: expected {', '.join(missing)}, which have no defaults."
            )
        return self.module(**given)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is REQUIRED else field.default_factory()


def _resnet(depth: int, **fields: Any) -> ModelSpec:
    fields = {"depth": depth, **fields}
    return ModelSpec(CifarResNet, fields, EVERY_COUNT, 0.25, (32, 32, 3))


def _imagenet_resnet(depth: int, min_width: float, convention: str, **fields: Any) -> ModelSpec:
    fields, shape = {"depth": depth, **fields}, (224, 224, 3)
    return ModelSpec(ResNet, fields, EVERY_COUNT, min_width, shape, convention)


def _mobilenet(module: type[nn.Module], min_width: float, **fields: Any) -> ModelSpec:
    return ModelSpec(module, fields, Rounding("make_divisible", 8), min_width, (224, 224, 3), "slimmable")


def _mobilenet_v2() -> ModelSpec:
    return dataclasses.replace(
        _mobilenet(InvertedResidualNet, 0.35), streams=_stages(2, 7), one_fraction=("stem", "stage1")
    )


def _mobilenet_v3(stages: int, **fields: Any) -> ModelSpec:
    shape = (224, 224, 3)
    return ModelSpec(MobileNetV3, fields, EVERY_COUNT, 0.42, shape, streams=_stages(2, stages))


def _stages(first: int, last: int) -> tuple[str, ...]:
    """Joslim's streams: its MobileNets' first stage shares the stem's fraction, and raises no other."""
    return tuple(f"stage{number}" for number in range(first, last + 1))


def _autoslim(module: type[nn.Module], variants: Variants, **fields: Any) -> ModelSpec:
    """A supernet that loses 8 channels at a time; ResNet-50's narrowest published layer has 1/8 of them left."""
    return ModelSpec(module, fields, Rounding("multiple", 8), 0.125, (224, 224, 3), "slimmable", variants)


def _shufflenet() -> ModelSpec:
    shape = (224, 224, 3)
    return ModelSpec(ShuffleNet, {}, EVERY_COUNT, 0.5, shape, "slimmable", max_width=2.0)


MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        # US- and S-MobileNets are the same modules: switchable norms live in the state, not in the network.
        "us_mobilenet_v1": _mobilenet(MobileNetV1, 0.25),
        "s_mobilenet_v1": _mobilenet(MobileNetV1, 0.25),
        "us_mobilenet_v2": _mobilenet_v2(),
        "s_mobilenet_v2": _mobilenet_v2(),
        "mnasnet": _mobilenet(InvertedResidualNet, 0.35, stages=MNASNET, activation="relu"),
        "mobilenet_v3_large": _mobilenet_v3(6),
        "mobilenet_v3_small": _mobilenet_v3(5, blocks=SMALL, tail=576, head=1024),
        "ofa_mobilenet_v3": ModelSpec(OFAMobileNetV3, {}, Rounding("make_divisible", 8), 0.5, (224, 224, 3)),
        "s_shufflenet": _shufflenet(),
        "resnet8": _resnet(8),
        "resnet20": _resnet(20),
        "resnet32": _resnet(32),
        "resnet44": _resnet(44),
        "resnet56": _resnet(56),
        "vgg16": ModelSpec(VGG, {"depth": 16}),
        "tfnas": ModelSpec(TFNASNet, {}, EVERY_COUNT, 0.5, (224, 224, 3), "tfnas", tfnas.VARIANTS),
        # Joslim's, then the Slimmable Networks paper's: they differ in what their published costs include.
        "resnet18": _imagenet_resnet(18, 0.42, "plain"),
        "resnet50": _imagenet_resnet(50, 0.42, "plain"),
        "s_resnet50": _imagenet_resnet(50, 0.25, "slimmable"),
        "autoslim_mobilenet_v1": _autoslim(MobileNetV1, autoslim.MOBILENET_V1_VARIANTS, multiplier=1.5),
        "autoslim_mobilenet_v2": _autoslim(
            InvertedResidualNet, autoslim.MOBILENET_V2_VARIANTS, multiplier=1.5, fixed_tail=False
        ),
        "autoslim_mnasnet": _autoslim(
            InvertedResidualNet, autoslim.MNASNET_VARIANTS, multiplier=1.5, fixed_tail=False, stages=MNASNET
        ),
        "autoslim_resnet50": _autoslim(ResNet, autoslim.RESNET50_VARIANTS, depth=50, tied_inner=False),
    }
)


def lookup(name: str) -> ModelSpec:
    """The spec of a model: one of `MODELS`, or `package.module:name` of a Flax class or `ModelSpec` of your own.

    Raises:
      BadValue: "name" is none; the message lists what there is.
    """
    found = registry.lookup(name, MODELS)
    return found if name in MODELS else _own(name, found)


def _own(name: str, found: Any) -> ModelSpec:
    """The spec of a user's own network, which must be what a run can build."""
    spec = found if isinstance(found, ModelSpec) else ModelSpec(found)
    if not (isinstance(spec.module, type) and issubclass(spec.module, nn.Module)):
        raise BadValue(
            "name", f"expected a flax.linen.Module class, or a ModelSpec of one; {name} is {found!r}."
        )
    if "num_classes" not in spec.defaults:
        raise BadValue(
            "name", f"expected a network with a field num_classes, which a run sets; {name} has none."
        )
    return spec
