"""What BigNAS adds to the sandwich rule: branches that begin at zero, regularisation of the largest network only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from helpers.engines import batches, engine_of
from helpers.trees import assert_trees_close
from slimjax.algorithms import bignas
from slimjax.nn import roles
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import FeatureMap
from slimjax.nn.widths import Dropout, Group, Width, Widths
from slimjax.supernet import named


def keys(count):
    return jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(7), count))


def test_last_norm_of_every_branch_that_is_added_is_found():
    """Not a projected shortcut's norm, and not the last norm of a block without a shortcut."""
    found = {name: ["/".join(path) for path in roles.last_norms(named(name).records)] for name in NETS}
    assert found["resnet20"] == [f"stage{s}_block{b}/norm2" for s in (1, 2, 3) for b in (1, 2, 3)]
    assert found["resnet50"] == [
        f"stage{s}_block{b}/norm3" for s, blocks in enumerate((3, 4, 6, 3), 1) for b in range(1, blocks + 1)
    ]
    assert found["us_mobilenet_v2"] == [
        f"stage{s}_block{b}/project_norm"
        for s, blocks in enumerate((1, 2, 3, 4, 3, 3, 1), 1)
        for b in range(2, blocks + 1)
    ]
    assert found["us_mobilenet_v1"] == []


NETS = ("resnet20", "resnet50", "us_mobilenet_v1", "us_mobilenet_v2")


def test_branches_begin_at_zero_and_nothing_else_does():
    affine = bignas(engine_of()).init(0).affine["shared"]
    gammas = {"/".join(path): gamma for path, gamma in traverse_util.flatten_dict(affine).items()}
    zero = {path for path, gamma in gammas.items() if path.endswith("scale") and not gamma.any()}
    assert zero == {f"stage{s}_block1/norm2/scale" for s in (1, 2, 3)}
    assert all((gammas[path] == 1).all() for path in gammas if path.endswith("scale") and path not in zero)
    plain = bignas(engine_of(), zero_last_gammas=False).init(0).affine["shared"]
    assert (plain["stage1_block1"]["norm2"]["scale"] == 1).all()


def test_dropout_drops_the_given_share_and_keeps_the_mean():
    """Entries are 0 or 1 / (1 - .2); every image draws its own."""
    value = np.asarray(Dropout(0.2, keys(64))(jnp.ones((64, 100))))
    np.testing.assert_allclose(np.unique(value), [0, 1.25])
    assert value.mean() == pytest.approx(1, abs=0.03)
    assert len({row.tobytes() for row in value}) == 64


def test_head_drops_what_the_classifier_reads():
    """With the weights of a classifier that adds 3 channels up, means 1, 2, 4: a sum over what was kept, over .5."""
    widths = Widths({"g": Width(3)}, dropout=Dropout(0.5, keys(8)))
    x = FeatureMap(jnp.broadcast_to(jnp.array([1.0, 2.0, 4.0]), (8, 2, 2, 3)), Group("g", 3), widths)
    variables = {"params": {"classifier": {"kernel": jnp.ones((3, 1)), "bias": jnp.zeros(1)}}}
    logits = PoolingHead(1).apply(variables, x)
    kept = np.asarray(Dropout(0.5, keys(8))(jnp.ones((8, 3)))) > 0
    np.testing.assert_allclose(logits[:, 0], 2 * (kept @ [1, 2, 4]), rtol=1e-6)
    assert len(np.unique(kept, axis=0)) > 1


def losses(engine, **options):
    algorithm = bignas(engine, **options)
    _, metrics = algorithm.at(0).step(algorithm.init(0), next(batches(1)), algorithm.propose({}, 0))
    return {name: float(value) for name, value in metrics.items() if name.endswith("loss")}


def test_only_the_largest_network_drops():
    with_it, without = (losses(engine_of(), dropout=rate, student_target="labels") for rate in (0.5, 0.0))
    assert with_it.pop("max/loss") != pytest.approx(without.pop("max/loss"), rel=1e-5)
    assert with_it == without


def test_what_an_image_drops_does_not_depend_on_how_the_batch_is_shared_out():
    one, eight = losses(engine_of(), dropout=0.5), losses(engine_of(devices=8), dropout=0.5)
    assert_trees_close(one, eight)
    assert one["max/loss"] != pytest.approx(losses(engine_of(), dropout=0.0)["max/loss"], rel=1e-5)


def test_weight_decay_acts_once_however_many_subnets_there_are():
    """Regularising the largest only: w shrinks by rate * decay = .05 of itself where no gradient flows."""
    engine = engine_of(lr=0.1, decay=0.5, momentum=0.0)
    images = {"image": np.zeros((16, 8, 8, 3), np.uint8), "label": np.zeros(16, np.int32)}
    for count in (2, 5):
        algorithm = bignas(engine, num_subnets=count)
        state = algorithm.init(0)
        before = np.asarray(state.params["stem"]["kernel"])
        state, _ = algorithm.at(0).step(state, images, algorithm.propose({}, 0))
        np.testing.assert_allclose(state.params["stem"]["kernel"], 0.95 * before, rtol=1e-5)
