"""ThresNet: the network that gives each layer its threshold, and what its outputs mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.special import expit

FEATURES = 128
"""What every head ends at."""

TRUNK = (64, 16)

LARGEST_LOG_DEVIATION = 2.0
"""Of the normal in logits: standard deviations stay within exp(-2) and exp(2), so that exploration never dies."""


def head_widths(channels: int) -> tuple[int, ...]:
    """Twice the channels, twice that, and so on while it is below 128; then 128.

    >>> head_widths(16), head_widths(64), head_widths(24), head_widths(512)
    ((32, 64, 128), (128,), (48, 96, 128), (128,))
    """
    widths = []
    while 2 * channels < FEATURES:
        channels *= 2
        widths.append(channels)
    return (*widths, FEATURES)


class ThresNet(nn.Module):
    """The structure parameters of layers to each layer's outputs: a head for each number of channels, then one trunk.

    Paper: Lu et al., IJCAI 2020 (ThresNet): a small MLP for each distinct number of channels to 128 dimensions, then a
    shared MLP. Layers of as many channels share a head.
    Differs: widths, initialisation (He et al.'s) and one output for each layer, on which the paper is silent, are those
    of a known reimplementation; numbers of channels that it does not have double to 128 likewise (`head_widths`).

    Args:
      channels: the numbers of channels there are.
      outputs: K, for each layer.
    """

    channels: tuple[int, ...]
    outputs: int

    def setup(self) -> None:
        self.heads = {str(count): _mlp(head_widths(count)) for count in sorted(set(self.channels))}
        self.trunk = _mlp(TRUNK)
        self.last = _dense(self.outputs)

    def __call__(self, alphas: Sequence[jax.Array]) -> jax.Array:
        """[C] of each of L layers -> [L, K]."""
        features = [self.heads[str(len(own))](own) for own in alphas]
        return self.last(self.trunk(jnp.stack(features)))


def _dense(width: int) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.he_normal())


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential([part for width in widths for part in (_dense(width), nn.relu)])


class Policy(Protocol):
    """How the outputs [L, K] of ThresNet choose thresholds for L layers.

    `outputs`: K; `dtype`: of actions.
    """

    dtype: ClassVar[type]

    @property
    def outputs(self) -> int: ...

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The layers' actions [L]."""
        ...

    def thresholds(self, actions: np.ndarray) -> np.ndarray:
        """float64 [L], of actions [L]."""
        ...

    def log_prob(self, outputs: jax.Array, actions: jax.Array) -> jax.Array:
        """log pi [L] of actions [L]."""
        ...


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Outputs are logits over the given thresholds; an action is the index of one, int32.

    Reduces to: one fixed rate, where there is one threshold: nothing is learned then.
    """

    given: tuple[float, ...]
    dtype: ClassVar[type] = np.int32

    @property
    def outputs(self) -> int:
        return len(self.given)

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # The largest of logits with Gumbel noise is distributed by their softmax.
        noisy = np.asarray(outputs, np.float64) + rng.gumbel(size=outputs.shape)
        return noisy.argmax(axis=-1).astype(np.int32)

    def thresholds(self, actions: np.ndarray) -> np.ndarray:
        return np.array(self.given, np.float64)[actions]

    def log_prob(self, outputs: jax.Array, actions: jax.Array) -> jax.Array:
        return jnp.take_along_axis(jax.nn.log_softmax(outputs), actions[:, None], axis=-1)[:, 0]


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Outputs are mean and log standard deviation of a normal; the sigmoid of a sample lies between two bounds.

    An action is the sample before the sigmoid, float32, and so is the log-probability. That of the threshold is less
    by the logarithm of the slope from action to threshold, which no parameter is part of: REINFORCE's gradient is the
    same. The log deviation is squashed softly (`LARGEST_LOG_DEVIATION`).
    """

    low: float
    high: float
    dtype: ClassVar[type] = np.float32

    @property
    def outputs(self) -> int:
        return 2

    def sample(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mean, raw = np.asarray(outputs, np.float64).T
        deviation = np.exp(LARGEST_LOG_DEVIATION * np.tanh(raw / LARGEST_LOG_DEVIATION))
        return (mean + deviation * rng.normal(size=mean.shape)).astype(np.float32)

    def thresholds(self, actions: np.ndarray) -> np.ndarray:
        return self.low + (self.high - self.low) * expit(np.asarray(actions, np.float64))

    def log_prob(self, outputs: jax.Array, actions: jax.Array) -> jax.Array:
        mean, raw = outputs.T
        log_deviation = LARGEST_LOG_DEVIATION * jnp.tanh(raw / LARGEST_LOG_DEVIATION)
        return jax.scipy.stats.norm.logpdf(actions, mean, jnp.exp(log_deviation))


POLICIES: Mapping[str, Callable[[tuple[float, ...]], Policy]] = MappingProxyType(
    {"discrete": Discrete, "continuous": lambda thresholds: Continuous(min(thresholds), max(thresholds))}
)
"""Thresholds to a policy, by name."""
