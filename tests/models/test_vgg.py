"""VGG: costs that its table adds up to, the published sizes, and its two ends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.nets import NETS, forms, subnet_of, variables_of
from helpers.trees import assert_trees_close
from slimjax.errors import UserError
from slimjax.models.vgg import Flatten, max_pool_2x2
from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.widths import Dropout, Group, Width, Widths
from slimjax.supernet import Supernet, named

# Simonyan and Zisserman, table 1, columns A, B, D and E, typed anew; M halves the image.
TABLE = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}

# Parameters of torchvision's networks with batch norm for 1,000 classes (its documentation).
TORCHVISION = {11: 132_868_840, 13: 133_053_736, 16: 138_365_992, 19: 143_678_248}

# MACs for 224 pixels that it states, in 1e9.
TORCHVISION_MACS = {11: 7.61, 13: 11.31, 16: 15.47, 19: 19.63}


def imagenet(depth: int) -> Supernet:
    options = {"depth": depth, "hidden": (4096, 4096)}
    return named("vgg16", image_size=224, num_classes=1000, options=options)


def counted(depth: int, side: int) -> tuple[int, int, int]:
    """MACs and parameters of the convolutions, and how many channels have a norm."""
    inputs, macs, params, normed = 3, 0, 0, 0
    for word in TABLE[depth].split():
        if word == "M":
            side //= 2
            continue
        outputs = int(word)
        macs += side**2 * 9 * inputs * outputs
        params += 9 * inputs * outputs
        normed += outputs
        inputs = outputs
    return macs, params, normed


@pytest.mark.parametrize("depth", TABLE)
def test_vgg_for_small_images_costs_what_its_table_adds_up_to(depth):
    net = named("vgg16", options={"depth": depth})
    macs, params, normed = counted(depth, 32)
    assert net.macs(net.space.largest) == macs + 512 * 10
    assert net.params(net.space.largest) == params + 2 * normed + 512 * 10 + 10
    assert net.space.largest.tolist() == [int(word) for word in TABLE[depth].split() if word != "M"]


@pytest.mark.parametrize("depth", TABLE)
def test_vgg_for_imagenet_has_the_published_size_but_for_biases_that_norms_replace(depth):
    net = imagenet(depth)
    macs, params, normed = counted(depth, 224)
    dense = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    assert net.macs(net.space.largest) == macs + dense
    assert net.params(net.space.largest) == params + 2 * normed + dense + 4096 + 4096 + 1000
    assert net.params(net.space.largest) == TORCHVISION[depth] - normed
    assert round(int(net.macs(net.space.largest)) / 1e9, 2) == TORCHVISION_MACS[depth]


def test_hidden_layers_of_vgg_are_narrowed_with_the_rest():
    """Half of everything: a quarter of each product of two groups, half of what meets the image or the classes."""
    net = imagenet(16)
    macs, _, _ = counted(16, 224)
    first = 224**2 * 9 * 3 * 64
    dense = 7 * 7 * 256 * 2048 + 2048 * 2048 + 2048 * 1000
    assert net.macs(net.space.uniform(0.5)) == (macs - first) // 4 + first // 2 + dense
    assert list(net.space.index)[-3:] == ["stage5/conv3", "hidden1", "hidden2"]


def test_nothing_is_tied_in_vgg():
    """One group for each convolution, in the order of the network."""
    stages = enumerate((2, 2, 3, 3, 3), 1)
    names = [f"stage{stage}/conv{i}" for stage, convs in stages for i in range(1, convs + 1)]
    assert list(named("vgg16").space.index) == names
    assert len(names) == 13


def test_flattened_channels_stay_leading_slices():
    """The pixels of a channel are neighbours: two channels of 2 x 2 pixels are the first eight entries."""
    value = jnp.arange(2 * 2 * 2 * 3, dtype=jnp.float32).reshape(2, 2, 2, 3)
    group = Group("g", 3)
    whole = Flatten().apply({}, FeatureMap(value, group, Widths()))
    assert (whole.group.base, whole.group.channels) == (group, 12)
    np.testing.assert_array_equal(whole.value[0], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11])
    narrow = Flatten().apply({}, FeatureMap(value[..., :2], group, Widths({"g": Width(2)})))
    np.testing.assert_array_equal(narrow.value, whole.value[:, :8])


def test_max_pool_takes_the_largest_of_four_and_rounds_an_odd_side_up():
    x = -jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)  # negative: what is padded never wins
    np.testing.assert_array_equal(max_pool_2x2(x)[0, ..., 0], [[-1, -3], [-7, -9]])
    assert max_pool_2x2(max_pool_2x2(max_pool_2x2(x))).shape == (1, 1, 1, 1)


def test_vgg_equals_plain_arithmetic(images):
    """Each layer again, with the arrays taken by name: convolution, norm, ReLU, pool; dense layers; classifier."""
    with jax.enable_x64(True):
        net = NETS["vgg16_hidden"]()
        net = Supernet(net.model.clone(dtype=jnp.float64), net.image_shape, net.space.rounding, 0.25)
        variables = jax.tree.map(lambda x: x.astype(np.float64), variables_of(net))
        ours = net.model.apply(variables, images.astype(np.float64), train=False)
    x = images.astype(np.float64)
    for stage in (1, 2):
        for conv in (1, 2):
            x = np.maximum(_conv_and_norm(x, variables, f"stage{stage}_conv{conv}"), 0)
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    for name in ("hidden1", "hidden2"):
        x = np.maximum(_dense(x, variables["params"][name]), 0)
    assert_trees_close(ours, _dense(x, variables["params"]["classifier"]), "float64")


def _conv_and_norm(x, variables, name):
    kernel = variables["params"][name]["kernel"]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    windows = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
    norm = name.replace("conv", "norm")
    statistics, affine = variables["batch_stats"][norm], variables["affine"][norm]
    normal = (sum(windows) - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
    return normal * affine["scale"] + affine["bias"]


def _dense(x, own):
    return x @ own["kernel"] + own["bias"]


def test_dropout_of_a_step_reaches_the_classifier_of_vgg(images):
    """As in every other network, whichever end it has."""
    for name in ("vgg16", "vgg16_hidden"):
        net = NETS[name]()
        subnet, variables = subnet_of(net), variables_of(net)
        widths = forms(net, subnet)["sliced"]
        plain = net.model.apply(variables, images, widths, train=False)
        keys = jax.random.key_data(jax.random.split(jax.random.key(0), len(images)))
        widths = dataclasses.replace(widths, dropout=Dropout(0.5, keys))
        dropped = net.model.apply(variables, images, widths, train=False)
        assert not np.allclose(plain, dropped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 12}, "depth: expected one of 11, 13, 16, 19, got 12"),
        ({"channels": (4,) * 6}, r"channels: expected channels of 1 to 5 stages, got \(4, "),
        ({"channels": ()}, r"channels: expected channels of 1 to 5 stages, got \(\)"),
    ],
)
def test_vgg_that_is_none_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        named("vgg16", options=options).space  # noqa: B018
