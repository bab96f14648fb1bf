"""A network that is to be exported: plain convolutions only, and the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.nets import variables_of
from helpers.trees import assert_trees_close
from slimjax.supernet import named

CHOICES = {"cond", "platform_index", "custom_vjp_call"}
"""Primitives of a convolution that is chosen by the platform."""


def primitives(jaxpr):
    """The names of all primitives, those within others too."""
    for equation in jaxpr.eqns:
        yield str(equation.primitive)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def half(portable):
    """ResNet-8 at half its width, cut out: its forward pass, variables and images."""
    net = named("resnet8")
    subnet = net.space.uniform(0.5)
    widths = net.space.sliced(subnet, portable=portable)
    forward = lambda variables, images: net.model.apply(variables, images, widths, train=False)  # noqa: E731
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, *net.image_shape)), jnp.float32)
    return forward, net.cut(variables_of(net), subnet), images


def found(portable):
    forward, variables, images = half(portable)
    return list(primitives(jax.make_jaxpr(forward)(variables, images).jaxpr))


def test_a_portable_network_has_its_convolutions_and_nothing_to_choose():
    """ResNet-8: the stem, and three blocks of two; the shortcuts have no parameters."""
    names = found(portable=True)
    assert names.count("conv_general_dilated") == 1 + 3 * 2
    assert not CHOICES & set(names)
    quick = found(portable=False)
    assert quick.count("conv_general_dilated") > 7
    assert set(quick) >= CHOICES


def test_a_portable_networks_logits_are_those_of_the_quick_one():
    portable, variables, images = half(portable=True)
    quick, *_ = half(portable=False)
    logits = quick(variables, images)
    assert float(jnp.abs(logits).max()) > 0.01
    assert_trees_close(portable(variables, images), logits, "float32")


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_an_exported_network_has_plain_convolutions_on_every_platform(platform):
    forward, variables, images = half(portable=True)
    text = jax.export.export(jax.jit(forward), platforms=[platform])(variables, images).mlir_module()
    assert text.count("stablehlo.convolution(") == 7
    assert "stablehlo.case" not in text
    assert "stride = [1, 2]" not in text


def test_a_portable_network_has_forward_derivatives():
    forward, variables, images = half(portable=True)
    _, tangent = jax.jvp(lambda x: forward(variables, x), (images,), (jnp.ones_like(images),))
    assert bool(jnp.isfinite(tangent).all())
