"""The other side of a comparison: the step that one writes for the largest network alone in plain Flax and Optax."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from slimjax.errors import BadValue
from slimjax.experiment.build import Experiment
from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.trace import LayerRecord, Op
from slimjax.step.slots import Batch
from slimjax.step.state import Tree
from slimjax.supernet import Supernet

State = dict[str, Tree]
"""Parameters, batch statistics, what the optimiser keeps, the key and the number of the step."""


class Plain(nn.Module):
    """The forward pass that `ops` write down, with Flax's own layers, which know of no widths."""

    ops: tuple[Op, ...]

    @classmethod
    def of(cls, net: Supernet) -> Plain:
        """The largest network."""
        return cls(net.records.path({choice.name: choice.last for choice in net.space.choices}).ops)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits [B, K] of images [B, H, W, C], in training mode."""
        found: list[FeatureMap] = []
        for number, op in enumerate(self.ops):
            inputs = [found[i] for i in op.inputs]
            if op.layer is not None and op.layer.arrays:
                value = self._layer(f"{op.name}{number}", op, op.layer)(inputs[0].value)
                found.append(FeatureMap(value, op.group, inputs[0].widths))
            else:
                found.append(op.apply({}, *inputs) if inputs else FeatureMap.of(images))
        return found[-1].value

    def _layer(self, name: str, op: Op, layer: LayerRecord) -> Callable[[jax.Array], jax.Array]:
        channels, biased = layer.out_group.channels, any(array.name == "bias" for array in layer.arrays)
        window = functools.partial(
            nn.Conv,
            channels,
            (layer.kernel_size, layer.kernel_size),
            layer.stride,
            [(layer.kernel_size // 2, layer.kernel_size // 2)] * 2,
            use_bias=biased,
            dtype=op.dtype,
            name=name,
        )
        made: dict[str, Callable[[], Any]] = {
            "Conv": lambda: window(feature_group_count=layer.conv_groups),
            "DepthwiseConv": lambda: window(feature_group_count=channels),
            "BatchNorm": lambda: nn.BatchNorm(
                use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=op.dtype, name=name
            ),
            "Dense": lambda: nn.Dense(channels, use_bias=biased, dtype=op.dtype, name=name),
        }
        if layer.kind not in made:
            raise BadValue("against", f"plain Flax has no counterpart of the layer {layer.kind} here.")
        module: Callable[[jax.Array], jax.Array] = made[layer.kind]()
        return module


def flax_step(experiment: Experiment) -> tuple[jax.stages.Wrapped, Callable[[], State]]:
    """One donated program, (state, batch) -> state, and what makes the state that it begins with.

    It prepares the images as the engine does, and has the config's data type, optimiser and batch. All of its
    parameters decay, and its norms take statistics of the whole batch.
    """
    net, engine, config = experiment.net, experiment.engine, experiment.config
    model, optimizer = Plain.of(net), _optimizer(config)

    def begin() -> State:
        variables = model.init(jax.random.key(0), jnp.zeros((1, *net.image_shape)))
        return {
            **variables,
            "optimizer": optimizer.init(variables["params"]),
            "key": jax.random.key_data(jax.random.key(0)),
            "step": jnp.zeros((), jnp.int32),
        }

    def loss(params: Tree, state: State, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Tree]:
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        logits, new = model.apply(variables, images, mutable=["batch_stats"])
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), config.train.label_smoothing)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean(), new["batch_stats"]

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Batch) -> State:
        key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
        images = engine.prepare_train(key, batch["image"])
        gradient, stats = jax.grad(loss, has_aux=True)(state["params"], state, images, batch["label"])
        updates, kept = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {
            **state, "params": params, "batch_stats": stats, "optimizer": kept, "step": state["step"] + 1
        }  # fmt: skip

    jitted: jax.stages.Wrapped = step
    return jitted, begin


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
    wanted = config.optimizer
    return optax.chain(
        optax.add_decayed_weights(wanted.weight_decay),
        optax.sgd(wanted.learning_rate, wanted.momentum, wanted.nesterov),
    )
