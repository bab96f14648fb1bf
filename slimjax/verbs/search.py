"""`slimjax search`: the best subnets of a trained supernet under budgets, saved as architecture files."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

from slimjax import sharding
from slimjax.budgets import Budget, Resource, parse_budget
from slimjax.checks import check, if_given, integer, one_of
from slimjax.errors import BadValue, UserError
from slimjax.experiment import reload, results
from slimjax.experiment.build import Experiment, check_scoring
from slimjax.experiment.measure import Prober, evaluate
from slimjax.nn import filters
from slimjax.nn.space import Space, Subnet
from slimjax.report.table import SubnetRow
from slimjax.search.base import Cost, Searcher, check_reachable, target_name
from slimjax.search.coarse_to_fine import coarse_to_fine
from slimjax.search.elastic import elastic
from slimjax.search.evolution import evolution
from slimjax.search.greedy import greedy
from slimjax.search.mobo import mobo
from slimjax.search.run import run as run_search
from slimjax.search.trials import TrialLog
from slimjax.step.state import SHARED, TrainState
from slimjax.supernet import Supernet
from slimjax.vectors import WidthVectors
from slimjax.verbs.answers import print_rows, start_jax
from slimjax.verbs.arguments import given, refuse
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir, SearchDir

METHODS: Mapping[str, str | None] = MappingProxyType(
    {
        "evolution": "loss",
        "coarse_to_fine": "loss",
        "greedy": "error",
        "bayes": "loss",
        "history": None,
        "elastic": None,
    }
)
"""How to search, and the score that it asks for; None: nothing is scored. "history" takes what Joslim's training has
visited, "elastic" scales the channels of one architecture."""

UNUSED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "evolution": ("from",),
        "coarse_to_fine": ("from",),
        "greedy": ("from", "trials", "seed"),
        "bayes": ("from",),
        "history": ("from", "trials", "seed", "images", "split", "reorder"),
        "elastic": ("trials", "seed", "images", "split"),
    }
)
"""What is said of a search that a method does not ask for."""

BELOW = frozenset({"greedy"})
"""Methods whose subnets cost less than the budget, not just as much."""

POPULATION = 50
"""Subnets of a generation of "evolution"."""


@dataclasses.dataclass(frozen=True)
class Search:
    """What is asked for.

    Args:
      directory: of a finished or running training.
      budgets: as `budgets.parse_budget` reads them, all on one resource.
      method: of `METHODS`.
      images: held-out images that subnets are scored on; None: the config's `scoring.images`.
      trials: subnets to score, for "bayes", "coarse_to_fine" and "evolution".
      split: "holdout"; or "train", for networks that were trained on all images.
      reorder: channels are first sorted by this importance, of `filters.IMPORTANCES`; None: they stay as they are.
      start: the architecture file that "elastic" begins with; None: the largest subnet.
    """

    directory: str
    budgets: tuple[str, ...]
    method: str = "bayes"
    images: int | None = None
    trials: int = 200
    split: str = "holdout"
    seed: int = 0
    reorder: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        check("method", self.method, one_of(*METHODS))
        check("trials", self.trials, integer(1))
        check("seed", self.seed, integer(0))
        check("reorder", self.reorder, if_given(one_of(*filters.IMPORTANCES)))
        check("images", self.images, if_given(integer(2)))
        if not self.budgets:
            raise BadValue("budget", "expected one or more, such as 'macs<=0.5'.")

    @property
    def run_dir(self) -> RunDir:
        """What is searched."""
        return RunDir(self.directory)

    @property
    def folder(self) -> SearchDir:
        """Where what is found goes."""
        return self.run_dir.search(self.method)

    def parsed(self) -> list[Budget]:
        budgets = [parse_budget(text) for text in self.budgets]
        if len({budget.resource for budget in budgets}) > 1:
            raise BadValue("budget", "all budgets of one search are on one cost. Search once for each.")
        return budgets


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    wanted = asked(arguments)
    start_jax()
    print_rows(arguments, search(wanted))


def asked(arguments: argparse.Namespace) -> Search:
    """What the arguments ask for. Raises: UserError: options that the method does not use."""
    method = arguments.method or Search.method
    refuse(arguments, UNUSED[method], f"--method {method} does not use it.")
    options = given(arguments, "method", "images", "trials", "split", "seed", "reorder", "from")
    options = {"start" if name == "from" else name: value for name, value in options.items()}
    return Search(arguments.workdir, tuple(arguments.budget), **options)


def search(wanted: Search) -> list[SubnetRow]:
    """Rows as training writes them, one for each budget; files beside them in the run's directory.

    Raises:
      UserError: a budget that no subnet meets, no checkpoint, or no held-out images.
    """
    budgets = wanted.parsed()
    experiment = reload.experiment_of(wanted.run_dir)
    experiment = _with_scoring(experiment, wanted) if METHODS[wanted.method] else experiment
    _check_budgets(wanted, budgets, experiment.net)
    state = reload.newest_state(experiment, wanted.run_dir)
    if SHARED not in state.affine:
        raise UserError(
            f"--workdir {wanted.directory}: expected a network that runs at any width; its gammas and betas are "
            "private to its switches. Search a US-Net, a BigNAS or a Joslim run."
        )
    if wanted.reorder:
        importance = filters.IMPORTANCES[wanted.reorder](experiment.net.records, state.variables())
        state = experiment.net.reorder(state, importance)
    found = _found(wanted, budgets, experiment, state)
    rows = evaluate(experiment, state, experiment.algorithm.choose(state, found))
    if jax.process_index() == 0:
        _save(wanted, budgets, experiment, rows)
    return rows


def _with_scoring(experiment: Experiment, wanted: Search) -> Experiment:
    if wanted.split == "holdout" and not experiment.dataset.info.splits["holdout"]:
        raise UserError(
            f"--split holdout: {wanted.directory} has held no training images out. Search it with --split train, "
            "whose scores favour what was learnt by heart, or train again with data.holdout."
        )
    config = experiment.config.copy_and_resolve_references()
    config.scoring.split = wanted.split
    config.scoring.images = wanted.images or config.scoring.images
    changed = dataclasses.replace(experiment, config=config)
    try:
        check_scoring(changed)
    except BadValue as error:
        if wanted.images is None:
            raise
        raise BadValue("images", error.problem) from error
    return changed


def _check_budgets(wanted: Search, budgets: Sequence[Budget], net: Supernet) -> None:
    """A budget that no subnet meets is refused before anything is scored; where nothing is, the method says so."""
    cost = budgets[0].resource.cost(net)
    if METHODS[wanted.method]:
        for budget in budgets:
            limit, below = budget.absolute(net), wanted.method in BELOW
            check_reachable("budget", limit, net.space, cost, below=below)


def _found(
    wanted: Search, budgets: Sequence[Budget], experiment: Experiment, state: TrainState
) -> dict[str, Subnet]:
    """The best subnet within each budget, by the budget's text."""
    space, cost = experiment.net.space, budgets[0].resource.cost(experiment.net)
    limits = {str(budget): budget.absolute(experiment.net) for budget in budgets}
    if wanted.method == "history":
        return {name: _visited(experiment, state, cost, limit, name) for name, limit in limits.items()}
    if (asks_for := METHODS[wanted.method]) is None:
        start = _start(wanted, space)
        return {name: _scaled(space, cost, start, limit) for name, limit in limits.items()}
    score = Prober(experiment).at(state, 0, asks_for)
    found: dict[str, Subnet] = {}
    for name, searcher in _searchers(wanted, experiment.net, budgets[0].resource, list(limits.values())):
        # What scores depend on is in the log's name: other weights or images begin another.
        about = f"step{int(state.step)}-{wanted.split}{experiment.config.scoring.images}-seed{wanted.seed}"
        about += f"-{wanted.reorder}" * bool(wanted.reorder)
        with TrialLog(wanted.folder.trials(about + name), enabled=jax.process_index() == 0) as log:
            options: dict[str, Any] = {"how": wanted.method, "share": sharding.from_leader}
            found |= searcher.found(run_search(searcher, score, log, space, cost, **options))
    if lacking := [name for name, limit in limits.items() if target_name(limit) not in found]:
        raise UserError(f"--budget {lacking[0]}: no trial within it. Give more --trials, or a larger budget.")
    return {name: found[target_name(limit)] for name, limit in limits.items()}


