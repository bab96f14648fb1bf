"""Running averages and calibration of batch statistics."""

import jax
import numpy as np
import pytest

from helpers.engines import batches as engine_batches
from helpers.engines import engine_of
from helpers.nets import named, subnet_of, variables_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.nn import batch_stats, layers
from slimjax.step.slots import Slot


@pytest.fixture(scope="module")
def net():
    return named("resnet8")


@pytest.fixture(scope="module")
def variables(net):
    return variables_of(net)


@pytest.fixture(scope="module")
def collect(net, variables):
    """The batch's own statistics of one masked subnet; the images are taken as they are."""
    weights = {name: variables[name] for name in ("params", "affine")}

    @jax.jit
    def forward(stats, subnet, images):
        joined = {**weights, "batch_stats": stats}
        widths = net.space.masked(subnet)
        return net.model.apply(joined, images, widths, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    return lambda stats, subnet, batch, number: forward(stats, subnet, batch["image"])


def batches(*sizes):
    rng = np.random.default_rng(3)
    return [{"image": rng.normal(size=(n, 8, 8, 3)).astype(np.float32)} for n in sizes]


def calibrate(net, collect, subnets, data):
    return batch_stats.calibrate(collect, net.variable_shapes["batch_stats"], subnets, data)


def test_blend_of_equal_entries_changes_no_bit():
    old = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert_trees_equal(batch_stats.blend(old, old.copy(), 0.1), old)


def test_blend_at_rate_a_tenth_is_the_papers_running_average():
    assert batch_stats.blend(np.float32(1), np.float32(2), 0.1) == pytest.approx(1.1)


def test_calibration_is_the_mean_weighted_by_images(net, collect):
    subnet, data = net.space.largest, batches(8, 8, 4)
    result = calibrate(net, collect, {"full": subnet}, data)["full"]
    start = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), net.variable_shapes["batch_stats"])
    singles = [collect(start, subnet, batch, 0) for batch in data]
    want = jax.tree.map(lambda *x: np.average(x, axis=0, weights=[8, 8, 4]).astype(np.float32), *singles)
    assert_trees_close(result, want)


def test_stem_statistics_are_those_of_its_activations(net, collect, variables):
    data = batches(8, 8)
    result = calibrate(net, collect, {"full": net.space.largest}, data)["full"]["stem_norm"]
    kernel = variables["params"]["stem"]["kernel"]
    pad = [(1, 1), (1, 1)]
    conv = lambda x: jax.lax.conv_general_dilated(  # noqa: E731
        x, kernel, (1, 1), pad, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    outputs = np.stack([conv(batch["image"]) for batch in data])
    np.testing.assert_allclose(result["mean"], outputs.mean((0, 1, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["var"], outputs.var((1, 2, 3), ddof=1).mean(0), rtol=1e-4)


def test_calibrating_together_equals_calibrating_alone(net, collect):
    """The reference's fault was one collection for all widths."""
    subnets = {"wide": net.space.largest, "odd": subnet_of(net), "narrow": net.space.smallest}
    together = calibrate(net, collect, subnets, batches(8, 8))
    for name, subnet in subnets.items():
        alone = calibrate(net, collect, {name: subnet}, batches(8, 8))
        assert_trees_equal(together[name], alone[name])


def test_calibration_does_not_depend_on_earlier_statistics(net, collect, variables):
    """Nor can it leave them as they were: it starts from nothing."""
    first = calibrate(net, collect, {"w": net.space.smallest}, batches(8))["w"]
    other = variables_of(net)["batch_stats"]
    changed = [
        not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    ]
    assert all(changed)
    assert_trees_equal(calibrate(net, collect, {"w": net.space.smallest}, batches(8))["w"], first)


def test_calibration_of_zero_batches_is_an_error(net, collect):
    with pytest.raises(ValueError, match="no batch"):
        calibrate(net, collect, {"w": net.space.smallest}, [])


def test_calibration_takes_two_passes(monkeypatch):
    """Whatever the batch: what is calibrated is kept."""
    passes, moments = [], layers.moments

    def noted(value, average, two_pass, mends):
        passes.append(two_pass)
        return moments(value, average, two_pass, mends)

    monkeypatch.setattr(layers, "moments", noted)
    engine = engine_of(max_programs=7)  # no other test's: nothing of it is traced yet
    slots = (Slot("max", tuple(engine.net.space.largest.tolist()), stats="max"),)
    state = engine.init(0, slots)
    passes.clear()
    engine.collect(state, slots[0].affine)(
        state.batch_stats["max"], engine.net.space.largest, next(engine_batches(1)), 0
    )
    assert passes
    assert all(passes)
