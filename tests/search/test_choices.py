"""Searches of a space whose choices depend on each other: legal, canonical, new subnets, and options without order."""

import numpy as np
import pytest

from helpers import nested
from helpers.nested import SPACE
from slimjax.errors import UserError
from slimjax.nn.choices import Choice, When
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.breeding import Genes
from slimjax.search.coarse_to_fine import coarse_to_fine
from slimjax.search.evolution import evolution
from slimjax.search.greedy import greedy
from slimjax.search.mobo import mobo

BUDGETS = (60.0, 25.0)
QUICK = BayesOptions(raw_samples=64, restarts=2, iterations=4)

SEARCHES = {
    "evolution": lambda: evolution(SPACE, nested.cost, BUDGETS[1], population=20, generations=4),
    "coarse_to_fine": lambda: coarse_to_fine(SPACE, nested.cost, BUDGETS, trials=80),
    "greedy": lambda: greedy(SPACE, nested.cost, (25.0, 16.0)),
    "bayes": lambda: mobo(
        nested.subnets,
        nested.cost,
        SPACE.largest,
        nested.LOW,
        budgets=BUDGETS,
        trials=30,
        options=QUICK,
        encoding=nested.encoding(),
    ),
}
every_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


def drive(searcher, score=nested.error):
    """Returns what is found and all that was asked for."""
    state, asked = searcher.init(), []
    while not searcher.done(state):
        asked.append(searcher.ask(state))
        state = searcher.tell(state, score(asked[-1]))
    return searcher.found(state), asked


@every_search
def test_every_subnet_that_is_asked_for_is_legal_and_canonical(search):
    rows = np.concatenate(drive(search())[1])
    assert len(rows) > 10
    assert all(SPACE.check(row) is not None for row in rows)
    np.testing.assert_array_equal(SPACE.canonical(rows), rows)
    assert not SPACE.exists(rows).all(), "some lack an axis"


@pytest.mark.parametrize("name", ["evolution", "coarse_to_fine"])
def test_no_network_is_asked_for_twice(name):
    rows = np.concatenate(drive(SEARCHES[name]())[1])
    assert len(np.unique(rows, axis=0)) == len(rows)


@every_search
def test_what_is_found_is_within_its_budget(search):
    for name, subnet in drive(search())[0].items():
        assert nested.cost(subnet) <= float(name)


@pytest.mark.parametrize("budget", BUDGETS)
def test_evolution_finds_the_optimum_of_all(budget):
    allowed = nested.everything()
    allowed = allowed[nested.cost(allowed) <= budget]
    best = nested.error(allowed).min()
    found, _ = drive(evolution(SPACE, nested.cost, budget, population=15, generations=20))
    assert nested.error(found[f"{budget:.0f}"]) == pytest.approx(best)


def test_axes_that_a_parent_lacks_are_drawn_anew():
    """Or a child whose options bring them would have the narrowest ones always."""
    genes = Genes(SPACE, nested.cost, 0.0, np.inf)
    shallow = genes.encode(np.repeat(SPACE.uniform(0.25)[None], 500, axis=0))
    filled = genes.filled(shallow, np.random.default_rng(0))
    np.testing.assert_array_equal(genes.decode(filled), genes.decode(shallow))
    exists = SPACE.exists(genes.decode(shallow))[0]
    for axis, there in enumerate(exists):
        assert len(np.unique(filled[:, axis])) == (1 if there else genes.sizes[axis])


def test_repair_leaves_axes_alone_that_there_are_not():
    choice = Choice("op", ("plain", "wide"))
    space = Space(
        (Group("stem", 64), Group("wide", 64)),
        Rounding("truncate"),
        0.25,
        choices=(choice,),
        under={"wide": ((When(choice, (1,)),),)},
    )
    genes = Genes(space, lambda rows: np.asarray(rows)[..., 0], 0.0, 20.0)
    rows = np.array([[48, 40, 0]] * 50)
    repaired = genes.repair(rows, np.random.default_rng(1))
    assert genes.decode(repaired)[:, 0].tolist() == [20] * 50
    np.testing.assert_array_equal(repaired[:, 1], 40)


def test_repair_takes_any_other_option_of_an_unordered_choice():
    """Only by that is the budget met: the cheap option is the last, and the group has one width."""
    space = Space((Group("a", 8),), Rounding("truncate"), 1.0, choices=(Choice("op", tuple("abc"), False),))
    genes = Genes(space, lambda rows: np.array([5, 5, 1])[np.asarray(rows)[..., 1]], 0.0, 1.0)
    repaired = genes.repair(np.zeros((50, 2), int), np.random.default_rng(0))
    assert (genes.excess(repaired) == 0).mean() > 0.7
    assert (repaired >= 0).all()


