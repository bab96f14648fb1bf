"""A network together with its space of subnets: what algorithms, costs and the command line pass around."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax import models
from slimjax.checks import check, number, one_of
from slimjax.cost import counts, units
from slimjax.cost.latency import Latency, LatencyTable
from slimjax.errors import BadValue
from slimjax.nn import reorder, roles, slicing, structure, trace
from slimjax.nn.arrays import STRUCTURE
from slimjax.nn.choices import Choice
from slimjax.nn.space import Space, Subnet
from slimjax.nn.widths import Rounding, Widths

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Supernet:
    """A model built from `slimjax.nn.layers`, its image shape [H, W, C], and how widths become channels.

    Paper: Yu et al., BigNAS, ECCV 2020 (resolutions).
    Differs: images are resized on the device, bilinearly and antialiased, from the largest resolution.

    Args:
      convention: what `macs` counts.
      max_width: the width that means full size (see `nn.space.Space`).
      streams: names of the groups that `vectors.WidthVectors` keeps from narrowing along the network, in their order;
        None: the groups that shortcuts are added in.
      one_fraction: names of groups that may be asked to share one width fraction (`vectors.WidthVectors`).
      variants: published subnets by name: channels by group, and options by choice.
      resolutions: sides in pixels to which images may be resized, ascending, the last their own; the choice
        "resolution", which comes last in a subnet. None: images are not resized.

    Raises:
      BadValue: resolutions that do not rise, or do not end with the side of square images.

    >>> import jax
    >>> from flax import linen as nn
    >>> from slimjax import BatchNorm, Conv, FeatureMap, Group, PoolingHead, Rounding, Supernet
    >>> class OneLayer(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, images, widths=None, train=False):
    ...         x = Conv(Group("body", 32), name="stem")(FeatureMap.of(images, widths))
    ...         x = BatchNorm(name="norm")(x, train).map(jax.nn.relu)
    ...         return PoolingHead(10, name="head")(x)
    >>> net = Supernet(OneLayer(), (8, 8, 3), Rounding("multiple", 8), min_width=0.25)
    >>> int(net.params(net.space.uniform(0.5))) == 3 * 3 * 3 * 16 + 2 * 16 + 16 * 10 + 10
    True
    """

    model: nn.Module
    image_shape: tuple[int, int, int]
    rounding: Rounding
    min_width: float
    convention: counts.Convention = counts.CONVENTIONS["slimmable"]
    max_width: float = 1.0
    streams: tuple[str, ...] | None = None
    one_fraction: tuple[str, ...] = ()
    variants: models.Variants = dataclasses.field(default_factory=dict, hash=False, compare=False)
    resolutions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sides, (height, width, _) = self.resolutions, self.image_shape
        if sides and (list(sides) != sorted(set(sides)) or sides[0] < 1 or not height == width == sides[-1]):
            raise BadValue(
                "resolutions",
                f"expected rising numbers of pixels, the last one the side of the (square) images, which are "
                f"{height}x{width}; got {list(sides)}.",
            )

    @functools.cached_property
    def resolution(self) -> Choice | None:
        """The images' side as a choice; None: there is no choice. It changes shapes, so it is static."""
        return (
            Choice("resolution", tuple(map(str, self.resolutions)), static=True) if self.resolutions else None
        )

    @functools.cached_property
    def records(self) -> trace.Records:
        return trace.trace(self.model, self.image_shape, self.resolution)

    @functools.cached_property
    def space(self) -> Space:
        return roles.space(self.records, self.rounding, self.min_width, self.max_width, self.resolution)

    @functools.cached_property
    def variable_shapes(self) -> Mapping[str, Any]:
        """`jax.ShapeDtypeStruct`s of the full-size variables: `params`, `affine`, `batch_stats`."""
        image = jax.ShapeDtypeStruct((2, *self.image_shape), jnp.float32)
        return jax.eval_shape(lambda key, x: self.model.init(key, x, train=True), jax.random.key(0), image)

    @functools.cached_property
    def macs(self) -> counts.Quadratic:
        """Multiply-accumulates per image, a function of subnets [..., G]."""
        return counts.macs(self.records, self.space, self.convention)

    @functools.cached_property
    def params(self) -> counts.Quadratic:
        """Active parameters, a function of subnets [..., G]."""
        return counts.params(self.records, self.space)

    @functools.cached_property
    def peak_memory(self) -> counts.PeakMemory:
        """Bytes of inference at its fullest moment, a function of subnets [..., G] and the batch size."""
        return counts.peak_memory(self.records, self.space)

    def latency(self, table: LatencyTable) -> Latency:
        """Milliseconds by a table, a function of subnets [..., G]. Raises: UserError: units that it lacks."""
        return Latency(table, units.divide(self.records), self.space)

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        widths: Widths | None = None,
        *,
        train: bool,
        mutable: bool | list[str] = False,
    ) -> Any:
        """`model.apply`, on images of the resolution that the widths say: logits [B, K], with what is mutable if
        anything is.

        Args:
          variables: its collections; with structure parameters among them, the network's filters are scaled by them
            (`structure.scaled`).
        """
        widths = Widths() if widths is None else widths
        whole, images = self._scaled(variables, widths), self._resized(images, widths)
        return self.model.apply(whole, images, widths, train=train, mutable=mutable)

    def _resized(self, images: jax.Array, widths: Widths) -> jax.Array:
        """Images [B, H, W, C] in the resolution that the widths say."""
        if self.resolution is None:
            return images
        side = self.resolutions[widths.gate(self.resolution).top]
        shape = (images.shape[0], side, side, images.shape[-1])
        return (
            images if images.shape == shape else jax.image.resize(images, shape, "bilinear", antialias=True)
        )

    def _scaled(self, variables: Mapping[str, Any], widths: Widths) -> Mapping[str, Any]:
        """The variables of the model alone: structure parameters, if there are any, are in the filters then."""
        if STRUCTURE not in variables:
            return variables
        rest = {name: part for name, part in variables.items() if name != STRUCTURE}
        params = structure.scaled(self.records, variables["params"], variables[STRUCTURE], widths)
        return {**rest, "params": params}

    def reorder(self, state: State, importance: Mapping[str, Any], within: Subnet | None = None) -> State:
        """The same network with the most important channels first: equal logits, but for rounding, at full size.

        Args:
          state: variables, or a training state; what the optimiser and the moving average keep is reordered, too.
          importance: group name to [C], such as `filters.norms` of its parameters.
          within: int32 [N, G], subnets that hold the same channels afterwards.

        Raises:
          BadValue: see `reorder.order`.
        """
        return reorder.permute(
            self.records, reorder.order(self.records, self.space, importance, within), state
        )

    def cut(self, variables: Mapping[str, Any], subnet: Subnet) -> dict[str, Any]:
        """The dense network's variables (see `slicing.cut`); its filters are scaled by structure parameters, if any."""
        whole = self._scaled(variables, self.space.sliced(self.space.check(subnet)))
        return slicing.cut(self.records, self.space, whole, subnet)


