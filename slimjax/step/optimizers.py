"""Learning-rate schedules and SGD exactly as the papers use them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from slimjax.errors import UserError
from slimjax.step.state import Tree

SCHEDULES = ("constant", "linear", "cosine", "exponential", "multistep")


def schedule(
    name: str,
    base: float,
    *,
    steps: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    factor: float = 0.98,
    milestones: Sequence[float] = (),
) -> optax.Schedule:
    """Learning rate by update.

    Args:
      name: "constant"; "linear": to 0 at `steps`, each update (US-Net); "cosine": to 0; "exponential":
        times `factor` after each epoch (S-MobileNets, 0.98); "multistep": times `factor` at each of
        `milestones`, in epochs (S-ResNet-50: 0.1 at 30, 60, 90).
      warmup_steps: linear from 0 to `base` before it; the decay then spans the remaining steps.
    """
    decay_steps = max(1, steps - warmup_steps)
    if name == "constant":
        decay = optax.constant_schedule(base)
    elif name == "linear":
        decay = optax.linear_schedule(base, 0.0, decay_steps)
    elif name == "cosine":
        decay = optax.cosine_decay_schedule(base, decay_steps)
    elif name == "exponential":
        decay = optax.exponential_decay(base, steps_per_epoch, factor, staircase=True)
    elif name == "multistep":
        at = {round(epoch * steps_per_epoch) - warmup_steps: factor for epoch in milestones}
        decay = optax.piecewise_constant_schedule(base, at)
    else:
        raise UserError(f"optimizer.schedule: unknown {name!r}. Known: {', '.join(SCHEDULES)}.")
    if not warmup_steps:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, base, warmup_steps), decay], [warmup_steps])


def decayed(trainable: Tree) -> Tree:
    """Mask of the leaves that weight decay applies to: kernels of convolutions and of dense layers.

    Not depthwise kernels, biases, gammas and betas. Source: the Slimmable Networks rule, which selects by
    shape; by name it is the same rule, except for a stem that reads one-channel images, which decays here.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", trainable)


def sgd(
    learning_rate: optax.Schedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """SGD in PyTorch's order: clip the gradient, add weight decay, momentum, then scale by the rate.

    Args:
      clip_norm: largest global norm of the gradient that is summed over subnets; None: no clipping.
    """
    return optax.chain(
        optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.trace(momentum, nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def moving_average(old: Tree, new: Tree, decay: float, step: jax.Array) -> Tree:
    """Exponential moving average with a warm-up of its decay: min(decay, (1 + step) / (10 + step))."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, b: a * rate + b * (1 - rate), old, new)