def _searchers(
    wanted: Search, net: Supernet, resource: Resource, limits: list[float]
) -> list[tuple[str, Searcher]]:
    """The searches that find the subnets of all limits, each with an ending for its log's name."""
    space, cost = net.space, resource.cost(net)
    if wanted.method == "greedy":
        return [("", greedy(space, cost, limits))]
    if wanted.method == "bayes":
        vectors = WidthVectors(net, resource)
        options: dict[str, Any] = {"budgets": limits, "trials": wanted.trials, "seed": wanted.seed}
        options["encoding"] = vectors.encoding
        return [("", mobo(vectors.subnets, cost, space.largest, vectors.low, **options))]
    if wanted.method == "coarse_to_fine":
        # The grid depends on both, so another number of trials, or other budgets, begin another log.
        ending = "-".join(["", f"trials{wanted.trials}", *map(target_name, limits)])
        return [(ending, coarse_to_fine(space, cost, limits, wanted.trials, seed=wanted.seed))]
    population = min(POPULATION, wanted.trials)
    generations = wanted.trials // population - 1

    def evolve(limit: float) -> Searcher:
        return evolution(space, cost, limit, population=population, generations=generations, seed=wanted.seed)

    return [(f"-{target_name(limit)}", evolve(limit)) for limit in limits]


