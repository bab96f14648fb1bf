"""TF-NAS: turns, epochs, rates and temperatures, elasticity-scaling, and what comes out."""

import dataclasses
import functools
import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.engines import batches, engine_of, in_run
from helpers.paths import CONFIGS
from helpers.runs import final_state, lines, unbroken_and_killed
from helpers.tfnas import OVERRIDES, searching, tiny_net
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.algorithms import jst, tfnas, wpc
from slimjax.errors import BadValue
from slimjax.experiment import config_file
from slimjax.experiment.build import build
from slimjax.experiment.loop import train
from slimjax.nn import filters
from slimjax.search.elastic import elastic
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir

WARM_UP, SEARCH, STEPS = 2, 4, 32
FIRSTS = [0, 4, 8, 14, 20, 26]
"""First updates of the epochs: two of four updates, and four of six, of which two are of the architecture."""

COSINE = functools.partial(optax.cosine_decay_schedule, 0.1)


def small_tfnas(steps=STEPS, net=None, momentum=0.9, weight_decay=1e-5, **options):
    engine = searching(steps, schedule=COSINE, net=net, momentum=momentum, weight_decay=weight_decay)
    return tfnas(engine, **{"warmup": WARM_UP, "search": SEARCH, "budget": "macs<=0.6"} | options)


def sure(state):
    """Two blocks in the first stage, operators of different sizes: nothing that is learnt in a few steps changes it."""
    shares = {
        "stage1/block1/operator": [0.2, 0.7, 0.1],
        "stage1/block2/operator": [0.1, 0.3, 0.6],
        "stage2/block1/operator": [0.6, 0.3, 0.1],
        "stage1/depth": [0.2, 0.8],
    }
    rows = {name: jnp.log(jnp.array(row)) for name, row in shares.items()}
    assert set(rows) == set(state.structure["choices"])
    return dataclasses.replace(state, structure={"choices": rows})


@pytest.fixture(scope="module")
def followed():
    """The algorithm; the state that each step begins with, revised and before that; metrics."""
    algorithm = small_tfnas()
    state, found = sure(algorithm.init(0)), SimpleNamespace(before=[], revised=[], metrics=[])
    host = functools.partial(jax.tree.map, np.asarray)
    for step, batch in enumerate(batches(STEPS, 8)):
        found.before.append(host(state))
        state = algorithm.revise(state, step, None)
        found.revised.append(host(state))
        state, metrics = algorithm.turn(step).step(state, batch, algorithm.propose(state.algorithm, step))
        found.metrics.append(host(metrics))
    found.before.append(host(state))
    return SimpleNamespace(algorithm=algorithm, **vars(found))


def test_two_updates_of_weights_take_turns_with_one_of_the_architecture_on_held_out_images(followed):
    algorithm = followed.algorithm
    assert [(phase.name, phase.first) for phase in algorithm.phases] == [
        (name, first) for name, first in zip(["warm-up"] * 2 + ["search"] * 4, FIRSTS, strict=True)
    ]
    turns = [algorithm.turn(step) for step in range(STEPS)]
    slots = {step: [slot.name for slot in turn.step.slots] for step, turn in enumerate(turns)}
    assert all(slots[step] == ["path"] for step in range(8))
    for step in range(8, STEPS):
        learns = (step - 8) % 3 == 2
        assert slots[step] == (["mixture"] if learns else ["path", "second"])
        assert ("structure_grad_norm" in followed.metrics[step], "grad_norm" in followed.metrics[step]) == (
            learns,
            not learns,
        )
        assert turns[step].split == ("holdout" if learns else "train")


def test_an_architecture_that_is_learnt_more_rarely_takes_its_turn_later():
    algorithm = small_tfnas(arch_every=4)
    first = algorithm.phases[-1].first
    splits = [algorithm.turn(first + place).split for place in range(6)]
    assert splits == ["train"] * 4 + ["holdout", "train"]


def test_rates_are_constant_in_an_epoch_and_cosine_by_updates_of_the_weights(followed):
    """Updates of the architecture do not count."""
    done = [0, 4, 8, 12, 16, 20]  # of the weights, as each epoch begins: 24 in all
    want = [float(COSINE(24)(count)) for count in done]
    ends = [*FIRSTS[1:], STEPS]
    rates = [float(followed.algorithm.schedule(step)) for step in range(STEPS)]
    by_epoch = [rates[first:end] for first, end in zip(FIRSTS, ends, strict=True)]
    assert by_epoch == [
        [pytest.approx(rate)] * (end - first) for rate, first, end in zip(want, FIRSTS, ends, strict=True)
    ]


