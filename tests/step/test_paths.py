"""Paths that the devices draw, and the bi-sampling step that runs two of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import stats

from helpers.engines import batches
from helpers.nets import inactive
from helpers.tfnas import OPTIONS, drawn_paths, searching, tiny_net, uneven
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.algorithms import tfnas
from slimjax.models.activation import ACTIVATIONS
from slimjax.models.inverted_residual import InvertedResidual
from slimjax.models.tfnas import ROOM
from slimjax.nn import losses
from slimjax.nn.choices import Choice
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.space import Space
from slimjax.nn.widths import Group
from slimjax.step.paths import bisampled

SPACE = Space(
    (Group("body", 8),),
    choices=(
        Choice("a", tuple("wxyz"), ordered=False),
        Choice("depth", ("1", "2")),
        Choice("b", tuple("wxyz"), ordered=False),
    ),
)
SHARES = {
    "a": np.array([0.5, 0.25, 0.15, 0.1]),
    "b": np.array([0.1, 0.2, 0.3, 0.4]),
    "depth": np.array([0.5, 0.5]),
}
STRUCTURE = {"choices": {name: np.log(row).astype(np.float32) for name, row in SHARES.items()}}
START = np.array([[5, 0, 1, 0], [7, 0, 0, 0]], np.int32)
DRAWS = 4000
IMAGES = 2


@functools.cache
def drawn(second: str) -> np.ndarray:
    """int32 [DRAWS, 2, G]."""
    draw = bisampled(SPACE, ("a", "b"), second)
    keys = jax.random.split(jax.random.key(8), DRAWS)
    return np.array(
        jax.jit(jax.vmap(lambda key: draw(jax.tree.map(jnp.asarray, STRUCTURE), key, jnp.asarray(START))))(
            keys
        )
    )


def counts(options) -> np.ndarray:
    return np.bincount(options, minlength=4)


def chance(found, shares) -> float:
    """The probability of counts that are as far from their shares as these."""
    return stats.chisquare(found, shares / shares.sum() * found.sum()).pvalue


@pytest.mark.parametrize("name", ["a", "b"])
def test_first_path_is_drawn_by_the_probabilities(name):
    assert chance(counts(drawn("random")[:, 0, SPACE.index[name]]), SHARES[name]) > 1e-3


@pytest.mark.parametrize("second", ["random", "gumbel", "max", "min"])
def test_second_path_never_has_an_operator_of_the_first(second):
    rows = drawn(second)
    for name in ("a", "b"):
        column = rows[..., SPACE.index[name]]
        assert (column[:, 0] != column[:, 1]).all()
        assert set(column[:, 0]) == {0, 1, 2, 3}, "every operator is drawn"


@pytest.mark.parametrize(("second", "remaining"), [("random", np.ones(4)), ("gumbel", SHARES["a"])])
def test_second_path_is_drawn_among_the_operators_that_remain(second, remaining):
    """Random: each alike, whatever its probability. Gumbel: by the probabilities."""
    column = drawn(second)[..., SPACE.index["a"]]
    for first in range(4):
        others = np.arange(4) != first
        assert chance(counts(column[column[:, 0] == first, 1])[others], remaining[others]) > 1e-3


@pytest.mark.parametrize(("second", "best", "taken"), [("max", np.argmax, 0.0), ("min", np.argmin, 1.0)])
def test_second_path_of_the_largest_or_smallest_probability_that_remains(second, best, taken):
    for name in ("a", "b"):
        column = drawn(second)[..., SPACE.index[name]]
        for first in range(4):
            left = np.where(np.arange(4) == first, taken, SHARES[name])
            assert set(column[column[:, 0] == first, 1]) == {best(left)}


def test_choices_are_drawn_independently():
    rows = drawn("random")
    for row in (0, 1):
        table = stats.contingency.crosstab(*(rows[:, row, SPACE.index[name]] for name in ("a", "b"))).count
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_entries_of_other_axes_stay():
    rows = drawn("random")
    for name in ("body", "depth"):
        np.testing.assert_array_equal(rows[..., SPACE.index[name]], [START[:, SPACE.index[name]]] * DRAWS)


class Written(nn.Module):
    """The tiny network with an operator in each block, and the sum over the depths of its first stage.

    Args:
      shares: of one and of two blocks.
    """

    operators: tuple[str, str, str]
    shares: tuple[float, float]

    @nn.compact
    def __call__(self, images, widths):
        norm, fixed = functools.partial(BatchNorm, affine=False), functools.partial(Group, fixed=True)
        x = Conv(fixed("stem", OPTIONS["stem"]), name="stem")(FeatureMap.of(images, widths))
        x = norm(name="stem_norm")(x, True).map(jax.nn.relu)
        first, one, two = fixed("first", OPTIONS["first"]), fixed("stage1", 4), fixed("stage2", 6)
        squeeze = fixed("first/squeeze", OPTIONS["stem"] // 4)
        x = self._block("first", None, first, 3, 1, "relu", squeeze)(x, True)
        x1 = self._mixed(0, "stage1/block1", x.group, one, 1, "relu")(x, True)
        x2 = self._mixed(1, "stage1/block2", one, one, 1, "relu")(x1, True)
        x = x1.with_value(self.shares[0] * x1.value + self.shares[1] * x2.value)
        x = self._mixed(2, "stage2/block1", one, two, 2, "swish")(x, True)
        x = Conv(fixed("tail", OPTIONS["tail"]), kernel_size=1, name="tail")(x)
        return PoolingHead(5, name="head")(norm(name="tail_norm")(x, True).map(ACTIVATIONS["swish"]))

    def _mixed(self, number, name, inner, outer, stride, activation):
        operator = self.operators[number]
        hidden = Group(f"{name}/{operator}", inner.channels * ROOM[int(operator[3])])
        return self._block(name.replace("/", "_"), hidden, outer, int(operator[1]), stride, activation)

    def _block(self, name, hidden, outer, kernel, stride, activation, squeeze=None):
        function, norm = ACTIVATIONS[activation], functools.partial(BatchNorm, affine=False)
        gate = {"squeeze_gate": jax.nn.sigmoid, "squeeze_activation": function}
        return InvertedResidual(
            hidden, outer, kernel, stride, function, squeeze, norm, jnp.float32, name=name, **gate
        )


def operators_of(path) -> tuple[str, ...]:
    space = tiny_net().space
    return tuple(c.options[path[space.index[c.name]]] for c in space.choices if not c.ordered)


def of_path(params, path):
    """What the path has of the supernet's kernels, by the names of `Written`."""
    a, b, c = (f"op_{operator}" for operator in operators_of(path))
    own = {name: params[name] for name in ("stem", "first", "tail", "head")}
    stage = params["stage1"]
    blocks = {"stage1_block1": stage["block_1"][a], "stage1_block2": stage["block_2"][b]}
    return {**own, **blocks, "stage2_block1": params["stage2_block1"][c]}


