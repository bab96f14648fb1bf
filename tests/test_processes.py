"""Several processes of one launch train, propose and search as one process does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import chex
import numpy as np
import pytest

from helpers.flags import QUICK
from helpers.paths import REPOSITORY
from helpers.runs import environment, final_state, lines, losses
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.experiment import config_file
from slimjax.experiment.loop import train
from slimjax.search import trials
from slimjax.verbs import search
from slimjax.workdir.rundir import RunDir

CONFIG = "configs/digits_joslim.py"
OVERRIDES = tuple(
    f"--config.{override}"
    for override in (
        # Rounds of two steps on four proposals: the last of the six rounds has the first that are searched for.
        "algorithm.num_sampled=4", "algorithm.steps_per_round=2", "train.steps=12",
        # The search has its usual starts: with few of them, rounding sends descents elsewhere.
        "scoring.images=64",
        "engine.policy=bucketed", "engine.max_programs=3",
        "model.options.channels=(4,4,8)", "train.log_every=1", "evaluation.widths=(1.0,)",
    )
)  # fmt: skip
SEARCH = {"budgets": ("macs<=0.8",), "method": "greedy"}
PHASED = {
    # Two steps of dense training, three rounds of two, two of all subnets.
    "configs/digits_wpc.py": ("train.steps=10", "algorithm.dense=1", "algorithm.lasso=1", "algorithm.fused=1"),
    # Two coarse steps, weights and alphas of three subnets, two steps of the best.
    "configs/digits_jst.py": (
        "train.steps=16", "algorithm.num_subnets=3", "algorithm.coarse=1", "algorithm.weights=1",
        "algorithm.alphas=1", "algorithm.fine_tuning=1",
    ),
}  # fmt: skip
"""Systems that train in phases, and change the whole state between them."""


def overrides(config: str) -> list[str]:
    fields = (*PHASED[config], "model.options.channels=(4,4,8)", "train.log_every=1")
    return [f"--config.{field}" for field in fields]


JOB = f"""
import sys
from slimjax.experiment import config_file, loop
from slimjax.verbs import cli, search
assert cli.main(["train", "--config", {CONFIG!r}, "--workdir", sys.argv[1], *{OVERRIDES!r}]) == 0
search.search(search.Search(sys.argv[1], **{SEARCH!r}))
for config, overrides in {[(config, overrides(config)) for config in PHASED]!r}:
    loop.train(config_file.load(config, overrides), sys.argv[1] + "/" + config)
"""


def launch(processes: int, *command: str) -> subprocess.CompletedProcess:
    """Python processes of one launch; their programs are compiled as the tests' are (conftest)."""
    return subprocess.run(
        ["launch/local.sh", str(processes), "--", sys.executable, *command],
        cwd=REPOSITORY,
        env=environment(SLIMJAX_TIMEOUT="60", XLA_FLAGS=QUICK),
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Joslim trained and the result searched, and the `PHASED`: the directories of one process and of two."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    launch(2, "-c", JOB, str(two))
    config = config_file.load(str(REPOSITORY / CONFIG), list(OVERRIDES))
    config.devices = 1
    train(config, str(one))
    search.search(search.Search(str(one), **SEARCH))
    for name in PHASED:
        config = config_file.load(str(REPOSITORY / name), overrides(name))
        config.devices = 1
        train(config, str(one / name))
    return one, two


def visited(path: Path) -> tuple[list[dict], np.ndarray]:
    """The lines of a log of trials, without scores and times; and the scores."""
    lines = [vars(trial) for trial in trials.read(path)]
    scores = np.array([line["score"] for line in lines], np.float64)
    return [{k: v for k, v in line.items() if k not in ("score", "time")} for line in lines], scores


@pytest.mark.slow
def test_two_processes_train_as_one(runs):
    one, two = runs
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-4)
    fronts = [json.loads((d / "front.json").read_text())[0] for d in (one, two)]
    assert fronts[0]["loss"] == pytest.approx(fronts[1]["loss"], abs=1e-4)
    config = RunDir(one).read_config()
    assert_trees_close(final_state(config, two).params, final_state(config, one).params)