def test_weights_move_at_the_rate_of_their_own_updates(followed):
    """By the count that their optimiser keeps through all epochs."""
    optimizer = followed.algorithm.phases[-1].step.engine.optimizer
    ones = {"params": {"kernel": np.ones(1, np.float32)}, "affine": {}}
    for step in range(8, STEPS):
        state = followed.revised[step].opt_state
        if followed.algorithm.turn(step).split == "train":
            (count,) = (part.count for part in state if isinstance(part, optax.ScaleByScheduleState))
            assert count == 8 + (step - 8) - (step - 8) // 3
            fresh = jax.tree.map(
                lambda leaf, count=count: leaf if leaf.ndim else jnp.asarray(count), optimizer.init(ones)
            )
            moved, _ = optimizer.update(ones, fresh, jax.tree.map(np.zeros_like, ones))
            rate = float(followed.algorithm.schedule(step))
            assert float(moved["params"]["kernel"][0]) == pytest.approx(-rate, rel=1e-5)


def test_temperature_falls_after_each_epoch_of_the_search(followed):
    temperatures = [float(state.algorithm["temperature"]) for state in followed.revised]
    want = [5.0] * FIRSTS[3] + [5.0 * 0.96] * 6 + [5.0 * 0.96**2] * 6 + [5.0 * 0.96**3] * 6
    np.testing.assert_allclose(temperatures, want, rtol=1e-6)
    for state in followed.revised:
        assert state.algorithm["penalty"]["temperature"] == state.algorithm["temperature"]
        np.testing.assert_array_equal(state.algorithm["penalty"]["subnet"], state.algorithm["subnet"])


def placed(state):
    """A state that was taken to the host, as an algorithm sees it."""
    return dataclasses.replace(state, structure=jax.tree.map(jnp.asarray, state.structure))


def moments(state):
    return [leaf for leaf in jax.tree.leaves((state.opt_state, state.structure_opt)) if leaf.ndim]


def test_optimisers_begin_anew_in_each_epoch(followed):
    """Momentum, and Adam's moments with its count; what else was learnt stays."""
    for first in FIRSTS[1:]:
        before, after = followed.before[first], followed.revised[first]
        assert any(leaf.any() for leaf in moments(before))
        assert not any(leaf.any() for leaf in moments(after))
        adam = lambda state: next(s for s in state.structure_opt if hasattr(s, "mu"))  # noqa: E731
        assert (int(adam(before).count), int(adam(after).count)) == (2 if first > 8 else 0, 0)
        assert_trees_equal(after.structure, before.structure)


def test_structure_parameters_stay_logarithms_of_probabilities(followed):
    changed = [
        np.concatenate(list(followed.before[step].structure["choices"].values()))
        for step in (8, 10, 11, STEPS)
    ]
    np.testing.assert_array_equal(changed[0], changed[1])
    assert (changed[2] != changed[1]).any()
    assert (changed[3] != changed[2]).any()
    for state in followed.before:
        for row in state.structure["choices"].values():
            assert np.exp(row).sum() == pytest.approx(1, abs=1e-5)


def likeliest(state):
    """By hand: the options of the largest parameters, with the state's widths."""
    space = tiny_net().space
    options = [np.argmax(state.structure["choices"][choice.name]) for choice in space.choices]
    return space.canonical(np.array([*state.algorithm["subnet"][: len(space.groups)], *options], np.int32))


def limit():
    net = tiny_net()
    return 0.6 * net.macs(net.space.largest)