FLAT = Space((Group("a", 64),), Rounding("truncate"), 0.25, choices=(Choice("op", tuple("abcdefgh"), False),))


def flat_cost(rows):
    return np.asarray(rows)[..., 0] + np.array([0, 9, 2, 8, 4, 6, 1, 3.0])[np.asarray(rows)[..., 1]]


def variations(ordered, **options):
    """Of a choice that costs nothing: its option in the skeleton, and in all variations."""
    axis = Choice("op", FLAT.choices[0].options, ordered)
    space = Space(FLAT.groups, FLAT.rounding, FLAT.min_width, choices=(axis,))
    searcher = coarse_to_fine(
        space, lambda rows: np.asarray(rows)[..., 0], [64.0], trials=20, coarse=0.2, **options
    )
    _, (grid, rows) = drive(searcher, lambda rows: -np.asarray(rows, float) @ [1, 0.01])
    return grid[(grid @ [1, 0.01]).argmax(), 1], rows[:, 1]


def test_variations_take_any_option_of_an_unordered_choice_and_neighbours_of_an_ordered_one():
    skeleton, taken = variations(ordered=False)
    assert np.abs(taken - skeleton).max() > 4
    assert skeleton in taken
    skeleton, taken = variations(ordered=True)
    assert 0 < np.abs(taken - skeleton).max() <= 2


def test_variations_keep_an_unordered_choice_that_is_not_moved_on_its_own():
    """Where the group has a distance of its own, the choice has none."""
    skeleton, taken = variations(ordered=False, probability=0.0, reach=0.5)
    assert (taken == skeleton).all()


def test_greedy_tries_every_cheaper_option_of_an_unordered_choice():
    """At the last option, of cost 3: those of cost 0, 2 and 1 are cheaper, whatever their places."""
    searcher = greedy(FLAT, flat_cost, [30.0])
    first = searcher.ask(searcher.init())
    assert sorted(first[first[:, 0] == 64, 1].tolist()) == [0, 2, 6]
    assert (first[:, 0] < 64).sum() == 1


def test_greedy_brings_axes_in_at_full_size_where_that_is_cheaper():
    """From the pool's 2, `wide` costs 1 and twice its 32 channels, or 1 and twice none."""

    def seconds(cost):
        searcher = greedy(SPACE, cost, [20.0])
        assert SPACE.to_channels(searcher.init().subnet)["second"] == "pool"
        named = map(SPACE.to_channels, searcher.ask(searcher.init()))
        return {row["second"]: row.get("second/wide") for row in named if "second" in row}

    assert seconds(nested.cost) == {"pool": None, "skip": None}
    with_wide = seconds(lambda rows: nested.cost(rows) - 70 * SPACE.exists(rows)[..., 2])
    assert with_wide == {"pool": None, "skip": None, "wide": 32}


def test_greedy_takes_no_option_whose_axes_make_the_network_dearer():
    """The smaller option of an ordered choice brings 64 channels along."""
    choice = Choice("op", ("split", "plain"))
    groups = (Group("stem", 64), Group("split", 64))
    under = {"split": ((When(choice, (0,)),),)}
    space = Space(groups, Rounding("truncate"), 0.25, choices=(choice,), under=under)

    def options(price):
        searcher = greedy(
            space, lambda rows: (np.asarray(rows) * space.exists(rows)) @ [1, price, 9.0], [60.0]
        )
        return searcher.ask(searcher.init())[:, 2].tolist()

    assert options(price=1.0) == [1]
    assert options(price=0.01) == [1, 0]


def test_greedy_ends_where_nothing_is_left():
    found, asked = drive(greedy(SPACE, nested.cost, [9.5]))
    assert len(asked) < 30
    assert [float(nested.cost(subnet)) for subnet in found.values()] == [9]


def test_budgets_count_from_the_cheapest_options_not_from_the_first():
    """A skip is cheapest, and last."""
    costs = nested.cost(nested.everything())
    assert costs.min() < nested.cost(SPACE.lowest)
    assert costs.max() > nested.cost(SPACE.largest)
    evolution(SPACE, nested.cost, float(costs.min()))
    with pytest.raises(UserError, match=r"at least 9, got 8.9: this network's subnets cost 9 to 125"):
        evolution(SPACE, nested.cost, 8.9)
