"""Joslim: who proposes, when the history is scored, and that a resumed run goes on as if nothing had happened."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from helpers.engines import batches, engine_of, trained
from helpers.runs import QUICK, small, stop_after
from helpers.trees import assert_trees_close
from slimjax.algorithms import joslim, usnet
from slimjax.errors import UserError
from slimjax.experiment import recipes
from slimjax.experiment.loop import train
from slimjax.models.tfnas import TFNASNet
from slimjax.nn.widths import Rounding
from slimjax.supernet import Supernet, named
from slimjax.vectors import WidthVectors


def make(**options):
    return joslim(engine_of(min_width=0.42), **{"steps_per_round": 4, "search": QUICK, **options})


def by_size(subnets):
    """A loss that falls with the channels, with a preference for the last groups."""
    return 3 - np.asarray(subnets, float) @ np.linspace(0.01, 0.03, subnets.shape[1])


def follow(algorithm, steps, score=by_size, arrays=None, first=0):
    """(the arrays after each step, the proposals of each)."""
    state = algorithm.init(0)
    state = state if arrays is None else state.replace(algorithm=arrays)
    states, proposals = [], []
    for step in range(first, steps):
        state = algorithm.revise(state, step, score)
        states.append(state.algorithm)
        proposals.append(algorithm.propose(state.algorithm, step))
    return states, proposals


def trials(algorithm, arrays):
    return algorithm.trials(arrays, 0)


def test_proposals_stay_for_a_round_and_then_change():
    _, proposals = follow(make(), 12)
    for start in (0, 4, 8):
        for later in proposals[start : start + 4]:
            np.testing.assert_array_equal(later, proposals[start])
    assert not np.array_equal(proposals[0], proposals[4])
    assert not np.array_equal(proposals[4], proposals[8])


def test_first_twenty_have_one_width_and_the_next_is_full():
    algorithm = make(steps_per_round=1)
    states, _ = follow(algorithm, 12)
    found = trials(algorithm, states[-1])
    space = engine_of(min_width=0.42).net.space
    uniform = {tuple(space.uniform(w)) for w in np.linspace(0.42, 0.9999, 2000)}
    assert [tuple(trial.channels.values()) in uniform for trial in found[:20]] == [True] * 20
    assert list(found[20].channels.values()) == space.largest.tolist()
    assert {trial.how for trial in found[:21]} == {"prior"}
    assert {trial.how for trial in found[21:]} <= {"searched", "segment"}
    assert [trial.target is None for trial in found] == [True] * 21 + [False] * 3


def test_the_whole_history_is_scored_before_each_round():
    asked = []

    def score(subnets):
        asked.append(len(subnets))
        return by_size(subnets)

    algorithm = make()
    states, _ = follow(algorithm, 13, score)
    assert asked == [2, 4, 6]
    known = trials(algorithm, states[-1])
    assert [trial.state for trial in known] == ["scored"] * 6 + ["proposed"] * 2


def test_scores_are_those_of_the_newest_round_unless_kept():
    for rescore, round_of_first in ((True, 3), (False, 1)):
        rounds = iter(range(1, 10))
        score = lambda subnets: np.full(len(subnets), next(rounds))  # noqa: B023, E731
        algorithm = make(rescore=rescore)
        states, _ = follow(algorithm, 13, score)
        assert trials(algorithm, states[-1])[0].score == round_of_first


def test_a_resumed_run_proposes_the_same():
    """From the arrays of any step, with nothing else remembered, and whether a thread was ahead or not."""
    options = {"steps_per_round": 3, "ahead_steps": 1, "num_sampled": 8}
    states, proposals = follow(make(**options), 16)
    for stop in (4, 11, 12, 14):  # 12: just scored, the next round being sought
        _, resumed = follow(make(**options), 16, arrays=states[stop - 1], first=stop)
        np.testing.assert_array_equal(np.concatenate(resumed), np.concatenate(proposals[stop:]))


def test_scoring_ahead_uses_the_weights_of_then():
    when = []

    def score_at(step):
        return lambda subnets: when.append(step) or by_size(subnets)

    algorithm = make(ahead_steps=1)
    state = algorithm.init(0)
    for step in range(9):
        state = algorithm.revise(state, step, score_at(step))
    assert when == [3, 7]


def test_a_failed_trial_is_said_so_and_not_learnt_from():
    algorithm = make(steps_per_round=1, num_sampled=8)

    def score(subnets):
        return np.where(np.arange(len(subnets)) % 3 == 0, np.nan, by_size(subnets))

    states, _ = follow(algorithm, 5, score)
    found = trials(algorithm, states[-1])
    assert [trial.state for trial in found[:6]] == ["failed", "scored", "scored"] * 2
    assert "nan" in found[0].reason
    state = algorithm.init(0).replace(algorithm=states[-1])
    assert "trial0" not in algorithm.choose(state, None)


def test_a_full_history_forgets_the_oldest():
    algorithm = make(steps_per_round=1, history=22)
    states, proposals = follow(algorithm, 14)
    found = trials(algorithm, states[-1])
    assert [trial.trial for trial in found] == list(range(6, 28))
    newest = [list(trial.channels.values()) for trial in found[-2:]]
    np.testing.assert_array_equal(newest, proposals[-1])


def test_choose_names_peeled_fronts_and_both_ends():
    algorithm = make(steps_per_round=1)
    states, _ = follow(algorithm, 14)
    chosen = algorithm.choose(algorithm.init(0).replace(algorithm=states[-1]), None)
    space = engine_of(min_width=0.42).net.space
    np.testing.assert_array_equal(chosen["min"].subnet, space.smallest)
    np.testing.assert_array_equal(chosen["max"].subnet, space.largest)
    subnets = {tuple(choice.subnet) for choice in chosen.values()}
    assert len(subnets) == len(chosen) > 4


def test_residual_streams_never_narrow():
    net = engine_of(min_width=0.42).net
    rows = np.random.default_rng(0).uniform(0.42, 1, (200, 6))
    streams = [net.space.index[name] for name in ("stage1", "stage2", "stage3")]
    raised, plain = (WidthVectors(net, nondecreasing=n).subnets(rows)[:, streams] for n in (True, False))
    assert (np.diff(raised) >= 0).all()
    assert not (np.diff(plain) >= 0).all()
    assert (raised >= plain).all()


RISING = {
    "us_mobilenet_v2": {
        "stage1": 16, "stage2": 10, "stage3": 32, "stage4": 32, "stage5": 40, "stage6": 160, "stage7": 160,
    },
    "mobilenet_v3_large": {
        "stage1": 16, "stage2": 10, "stage3": 40, "stage4": 40, "stage5": 47, "stage6": 160,
    },
    "resnet20": {"stage1": 16, "stage2": 16, "stage3": 64},
}  # fmt: skip
"""Channels where the fraction is 1 in stages 1, 3 and 6, and .42 elsewhere: int(.42 c), but raised in V2's stages 4
(26) and 7 (134), V3's stage 4 (33) and ResNet's stage 2 (13)."""


@pytest.mark.parametrize("name", RISING)
def test_streams_rise_as_the_authors_do(name):
    """A MobileNet's first stage does not raise its second; MobileNet V2's last stage is raised."""
    net = named(name, rounding="truncate", min_width=0.42)
    index, want = net.space.index, RISING[name]
    fractions = np.full(len(index), 0.42)
    fractions[[index[stage] for stage in ("stage1", "stage3", "stage6") if stage in want]] = 1
    subnet = WidthVectors(net).subnets(fractions)
    assert {stage: subnet[index[stage]] for stage in want} == want


def test_stem_and_first_stage_may_share_a_fraction():
    """The authors' MobileNetV2 reads 23 of its 24 entries: the stem's serves the first stage too."""
    net = named("us_mobilenet_v2", rounding="truncate", min_width=0.42)
    fractions = np.where(np.arange(24) == net.space.index["stage1"], 0.9, 0.5)
    shared, own = (WidthVectors(net, share_fractions=share).subnets(fractions) for share in (True, False))
    assert net.space.to_channels(shared)["stage1"] == 8  # int(.5 * 16), not int(.9 * 16)
    assert net.space.to_channels(own)["stage1"] == 14
    assert len(named("mobilenet_v3_large").space) == 20  # where the first block's shortcut ties both


def with_choices():
    """Two stages whose blocks have an operator each; the second block is there if the depth says so."""
    model = TFNASNet(
        num_classes=5,
        stages=((2, 8, 2, "relu"), (1, 8, 1, "relu")),
        operators=("k3e3", "k5e6", "k3e3se"),
        stem=8,
        first=8,
        tail=8,
    )
    net = Supernet(model, (8, 8, 3), Rounding("multiple", 4), min_width=0.5)
    return dataclasses.replace(engine_of(), net=net)


def test_proposals_of_a_space_with_choices_are_legal_canonical_and_of_all_options():
    """The search knows the choices: what it proposes has them in the middle of an option's share."""
    engine = with_choices()
    space = engine.net.space
    algorithm = joslim(engine, steps_per_round=1, num_sampled=8, search=QUICK)
    states, proposals = follow(algorithm, 5, lambda rows: -np.sum(rows * space.exists(rows), -1) / 100.0)
    rows = np.concatenate(proposals)
    assert all(space.check(row) is not None for row in rows)
    np.testing.assert_array_equal(space.canonical(rows), rows)
    operator = space.index["stage1/block1/operator"]
    assert set(rows[:20, operator]) == {0, 1, 2}
    found = trials(algorithm, states[-1])
    assert {trial.how for trial in found[21:]} <= {"searched", "segment"}
    encoding = WidthVectors(engine.net).encoding
    known = states[-1]["widths"][[i for i, trial in enumerate(found) if trial.how == "searched"]]
    assert len(known) > 5
    np.testing.assert_allclose(encoding.snapped(known), known, atol=1e-6)