def test_widths_are_scaled_after_each_epoch_of_the_search_within_the_budget(followed):
    """And those of operators that are not the likeliest stay."""
    net, groups = tiny_net(), len(tiny_net().space.groups)
    for first in FIRSTS[1:3]:
        np.testing.assert_array_equal(
            followed.revised[first].algorithm["subnet"], followed.before[0].algorithm["subnet"]
        )
    for first in FIRSTS[3:]:
        before, after = followed.before[first], followed.revised[first]
        own = net.space.exists(likeliest(before))[:groups]
        widths = [state.algorithm["subnet"][:groups] for state in (before, after)]
        np.testing.assert_array_equal(widths[0][~own], widths[1][~own])
        assert net.macs(likeliest(after)) <= limit()
        want = elastic(net.space, net.macs, likeliest(before), limit(), net.space.stages)[:groups]
        np.testing.assert_array_equal(widths[1][own], want[own])
    assert net.macs(likeliest(followed.before[14])) > 1.05 * limit()
    assert 0.9 * limit() < net.macs(likeliest(followed.revised[14]))


def test_channels_of_the_likeliest_operators_are_sorted_by_their_depthwise_kernels(followed):
    """By their L1 norms, in all channels; those of other operators stay where they are."""
    net, unsorted = tiny_net(), 0
    for first in FIRSTS[3:]:
        before, after = followed.before[first], followed.revised[first]
        there = net.space.to_channels(likeliest(before))
        old, new = (filters.depthwise_norms(net.records, state.params) for state in (before, after))
        for name in (group.name for group in net.space.groups):
            if name in there:
                np.testing.assert_allclose(new[name], np.sort(old[name])[::-1], rtol=1e-6)
                unsorted += (np.diff(old[name]) > 0).any()
            else:
                np.testing.assert_array_equal(new[name], old[name])
    assert unsorted, "all had been in order"


@functools.cache
def _logits():
    net = tiny_net()
    return jax.jit(
        lambda variables, images, subnet: net.apply(variables, images, net.space.masked(subnet), train=True)
    )


def test_sorting_changes_no_function(followed):
    """Of any path at all channels."""
    space, images = tiny_net().space, np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    subnet = np.where(
        np.arange(len(space)) < len(space.groups), space.largest, likeliest(followed.before[14])
    )
    logits = [
        _logits()({"params": state.params, "affine": state.affine["shared"]}, images, subnet)
        for state in (followed.before[14], followed.revised[14], followed.before[15])
    ]
    assert_trees_close(logits[1], logits[0])
    assert any(
        (a != b).any()
        for a, b in zip(
            *(jax.tree.leaves(s[14].params) for s in (followed.before, followed.revised)), strict=True
        )
    )
    with pytest.raises(AssertionError):
        assert_trees_close(logits[2], logits[0])


def test_without_elasticity_widths_and_channels_stay():
    algorithm = small_tfnas(elasticity=False)
    state = sure(algorithm.init(0))
    before = jax.tree.map(np.asarray, state.params)
    start = state.algorithm["subnet"]
    state = algorithm.revise(state, STEPS - 1, None)
    np.testing.assert_array_equal(state.algorithm["subnet"], start)
    assert_trees_equal(state.params, before)
    assert float(state.algorithm["temperature"]) == pytest.approx(5.0 * 0.96**3)
    chosen = algorithm.choose(state, None)["found"]
    np.testing.assert_array_equal(chosen.subnet, likeliest(state))
    assert chosen.costs["macs"] > limit()


def test_the_likeliest_network_on_target_is_chosen(followed):
    """What is asked for instead runs as it is."""
    algorithm, state, net = followed.algorithm, placed(followed.before[-1]), tiny_net()
    chosen = algorithm.choose(state, None)
    assert list(chosen) == ["found"]
    found, groups = chosen["found"], len(net.space.groups)
    np.testing.assert_array_equal(found.subnet[groups:], likeliest(state)[groups:])
    assert found.found
    assert found.costs == {"macs": net.macs(found.subnet)}
    assert 0.9 * limit() < found.costs["macs"] <= limit()
    given = algorithm.choose(state, {"mine": net.space.largest})
    assert list(given) == ["mine"]
    np.testing.assert_array_equal(given["mine"].subnet, net.space.largest)


