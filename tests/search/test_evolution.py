"""Evolutionary search: the optimum of a problem that can be enumerated, budgets, breeding."""

import itertools

import numpy as np
import pytest

from slimjax.errors import UserError
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.evolution import evolution

SMALL = Space(tuple(Group(name, 48) for name in "abcde"), Rounding("multiple", 8), 0.15)
LARGE = Space(tuple(Group(f"g{i}", 64) for i in range(12)), Rounding("truncate"), 0.25)


def cost(subnets):
    """A chain of convolutions."""
    n = np.asarray(subnets, np.int64)
    return 3 * n[..., 0] + (n[..., 1:] * n[..., :-1]).sum(-1)


def error(subnets):
    """Groups matter differently, and neighbours together."""
    n = np.asarray(subnets, np.float64)
    weights = 1 + np.arange(n.shape[-1]) % 3
    return (weights / n).sum(-1) + 0.01 * np.abs(np.diff(np.log(n), axis=-1)).sum(-1)


def drive(searcher, score=error):
    """Returns the last state and the generations."""
    state, asked = searcher.init(), []
    while not searcher.done(state):
        asked.append(searcher.ask(state))
        state = searcher.tell(state, score(asked[-1]))
    return state, asked


def everything(space):
    return np.array(list(itertools.product(*(space.legal(group) for group in space.groups))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [2000, 5000])
def test_the_optimum_of_a_small_problem_is_found(budget, seed):
    allowed = everything(SMALL)
    allowed = allowed[cost(allowed) <= budget]
    searcher = evolution(SMALL, cost, budget, population=25, generations=30, seed=seed)
    state, _ = drive(searcher)
    assert state.told < len(allowed) / 2
    assert searcher.found(state)[str(budget)].tolist() == allowed[error(allowed).argmin()].tolist()


@pytest.mark.parametrize("share", [0.07, 0.1, 0.5, 1.0])
def test_every_subnet_that_is_asked_for_is_legal_and_within_the_budget(share):
    """At .07 no random subnet fits: 1/16 is the least."""
    budget = share * cost(LARGE.largest)
    low = 0.95 * budget
    _, asked = drive(evolution(LARGE, cost, budget, population=20, generations=4, at_least=low))
    rows = np.concatenate(asked)
    assert len(rows) == 100
    assert all(LARGE.check(row) is not None for row in rows)
    assert ((low <= cost(rows)) & (cost(rows) <= budget)).all()


def test_budget_is_met_to_the_unit():
    least = int(cost(SMALL.lowest))
    state, _ = drive(evolution(SMALL, cost, least, population=4, generations=2))
    assert state.subnets[: state.told].tolist() == [SMALL.lowest.tolist()]


def path(seed):
    return np.concatenate(drive(evolution(LARGE, cost, 20_000, population=10, generations=3, seed=seed))[1])


def test_a_seed_fixes_the_path_and_another_seed_takes_another():
    np.testing.assert_array_equal(path(1), path(1))
    assert (path(1) != path(2)).any()


def test_each_generation_draws_random_numbers_of_its_own():
    searcher = evolution(LARGE, cost, 20_000, population=10, generations=3)
    state = searcher.init()
    scores = error(searcher.ask(state))
    second, third = (searcher.tell(state._replace(generation=g), scores) for g in (0, 1))
    assert (searcher.ask(second) != searcher.ask(third)).any()


def test_generations_get_better():
    searcher = evolution(LARGE, cost, 20_000, population=20, generations=10, parents=0.25)
    _, asked = drive(searcher)
    assert error(asked[-1]).max() < np.median(error(asked[0]))


def two_generations(**options):
    """The first generation's best quarter, and the second generation, without a bound on cost."""
    _, (first, second) = drive(
        evolution(LARGE, cost, cost(LARGE.largest), population=40, generations=1, **options)
    )
    return first[np.argsort(error(first))[:10]], second


def test_crossover_takes_each_group_from_one_of_the_best():
    elders, children = two_generations(mutation_ratio=0.0)
    from_elders = (children[:, None] == elders[None]).any(axis=1)
    assert from_elders.all()
    assert not (children[:, None] == elders[None]).all(axis=-1).any()


def test_mutants_differ_from_one_of_the_best_in_a_few_groups():
    elders, mutants = two_generations(mutation_ratio=1.0, mutation_probability=0.2)
    changes = (mutants[:, None] != elders[None]).sum(axis=-1).min(axis=1)
    assert changes.min() == 1
    assert changes.mean() == pytest.approx(0.2 * 12, rel=0.3)


def test_mutation_ratio_is_the_share_of_mutants():
    elders, children = two_generations(mutation_ratio=0.25, mutation_probability=1.0)
    from_elders = (children[:, None] == elders[None]).any(axis=1).all(axis=1)
    assert from_elders.sum() == 30


def test_failed_subnets_have_no_children():
    def score(subnets):
        return np.where(subnets[:, 0] > 40, np.nan, error(subnets))

    options = {"population": 40, "generations": 1, "mutation_ratio": 0.0}
    _, (first, second) = drive(evolution(LARGE, cost, cost(LARGE.largest), **options), score)
    assert (first[:, 0] > 40).any()
    assert (second[:, 0] <= 40).all()


def test_where_all_fail_random_subnets_go_on_and_nothing_is_found():
    searcher = evolution(LARGE, cost, 20_000, population=10, generations=3)
    state, asked = drive(searcher, lambda subnets: np.full(len(subnets), np.nan))
    assert len({row.tobytes() for rows in asked for row in rows}) == 40
    assert searcher.found(state) == {}


def test_a_space_that_is_exhausted_ends_the_search():
    space = Space((Group("a", 24), Group("b", 24)), Rounding("multiple", 8), 0.3)
    state, asked = drive(evolution(space, cost, cost(space.largest), population=4, generations=50))
    assert state.generation < 50
    rows = np.concatenate(asked)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, everything(space)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 100}, r"budget: expected a cost of at least 280, got 100: .* cost 280 to 9360"),
        ({"budget": np.nan}, "budget: expected a cost"),
        ({"at_least": 2001}, "at_least: expected a number of at most 2000, got 2001"),
        ({"population": 0}, "population: expected a whole number of at least 1, got 0"),
        ({"generations": 1.5}, "generations: expected a whole number"),
        ({"parents": 1.1}, "parents: expected a number from 0 to 1, got 1.1"),
        ({"mutation_probability": np.nan}, "mutation_probability: expected a number from 0 to 1"),
        ({"mutation_ratio": -0.1}, "mutation_ratio: expected a number from 0 to 1"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        evolution(SMALL, cost, **{"budget": 2000, **options})


def test_bounds_between_which_nothing_lies_are_refused():
    with pytest.raises(UserError, match=r"found no subnet that costs 280.5 to 281"):
        evolution(SMALL, cost, 281, at_least=280.5).init()