def test_joslim_trains_a_space_with_choices():
    algorithm = joslim(with_choices(), num_sampled=1, search=QUICK)
    state = trained(algorithm, steps=1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.trainable))


def test_joslim_with_proposals_of_one_width_is_usnet():
    """Its first round against US-Net's step on the same widths."""
    engine = engine_of(min_width=0.42)
    ours = make(steps_per_round=100)
    rows = ours.propose(ours.init(0).algorithm, 0)
    theirs = usnet(engine)
    state = theirs.init(0)
    for batch in batches(3):
        state, _ = theirs.at(0).step(state, batch, rows)
    assert_trees_close(trained(ours, steps=3).trainable, state.trainable)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sampled": 0}, "num_sampled: expected a whole number of at least 1, got 0"),
        ({"ahead_steps": 4}, "ahead_steps: expected a whole number from 0 to 3, got 4"),
        ({"history": 10}, "history: expected a whole number of at least 22, got 10"),
        ({"resource": "flops"}, "resource: expected one of macs, tile_macs, params"),
        ({"resource": "latency_ms"}, "latency_ms needs a table"),
        ({"search": {"beta": -1}}, r"^search\.beta: expected a number of at least 0, got -1\."),
        ({"search": {"betta": 1}}, "search: no betta. It has: beta"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def config() -> ConfigDict:
    changed = small(steps=30, checkpoint_every=6)
    changed.algorithm = recipes.algorithm("joslim", steps_per_round=2)
    changed.algorithm.search = ConfigDict(QUICK)
    changed.data.holdout = 200
    changed.scoring.images = 64
    changed.evaluation.widths = ()
    return changed


def test_a_stopped_run_goes_on_to_the_same_trials_and_front(tmp_path):
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    rows = train(config(), str(unbroken))
    stop_after(config(), stopped, 12)
    assert train(config(), str(stopped)) == rows
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "time"} for line in path.read_text().splitlines()]
        for path in (unbroken / "trials.jsonl", stopped / "trials.jsonl")
    ]
    assert logs[0] == logs[1]
    assert {line["how"] for line in logs[0]} > {"prior"}
    metrics = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert all("time/search_seconds" in line for line in metrics)


def test_held_out_images_are_asked_for_before_training(tmp_path):
    short = config()
    short.data.holdout = 32
    with pytest.raises(UserError, match=r"scoring\.images: expected at most 32 .in the split holdout"):
        train(short, str(tmp_path))
