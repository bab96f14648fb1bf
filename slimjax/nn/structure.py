"""Structure parameters: how much each channel of a group, or option of a choice, counts; learnt beside the weights.

A collection of their own, "structure", beside a network's variables: {"alphas": {group name: float32 [C]}}, or
{"choices": {choice name: float32 [options]}}, which are logarithms of probabilities. They do not enter the layers:
filters are scaled by the former before the network is applied (`Supernet.apply`), and the latter are the weights of
`Mixture`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from slimjax.nn import filters
from slimjax.nn.arrays import ALPHAS, CHOICES
from slimjax.nn.feature_map import mask_axis, narrow
from slimjax.nn.space import Space
from slimjax.nn.trace import Records
from slimjax.nn.widths import Group, Widths


def init(records: Records, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """Alphas of all slimmable groups that convolutions write to: {"alphas": {group name: float32 [C]}}.

    Normal, with a standard deviation of sqrt(2 / C).

    Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020 (Kaiming's
    initialisation).
    Differs: that the fan is the number of channels is our reading.
    """
    groups = list(dict.fromkeys(kernel.group.base for kernel in filters.kernels(records)))
    keys = jax.random.split(key, len(groups))
    draw = lambda key, channels: jax.random.normal(key, (channels,)) * (2 / channels) ** 0.5  # noqa: E731
    return {ALPHAS: {group.name: draw(k, group.channels) for group, k in zip(groups, keys, strict=True)}}


def scaled(
    records: Records, params: Mapping[str, Any], structure: Mapping[str, Any], widths: Widths
) -> dict[str, Any]:
    """The parameters with every filter of channel c times the softmax of its group's alphas at c.

    The softmax is taken over the channels that are active in `widths`, so a subnet is a network of its own: no alpha
    and no weight outside of it has an influence, or a gradient, even if it is NaN. The arrays that are scaled come cut
    to the static sizes of `widths`, as layers take them, with zeros beyond its active counts; others stay as they are.

    Paper: Lu et al., IJCAI 2020, equation 6.
    Differs: a channel of a group has one alpha, where the paper has one for each filter of a layer. Convolutions that
    a residual sum or a depthwise convolution ties keep or lose their channels together, so their filters of a channel,
    those of a depthwise convolution too, are scaled alike. Without ties it is the same.

    Args:
      params: kernels at full size.
      structure: see `init`; groups without alphas are not scaled.
    """
    leaves, alphas = traverse_util.flatten_dict(params), structure.get(ALPHAS, {})
    for path, axes, group in filters.kernels(records):
        if group.name in alphas:
            kernel = narrow(leaves[path], axes, widths)
            share = _shares(alphas[group.name], widths, group.base)
            per_entry = jnp.repeat(share, kernel.shape[-1] // share.size)
            leaves[path] = kernel * jax.lax.broadcast_to_rank(per_entry, kernel.ndim)
    return traverse_util.unflatten_dict(leaves)


def _shares(alphas: jax.Array, widths: Widths, group: Group) -> jax.Array:
    """The softmax over the active channels, 0 elsewhere: [C] of the group's static size."""
    width = widths.of(group)
    active = jax.lax.slice_in_dim(alphas, 0, width.size)
    return jax.nn.softmax(mask_axis(active, width, 0, jnp.full_like(active, -jnp.inf)))


class Mixture(NamedTuple):
    """Choices that run as a weighted sum of all their options.

    Args:
      plain: names of those whose weights are the softmax of their structure parameters.
      noisy: of those to whose parameters Gumbel noise is added first; the sum is divided by a temperature.
    """

    plain: tuple[str, ...] = ()
    noisy: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.plain + self.noisy

    def weights(
        self, structure: Mapping[str, Any], key: jax.Array | None = None, temperature: Any = 1.0
    ) -> dict[str, jax.Array]:
        """[options] for each of the choices; differentiable in the parameters.

        Paper: Hu et al., TF-NAS, ECCV 2020, equations 2 (operators) and 8 (depths).

        Args:
          key: of the noise: equal keys give equal weights. None: there are no noisy choices.
        """
        logits = structure[CHOICES]
        found = {name: jax.nn.softmax(logits[name]) for name in self.plain}
        for number, name in enumerate(self.noisy):
            assert key is not None, "noisy choices need a key"
            noise = jax.random.gumbel(jax.random.fold_in(key, number), logits[name].shape)
            found[name] = jax.nn.softmax((logits[name] + noise) / temperature)
        return found


NO_MIXTURE = Mixture()


def even_choices(space: Space) -> dict[str, dict[str, jax.Array]]:
    """Structure parameters of a space's choices, at first: every option has the same probability."""
    return {CHOICES: {c.name: jnp.full((len(c),), -jnp.log(float(len(c)))) for c in space.choices}}