def make_supernet(
    spec: models.ModelSpec,
    model: nn.Module,
    image_shape: tuple[int, int, int],
    rounding: Rounding | None = None,
    min_width: float | None = None,
    resolutions: Sequence[int] = (),
) -> Supernet:
    """A supernet with the conventions of a model's spec, where they are not overridden."""
    return Supernet(
        model,
        image_shape,
        rounding or spec.rounding,
        min_width or spec.min_width,
        counts.CONVENTIONS[spec.convention],
        spec.max_width,
        spec.streams,
        spec.one_fraction,
        spec.variants,
        tuple(resolutions),
    )


def named(
    name: str,
    *,
    multiplier: float | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    dtype: str = "float32",
    min_width: float | None = None,
    divisor: int | None = None,
    convention: str | None = None,
    image_shape: Sequence[int] | None = None,
    rounding: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    resolutions: Sequence[int] = (),
    norm: Callable[..., nn.Module] | None = None,
) -> Supernet:
    """The supernet of a model's name, as its paper has it where nothing else is said.

    All arguments but `norm` are JSON: latency tables and architecture files say with them what network they are of.

    Args:
      multiplier: of all channels; `image_size`: pixels of a side.
      divisor: all channel counts are multiples of it, unless `rounding` names another policy.
      image_shape: [H, W, C], instead of `image_size`.
      options: further arguments of the model's class; lists stand for tuples.
      resolutions: see `Supernet`.

    Raises:
      UserError: an unknown name, or a value that the network cannot have.

    >>> from slimjax import named
    >>> net = named("resnet20")
    >>> int(net.macs(net.space.largest))
    40551040
    """
    spec = models.lookup(name)
    fields = _given(multiplier=_whole(multiplier), num_classes=num_classes)
    for key, value in {**fields, **_given(image_size=image_size, divisor=divisor)}.items():
        check(key, value, number(0, above=True))
    if isinstance(fields.get("multiplier"), float) and isinstance(spec.defaults.get("multiplier"), int):
        raise BadValue("multiplier", f"expected a whole number for {name}, got {multiplier}.")
    height, width, channels = image_shape or spec.image_shape
    shape = (height, width, channels) if image_size is None else (image_size, image_size, channels)
    spec = dataclasses.replace(spec, convention=convention or spec.convention)
    policy = rounding or ("multiple" if divisor else spec.rounding.policy)
    fields |= (
        _computing_in(dtype, spec)
        | _given(norm=norm)
        | {key: _hashable(value) for key, value in options.items()}
    )
    return make_supernet(
        spec,
        spec.build(**fields),
        shape,
        Rounding(policy, divisor or spec.rounding.divisor),
        min_width,
        resolutions,
    )


def _computing_in(dtype: str, spec: models.ModelSpec) -> dict[str, Any]:
    """The field for a type; a network without it computes in float32."""
    if "dtype" in spec.defaults:
        return {"dtype": jnp.dtype(dtype)}
    check("dtype", dtype, one_of("float32"))
    return {}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _hashable(value: Any) -> Any:
    """JSON has lists for tuples; a module's fields must be hashable."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and math.isfinite(value) and value == int(value) else value