def loss_of(params, path, shares, batch):
    """The cross-entropy of the path as a static network."""
    net = Written(operators_of(path), shares)
    logits = net.apply({"params": of_path(params, path)}, batch["image"].astype(jnp.float32) / 255,
                       tiny_net().space.sliced(path))  # fmt: skip
    return losses.cross_entropy(logits, jax.nn.one_hot(batch["label"], 5))


@functools.cache
def both():
    """The bi-sampling step; its update is minus the gradient."""
    engine = searching(schedule=lambda count: lambda step: 1.0, weight_decay=0.0, momentum=0.0)
    return tfnas(engine, warmup=0, search=1).phases[-1].step


def start(step=0, seed=0):
    engine = both().engine
    state = engine.init(seed, both().slots, structure=uneven(engine.net.space))
    head = jax.tree.map(lambda x: 100 * x, state.params["head"])  # gradients are not near zero then
    return dataclasses.replace(state, params={**state.params, "head": head}, step=jnp.int32(step))


def narrow(rng):
    """int32 [2, G]: some channels of all groups, at full depth, of first operators."""
    space = tiny_net().space
    options = [choice.last if choice.ordered else 0 for choice in space.choices]
    groups = len(space.groups)
    widths = rng.integers(space.lowest[:groups], space.largest[:groups] + 1, (2, groups))
    return np.concatenate([widths, [options] * 2], 1).astype(np.int32)