def _start(wanted: Search, space: Space) -> Subnet:
    """What elasticity-scaling begins with."""
    if wanted.start is not None:
        return architecture.load(wanted.start).subnet(space)
    if space.choices:
        raise UserError(
            "--from: expected the file of an architecture whose channels are to be scaled, for this network has "
            f"choices: {', '.join(choice.name for choice in space.choices)}. A search writes such files."
        )
    return space.largest


def _scaled(space: Space, cost: Cost, start: Subnet, limit: float) -> Subnet:
    try:
        return elastic(space, cost, start, limit, space.stages)
    except BadValue as error:
        raise BadValue("budget", error.problem) from error


def _visited(experiment: Experiment, state: TrainState, cost: Cost, limit: float, budget: str) -> Subnet:
    """The best of the trials that training has scored."""
    trials = experiment.algorithm.trials(state.algorithm, int(state.step))
    scored = [trial for trial in trials if trial.score is not None]
    subnets = [experiment.net.space.from_channels(trial.channels) for trial in scored]
    within = [i for i, subnet in enumerate(subnets) if float(cost(subnet)) <= limit]
    if not within:
        raise UserError(
            f"--method history: {experiment.config.algorithm.name} has scored {len(scored)} trials, none within "
            f"{budget}. Take another method or a larger budget."
        )
    return subnets[min(within, key=lambda i: scored[i].score or 0.0)]


def _save(
    wanted: Search, budgets: Sequence[Budget], experiment: Experiment, rows: Sequence[SubnetRow]
) -> None:
    """An architecture file for each budget, named by it, the rows, and a config that trains all of them."""
    resource = budgets[0].resource
    how = {row["name"]: {"method": wanted.method, "budget": row["name"]} | _drawn(wanted) for row in rows}
    cost, space = resource.cost(experiment.net), experiment.net.space
    costs = {row["name"]: {resource.name: float(cost(space.from_channels(row["channels"])))} for row in rows}
    results.write_found(experiment, wanted.run_dir, wanted.folder, rows, how, costs)


def _drawn(wanted: Search) -> dict[str, Any]:
    """What else a search depends on."""
    used = {"trials": wanted.trials, "seed": wanted.seed}
    drawn = {name: value for name, value in used.items() if name not in UNUSED[wanted.method]}
    prepared = {"reorder": wanted.reorder, "from": wanted.start}
    return drawn | {name: value for name, value in prepared.items() if value}
