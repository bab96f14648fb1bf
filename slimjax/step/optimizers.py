"""Learning-rate schedules and SGD exactly as the papers use them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slimjax.errors import UserError
from slimjax.step.state import Tree


@dataclasses.dataclass(frozen=True)
class Updates:
    """The updates of a run.

    Args:
      count: how many.
      schedule: a number of updates -> the learning rate during them, by update, from 0.
      optimizer: a learning rate by update -> what moves the weights.
    """

    count: int
    schedule: Callable[[int], optax.Schedule]
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation]

    def shared_out(self, lengths: Sequence[float]) -> list[int]:
        """The first updates of parts of these lengths, in any unit: the parts share the run in proportion."""
        ends = np.cumsum(np.asarray(lengths, np.float64))
        return [0, *np.rint(self.count * ends[:-1] / ends[-1]).astype(int).tolist()]

    def divided(self, firsts: Sequence[int], scales: Sequence[float]) -> optax.Schedule:
        """The learning rate of a run whose parts begin at these updates: each has a whole schedule, times its scale."""
        spans = [end - first for first, end in itertools.pairwise([*firsts, self.count])]
        parts = [
            _scaled(self.schedule(max(1, span)), scale) for span, scale in zip(spans, scales, strict=True)
        ]
        return optax.join_schedules(parts, list(firsts[1:]))


def _scaled(schedule: optax.Schedule, scale: float) -> optax.Schedule:
    return lambda step: scale * schedule(step)


SCHEDULES = ("constant", "linear", "cosine", "exponential", "multistep")


def schedule(
    name: str,
    base: float,
    *,
    steps: int,
    steps_per_epoch: float,
    warmup_steps: int = 0,
    factor: float = 0.98,
    decay_epochs: float = 1.0,
    final_fraction: float = 0.0,
    milestones: Sequence[float] = (),
) -> optax.Schedule:
    """Learning rate by update, from 0.

    An epoch is every image once, which need not be a whole number of updates: what happens after an epoch happens
    at the first update that begins after it, and nothing accumulates.

    Differs: the released slimmable networks' linear decay is one update ahead, base * (1 - (t + 1) / T) instead of
    base * (1 - t / T): their last update has a rate of 0 (3e-6 of `base`, over 250 epochs of ImageNet).
    Their warm-up begins at base / n where ours begins at 0, as Joslim's; no shipped recipe of theirs warms up. Their
    epochs are those of the loader, whose last batch is smaller (`data.pipeline`).

    Args:
      name: "constant"; "linear": to 0 at `steps`, each update (US-Net); "cosine": half a cosine to 0 at `steps`, each
        update; "exponential": times `factor` after each `decay_epochs` (S-MobileNets, 0.98 after 1); "multistep": times
        `factor` at each of `milestones`, in epochs (S-ResNet-50: 0.1 at 30, 60, 90).
      steps_per_epoch: updates of an epoch, at least one; not rounded.
      warmup_steps: linear from 0 to `base` before it; the decay then spans the remaining steps.
      final_fraction: the decay ends where the rate is this share of `base`, and stays there (BigNAS: 0.05).
    """
    decay_steps = max(1, steps - warmup_steps)
    if name == "constant":
        decay = optax.constant_schedule(base)
    elif name == "linear":
        decay = optax.linear_schedule(base, 0.0, decay_steps)
    elif name == "cosine":
        decay = optax.cosine_decay_schedule(base, decay_steps)
    elif name == "exponential":
        period = decay_epochs * steps_per_epoch
        falls = [math.ceil(k * period) for k in range(1, math.floor(decay_steps / period) + 1)]
        decay = _staircase(base, factor, falls)
    elif name == "multistep":
        decay = _staircase(
            base, factor, [math.ceil(epoch * steps_per_epoch) - warmup_steps for epoch in milestones]
        )
    else:
        raise UserError(f"optimizer.schedule: unknown {name!r}. Known: {', '.join(SCHEDULES)}.")
    held = lambda step: jnp.maximum(decay(step), final_fraction * base)  # noqa: E731
    if not warmup_steps:
        return held
    return optax.join_schedules([optax.linear_schedule(0.0, base, warmup_steps), held], [warmup_steps])


def _staircase(base: float, factor: float, falls: Sequence[int]) -> optax.Schedule:
    """`base`, times `factor` from each of the updates `falls` on, which ascend."""
    at = np.array(falls, np.int32)
    return lambda step: base * factor ** jnp.searchsorted(at, step, side="right").astype(jnp.float32)


def decayed(trainable: Tree, depthwise: bool = False, everything: bool = False) -> Tree:
    """Mask of the leaves that weight decay applies to: kernels of convolutions and of dense layers.

    Not biases, gammas and betas. Source: the Slimmable Networks rule, which selects by shape; by name it is the same
    rule, except for a stem that reads one-channel images, which decays here.
    Differs: Joslim's code selects by names, which spares betas and biases but decays most gammas, by accident.

    Args:
      depthwise: depthwise kernels decay too, as in Joslim's code.
      everything: so do biases, gammas and betas, as in TF-NAS's code.
    """
    if everything:
        return jax.tree.map(lambda _: True, trainable)
    names = ("kernel", "depthwise_kernel") if depthwise else ("kernel",)
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in names, trainable)


def sgd(
    learning_rate: optax.Schedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    decay_depthwise: bool = False,
    decay_all: bool = False,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """SGD in PyTorch's order: clip the gradient, add weight decay, momentum, then scale by the rate.

    Args:
      decay_depthwise, decay_all: see `decayed`.
      clip_norm: largest global norm of the gradient that is summed over subnets; None: no clipping.
    """
    return optax.chain(
        optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm),
        optax.add_decayed_weights(
            weight_decay,
            mask=functools.partial(decayed, depthwise=decay_depthwise, everything=decay_all),
        ),
        optax.trace(momentum, nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def architecture_adam(
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.5, 0.999),
    weight_decay: float = 5e-4,
    clip_norm: float = 5.0,
) -> optax.GradientTransformation:
    """Adam on logarithms of probabilities, which are normalised after each update.

    Clips the gradient, adds the decay to it (as PyTorch's Adam does), and takes the log-softmax of the result.

    Paper: Hu et al., TF-NAS, ECCV 2020, section 4.1; the normalisation is that of the released code.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(*betas),
        optax.scale(-learning_rate),
        optax.stateless(lambda updates, params: jax.tree.map(_to_log_softmax, updates, params)),
    )


def _to_log_softmax(update: jax.Array, value: jax.Array) -> jax.Array:
    """The update after which a vector is its logarithms of probabilities."""
    return jax.nn.log_softmax(value + update) - value


def moving_average(old: Tree, new: Tree, decay: float, step: jax.Array) -> Tree:
    """Exponential moving average with a warm-up of its decay: min(decay, (1 + step) / (10 + step))."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, b: a * rate + b * (1 - rate), old, new)