@pytest.mark.parametrize(("budget", "end"), [("macs<=1.0", "largest"), ("macs<={low}", "lowest")])
def test_a_budget_outside_of_a_networks_range_leaves_it_at_its_end(budget, end):
    """At its widest where it costs less; at its narrowest where another depth could cost less."""
    net = tiny_net()
    algorithm = small_tfnas(budget=budget.format(low=int(net.macs(net.space.lowest))))
    state = algorithm.init(0)
    deep = {**state.structure["choices"], "stage1/depth": jnp.log(jnp.array([0.1, 0.9]))}
    state = dataclasses.replace(state, structure={"choices": deep})
    found = algorithm.choose(state, None)["found"].subnet
    own = net.space.exists(found)[: len(net.space.groups)]
    assert own.sum() == 3
    np.testing.assert_array_equal(found[: len(own)][own], getattr(net.space, end)[: len(own)][own])


def test_one_path_a_step_where_there_is_no_second():
    algorithm = small_tfnas(second_path="none")
    assert [len(turn.step.slots) for turn in algorithm.phases[-1].turns] == [1, 1, 1]
    assert algorithm.phases[-1].step is algorithm.phases[0].step
    assert len(algorithm.steps()) == 2
    assert len(algorithm.propose(algorithm.init(0).algorithm, STEPS - 2)) == 1


def test_metrics_say_how_sure_the_choices_are(followed):
    state = placed(followed.before[-1])
    measured = followed.algorithm.measure(state, STEPS)
    shares = [np.exp(row) for row in state.structure["choices"].values()]
    assert measured == {
        "search/entropy": pytest.approx(np.mean([-(p * np.log(p)).sum() for p in shares]), rel=1e-5),
        "search/largest_share": pytest.approx(np.mean([p.max() for p in shares]), rel=1e-5),
        "search/cost_over_limit": pytest.approx(tiny_net().macs(likeliest(state)) / limit()),
        "search/temperature": pytest.approx(5.0 * 0.96**3),
    }


def test_news_are_of_epochs_that_begin_with_other_widths(followed):
    told = [
        (
            step,
            followed.algorithm.news(followed.before[step].algorithm, followed.revised[step].algorithm, step),
        )
        for step in range(STEPS)
    ]
    spoken = {step: lines for step, lines in told if lines}
    assert spoken[14] == [f"step 14: {changed(followed, 14)} widths scaled, temperature 4.8"]
    assert set(spoken) <= set(FIRSTS[3:])


