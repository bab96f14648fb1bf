"""REINFORCE on ThresNet: the controller that learns, from rewards of subnets, how much of each layer to keep.

Everything runs on the host's CPU backend, whatever device is JAX's default: it takes and gives NumPy arrays, and
devices are left to the training.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slimjax.checks import Rule, check_fields, integer, number, one_of, optional, tuple_of
from slimjax.errors import BadValue, RunError, UserError
from slimjax.search.thresnet import POLICIES, Policy, ThresNet

Arrays = dict[str, Any]
"""All that a controller has learned, NumPy arrays of constant shapes and dtypes: "params" of its network, "optimizer",
"baseline" (float32, a moving average of rewards) and "begun" (bool, whether it has seen one)."""

Layers = Sequence[np.ndarray]
"""The structure parameters alpha [C] of each layer."""


@dataclasses.dataclass(frozen=True)
class Controller:
    """One threshold for each layer from its structure parameters, learned by REINFORCE; pure functions of arrays.

    Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020, equation 4.
    Differs: one subnet for each update (K = 1), as algorithm 2 has a reward after each. The thresholds to choose among,
    Adam and its rate are those of a known reimplementation, as the paper names none; that one descends the reward, and
    the sign here is the paper's. A baseline and the continuous policy are options of our own.
    Reduces to: one fixed rate, where there is one threshold.

    Args:
      channels: of each layer.
      policy: "discrete" chooses one of the thresholds; "continuous" any number between the lowest and the highest.
      thresholds: shares of a layer's importance.
      learning_rate: of Adam.
      baseline: decay of a moving average of rewards, which an update takes from its reward before it enters the
        average; the first update's baseline is 0. None: always 0. The expected gradient is the same.

    Raises:
      BadValue: naming the option.
    """

    channels: tuple[int, ...]
    policy: str = "discrete"
    thresholds: tuple[float, ...] = (0.55, 0.60, 0.65, 0.70, 0.75)
    learning_rate: float = 1e-3
    baseline: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, _RULES)
        for name in ("channels", "thresholds"):  # a list is no key for what is compiled
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def init(self, seed: int) -> Arrays:
        """What an untrained controller knows: a function of the seed."""
        return _on_cpu(self._init, np.uint32(seed))

    def no_actions(self) -> np.ndarray:
        """Zeros, shaped as actions are: [L]."""
        return np.zeros(len(self.channels), self._policy.dtype)

    def propose(self, arrays: Arrays, alphas: Layers, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Actions [L], and their thresholds, float64 [L]: a sample that is a function of the arguments.

        An action is the index of a threshold, int32 (discrete), or the sample before its sigmoid, float32 (continuous).
        """
        outputs = _on_cpu(self._outputs, arrays["params"], self._checked(alphas))
        actions = self._policy.sample(outputs, np.random.default_rng(seed))
        return actions, self._policy.thresholds(actions)

    def update(self, arrays: Arrays, alphas: Layers, actions: np.ndarray, reward: float) -> Arrays:
        """The arrays after one step of REINFORCE down -(reward - baseline) * sum over layers of log pi(action | alpha).

        The gradient is an unbiased estimate of that of minus the expected reward, as actions are of these arrays.

        Args:
          alphas: those that the actions were proposed for.
          reward: the higher, the better.

        Raises:
          RunError: the reward is not finite.
        """
        if not math.isfinite(reward):
            raise RunError(
                f"The reward of a sampled subnet is {reward}, which nothing can be learned from: its training has "
                "diverged. Lower the learning rate of the phase that trains sampled subnets."
            )
        return _on_cpu(self._update, arrays, self._checked(alphas), actions, np.float32(reward))

    def log_prob(self, params: Any, alphas: Sequence[jax.Array], actions: jax.Array) -> jax.Array:
        """log pi of all layers' actions together, a scalar. It can be traced and differentiated."""
        return self._policy.log_prob(self._outputs(params, alphas), actions).sum()

    @property
    def _policy(self) -> Policy:
        return POLICIES[self.policy](self.thresholds)

    @property
    def _net(self) -> ThresNet:
        return ThresNet(self.channels, self._policy.outputs)

    def _checked(self, alphas: Layers) -> list[np.ndarray]:
        """float32. Raises: BadValue: they are not of the controller's layers."""
        found = tuple(np.shape(own) for own in alphas)
        if found != (expected := tuple((count,) for count in self.channels)):
            raise BadValue("alphas", f"expected arrays of the shapes {expected}, got {found}.")
        return [np.asarray(own, np.float32) for own in alphas]

    # A controller is the key of what is compiled: equal ones share it.

    @functools.partial(jax.jit, static_argnums=0)
    def _init(self, seed: jax.Array) -> Arrays:
        key = jax.random.key(seed, impl="threefry2x32")
        params = self._net.init(key, [jnp.zeros(count) for count in self.channels])["params"]
        optimizer = optax.adam(self.learning_rate).init(params)
        return {
            "params": params, "optimizer": optimizer, "baseline": jnp.zeros((), jnp.float32), "begun": jnp.array(False)
        }  # fmt: skip

    @functools.partial(jax.jit, static_argnums=0)
    def _outputs(self, params: Any, alphas: Sequence[jax.Array]) -> jax.Array:
        return jnp.asarray(self._net.apply({"params": params}, alphas))

    @functools.partial(jax.jit, static_argnums=0)
    def _update(
        self, arrays: Arrays, alphas: list[jax.Array], actions: jax.Array, reward: jax.Array
    ) -> Arrays:
        def loss(params: Any) -> jax.Array:
            return -(reward - arrays["baseline"]) * self.log_prob(params, alphas, actions)

        slopes = jax.grad(loss)(arrays["params"])
        changes, optimizer = optax.adam(self.learning_rate).update(slopes, arrays["optimizer"])
        params = optax.apply_updates(arrays["params"], changes)
        return {"params": params, "optimizer": optimizer, **self._averaged(arrays, reward)}

    def _averaged(self, arrays: Arrays, reward: jax.Array) -> Arrays:
        """The baseline after a reward: the first reward itself, then the moving average."""
        old = arrays["baseline"]
        if self.baseline is not None:
            moved = self.baseline * old + (1 - self.baseline) * reward
            old = jnp.where(arrays["begun"], moved, reward)
        return {"baseline": old, "begun": jnp.array(True)}


def _filled(rule: Rule) -> Rule:
    """Of a tuple that has one at least."""
    return Rule(lambda value: rule.holds(value) and len(value) > 0, f"{rule.expected}, one at least")


_RULES = {
    "channels": _filled(tuple_of(integer(1))),
    "policy": one_of(*POLICIES),
    "thresholds": _filled(tuple_of(number(0, 1))),
    "learning_rate": number(0, above=True),
    "baseline": optional(number(0, 1)),
}


def _on_cpu(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function of arrays, on the CPU: NumPy in (or what a checkpoint gave), NumPy out."""
    device = _cpu()
    with jax.default_device(device):
        placed = jax.device_put(jax.tree.map(np.asarray, arguments), device)
        return jax.device_get(function(*placed))


def _cpu() -> jax.Device:
    """Raises: UserError: JAX was told to leave the CPU out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            f"JAX_PLATFORMS: expected cpu among its platforms, as the controller learns there ({error}). "
            "Leave it unset, or add cpu: JAX_PLATFORMS=cuda,cpu."
        ) from error