def test_two_processes_propose_as_one(runs):
    (one, scores), (two, others) = (visited(directory / "trials.jsonl") for directory in runs)
    assert one == two
    assert {line["how"] for line in one} > {"prior"}
    np.testing.assert_allclose(others, scores, atol=1e-4)


@pytest.mark.parametrize("name", PHASED)
def test_two_processes_go_through_phases_as_one(runs, name):
    """What is decided between phases, in every loss and in every channel's place, is one process's."""
    one, two = (directory / name for directory in runs)
    for mine, others in zip(lines(one), lines(two), strict=True):
        values = {key: value for key, value in mine.items() if not key.startswith(("time", "programs"))}
        assert {key: others[key] for key in values} == pytest.approx(values, abs=1e-4)
    config = RunDir(one).read_config()
    own, other = (final_state(config, directory) for directory in (one, two))
    assert_trees_equal(other.algorithm["subnets"], own.algorithm["subnets"])
    chex.assert_trees_all_close(other.algorithm, own.algorithm, atol=1e-4)
    assert_trees_close(other.params, own.params)


def test_two_processes_search_as_one(runs):
    """Greedy slimming compares numbers of errors, which rounding hardly touches."""
    fronts = [json.loads((d / "search-greedy/front.json").read_text()) for d in runs]
    assert fronts[0][0]["channels"] == fronts[1][0]["channels"]
    logs = [next(directory.glob("search-greedy/trials-*.jsonl")) for directory in runs]
    (one, scores), (two, others) = (visited(log) for log in logs)
    assert one == two
    np.testing.assert_allclose(others, scores, atol=1e-9)


TALK = """
import sys, jax, numpy as np
from slimjax import sharding
sharding.initialize_processes()
first = jax.process_index() == 0
agreed = [sharding.agree(flag) for flag in (True, first, not first, False, True)]
mine = {"a": np.array([1 / 3, np.nan, 1e-300]), "b": np.int64(2**62), "c": np.array([[True], [False]])}
sent = sharding.from_leader(mine if first else jax.tree.map(np.zeros_like, mine))
same = [(sent[k].dtype, sent[k].shape, sent[k].tobytes()) == (v.dtype, v.shape, v.tobytes()) for k, v in mine.items()]
sys.stdout.write(f"{agreed} {same}" + chr(10))  # at once: two processes write to one pipe
"""


@pytest.fixture(scope="module")
def talk():
    """What each of two processes says."""
    return launch(2, "-c", TALK).stdout


def test_two_processes_agree_only_on_what_is_true_on_both(talk):
    """Else they would run different programs, and wait for each other for ever."""
    assert talk.count("[True, False, False, False, True]") == 2


def test_all_processes_have_what_the_first_has_to_the_bit(talk):
    assert talk.count("[True, True, True]") == 2


def test_launcher_stops_all_processes_when_one_fails():
    """Rank 1 fails at once; rank 0 would sleep for a minute."""
    script = 'if [ "$SLIMJAX_PROCESS_ID" = 1 ]; then exit 7; else sleep 60; fi'
    began = time.monotonic()
    done = subprocess.run(["launch/local.sh", "2", "--", "bash", "-c", script], cwd=REPOSITORY, check=False)
    assert done.returncode == 7
    assert time.monotonic() - began < 30


def test_pod_launcher_runs_the_command_on_every_worker(tmp_path):
    fake = tmp_path / "gcloud"
    fake.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    fake.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    arguments = ["launch/tpu_pod.sh", "pod", "zone-a", "--", "slimjax", "train", "--workdir", "gs://a b"]
    done = subprocess.run(
        arguments, cwd=REPOSITORY, env=environment(PATH=path), check=True, capture_output=True, text=True
    )
    assert "--worker=all" in done.stdout
    assert r"slimjax train --workdir gs://a\ b" in done.stdout