def test_gradient_is_the_sum_of_those_of_two_static_networks_with_sums_over_depths():
    """Nothing that the paths do not have moves, and structure parameters do not either."""
    rows, batch, state = narrow(np.random.default_rng(0)), next(batches(1, IMAGES)), start()
    paths = drawn_paths(both(), state, rows)
    assert (paths[0] != paths[1]).sum() >= 3
    np.testing.assert_array_equal(paths[:, : len(tiny_net().space.groups)], rows[:, :9])
    before = jax.tree.map(np.asarray, state)
    shares = tuple(jax.nn.softmax(before.structure["choices"]["stage1/depth"]).tolist())
    gradient = jax.jit(jax.value_and_grad(lambda p: sum(loss_of(p, row, shares, batch) for row in paths)))
    total, want = gradient(before.params)
    after, metrics = both()(state, batch, rows)
    moved = jax.tree.map(
        lambda a, b: np.asarray(a) - b, before.params, jax.tree.map(np.asarray, after.params)
    )
    assert_trees_close(moved, want)
    assert np.linalg.norm(jax.tree.leaves(want)[0]) > 1e-2
    assert float(metrics["path/loss"] + metrics["second/loss"]) == pytest.approx(float(total), rel=1e-5)
    assert_trees_equal(after.structure, before.structure)


def test_poison_in_what_is_not_drawn_changes_no_bit():
    """Operators that neither path has, and channels beyond those of the paths."""
    net, rows, batch = tiny_net(), narrow(np.random.default_rng(1)), next(batches(1, IMAGES))
    clean = start(step=4)
    idle = [inactive(net, path, {"params": clean.params}) for path in drawn_paths(both(), clean, rows)]
    idle = jax.tree.map(np.logical_and, *idle)["params"]
    blocks = idle["stage1"]["block_1"].values()
    assert [all(leaf.all() for leaf in jax.tree.leaves(op)) for op in blocks].count(True) == 1
    poisoned = jax.tree.map(lambda x, bad: jnp.where(bad, jnp.nan, x), clean.params, idle)
    results = []
    for params in (clean.params, poisoned):
        after, metrics = both()(dataclasses.replace(start(step=4), params=params), batch, rows)
        kept = jax.tree.map(lambda x, bad: np.where(bad, 0, x), after.params, idle)
        results.append((kept, after.opt_state[2], after.structure, metrics))
    assert_trees_equal(results[1], results[0])


def test_one_compile_serves_a_thousand_subnets():
    """Of all combinations of operators, at other widths each time."""
    rng, compiled, visited, state = np.random.default_rng(2), [], set(), start()
    batch = next(batches(1, IMAGES))
    for _ in range(500):
        rows = narrow(rng)
        visited |= {tuple(path) for path in drawn_paths(both(), state, rows).tolist()}
        state, _ = both()(state, batch, rows)
        compiled.append(both().counts().compiled)
    assert len(visited) == 1000
    assert len({path[9:] for path in visited}) == 27
    assert compiled[-1] == compiled[0], "other subnets compile nothing"


def test_draws_are_those_of_the_run_and_the_step():
    rows = narrow(np.random.default_rng(3))
    found = [
        drawn_paths(both(), start(step, seed), rows)[:, 9:].tolist()
        for step, seed in ((3, 0), (3, 0), (4, 0), (3, 1))
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0] != found[3]