def changed(followed, step):
    return int(
        (followed.before[step].algorithm["subnet"] != followed.revised[step].algorithm["subnet"]).sum()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "macs<=0.01"}, "budget: expected a cost of at least"),
        ({"budget": "peak_bytes<=0.5"}, "a sum over layers, not peak_bytes"),
        ({"cost_weight": -0.1}, "cost_weight"),
        ({"cost_loss": "square"}, "cost_loss"),
        ({"second_path": "best"}, "second_path.*random.*none"),
        ({"temperature": 0.0}, "temperature"),
        ({"cooling": 0.0}, "cooling"),
        ({"arch_rate": 0.0}, "arch_rate"),
        ({"arch_every": 0}, "arch_every"),
        ({"warmup": -1}, "warmup"),
        ({"search": 0}, "search"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(BadValue, match=message):
        small_tfnas(**options)


def test_networks_without_choices_are_refused():
    with pytest.raises(BadValue, match="expected a network with choices"):
        tfnas(in_run(engine_of(), 30), warmup=1, search=2)


@pytest.mark.parametrize("system", [wpc, jst])
def test_systems_that_prune_refuse_choices(system):
    with pytest.raises(BadValue, match=r"this one has choices \(stage1/block1/operator"):
        system(searching())


def run_config():
    """Ten updates: two epochs of warm-up of two each, two of search of three each."""
    given = [
        f"--config.{field}"
        for field in ("train.steps=10", "algorithm.warmup=2", "algorithm.search=2", *FIELDS)
    ]
    return config_file.load(str(CONFIGS / "digits_tfnas.py"), [*OVERRIDES, *given])


FIELDS = (
    "algorithm.budget=macs<=0.6", "train.batch_size=16", "train.log_every=1", "train.checkpoint_every=10",
    "calibration.images=64", "calibration.batch_size=32", "evaluation.batch_size=256", "devices=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run: its directory, rows and what it printed."""
    directory, said = tmp_path_factory.mktemp("tfnas"), []
    with pytest.MonkeyPatch.context() as patch:
        quiet = SimpleNamespace(write=said.append, flush=lambda: None, isatty=lambda: False)
        patch.setattr("sys.stderr", quiet)
        rows = train(run_config(), str(directory))
    return SimpleNamespace(directory=directory, rows=rows, said="".join(said))


def test_plan_shows_epochs_and_turns(run):
    assert "tfnas: 9 groups and 4 choices" in run.said
    assert "warm-up  2 times 2 steps: path in 2 exact sizes; " in run.said
    assert "search  2 times 3 steps: path, second in 2 exact sizes; " in run.said
    assert ", and in turns with them steps on the holdout images: mixture in 2 exact sizes; " in run.said
    assert re.search(r"compile +4/4 +100%", run.said)


def test_metrics_of_a_run_follow_its_turns(run):
    found = lines(run.directory)
    learnt = ["mixture/loss" in line for line in found]
    assert learnt == [False] * 4 + [False, False, True] * 2
    assert all(
        ("second/loss" in line) == (number >= 4 and not learnt[number]) for number, line in enumerate(found)
    )
    assert all(line["search/entropy"] > 0 for line in found)
    rates = [line["learning_rate"] for line in found]
    assert [rates.index(rate) for rate in sorted(set(rates), reverse=True)] == [0, 2, 4, 7]


def test_what_a_run_has_found_is_an_architecture_that_is_trained_from_scratch(run):
    """With gammas and betas, whatever the supernet had."""
    (row,), folder = run.rows, run.directory / "search-tfnas"
    state = final_state(run_config(), run.directory)
    assert not jax.tree.leaves(state.affine), "norms of the search have gammas"
    assert 0 < row["top1"] < 1
    found = architecture.load(folder / "found.json")
    net = build(run_config()).net
    assert (found.channels, found.costs["macs"]) == (row["channels"], row["macs"])
    assert row["macs"] == net.macs(found.subnet(net.space)) <= 0.6 * net.macs(net.space.largest)
    assert found.how == {"method": "tfnas", "subnet": "found"}
    experiment = build(config_file.load(f"{folder}/retrain.py", ["--config.train.steps=1"]))
    assert (experiment.config.algorithm.name, experiment.config.optimizer.decay_all) == ("snet", True)
    algorithm, batch = experiment.algorithm, next(experiment.train_batches())
    (slot,) = algorithm.at(0).step.slots
    np.testing.assert_array_equal(slot.subnet, found.subnet(net.space))
    state = algorithm.init(0)
    before = jax.tree.map(np.asarray, state.affine)
    state, metrics = algorithm.at(0).step(state, batch, algorithm.propose({}, 0))
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, state.affine)
    assert sum(jax.tree.leaves(moved)) > 10
    assert np.isfinite(metrics["found/loss"])


def test_images_of_the_architecture_are_those_held_out(run):
    """The stream of each turn goes on where it was."""
    experiment, turns = build(run_config()), [False] * 4 + [False, False, True] * 2
    held = {np.asarray(image["image"]).tobytes() for image in experiment.dataset.split("holdout")}
    stream, streams = (
        experiment.train_batches(),
        {name: experiment._stream(16, 1995, split=name) for name in ("train", "holdout")},
    )
    for learns, batch in zip(turns, stream, strict=False):
        assert all((image.tobytes() in held) == learns for image in batch["image"])
        assert_trees_equal(batch, next(streams["holdout" if learns else "train"]))
    for opened in (stream, *streams.values()):
        opened.close()


KILLS = (
    *OVERRIDES,
    *(
        f"--config.{field}"
        for field in ("algorithm.warmup=1", "algorithm.search=2", "train.steps=8", *FIELDS[:2], *FIELDS[4:7])
    ),
)
"""Two updates of warm-up; twice two of weights and one of the architecture."""


@pytest.mark.slow
def test_killed_in_either_phase_it_ends_bit_identical(tmp_path):
    """In the warm-up, after an update of the architecture, and at the boundary where channels are sorted."""
    runs = unbroken_and_killed("configs/digits_tfnas.py", KILLS, tmp_path, steps=8, kills=(1, 5, 6))
    config = RunDir(runs[0]).read_config()
    assert [phase.first for phase in build(config).algorithm.phases] == [0, 2, 5]
    assert_trees_equal(*(final_state(config, run) for run in runs))
    rows = [json.loads((run / "front.json").read_text()) for run in runs]
    assert rows[0] == rows[1]
