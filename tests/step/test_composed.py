"""Composed steps: programs that are compiled ahead, or behind the training that will use them."""

from concurrent.futures import Future

import jax
import numpy as np
import pytest

from helpers.engines import batches, engine_of
from helpers.trees import assert_trees_close
from slimjax import sharding
from slimjax.step import programs
from slimjax.step.composed import ComposedStep
from slimjax.step.forms import Form
from slimjax.step.slots import Slot


class HeldBack:
    """An executor that works when it is told to."""

    def __init__(self):
        self.jobs = []

    def submit(self, function, *arguments):
        self.jobs.append((Future(), function, arguments))
        return self.jobs[-1][0]

    def work(self):
        for future, function, arguments in self.jobs:
            if future.set_running_or_notify_cancel():
                future.set_result(function(*arguments))
        self.jobs = []


def lasting_step(**options):
    """A step with the largest subnet and a lasting one, its state, and the executor that it compiles on."""
    engine = engine_of(lr=0.02, **options)
    largest = tuple(engine.net.space.largest.tolist())
    slots = (Slot("max", largest), Slot("stays", target="teacher", lasting=True))
    step = ComposedStep(engine, slots, engine.net.space.uniform(0.8)[None])
    step.programs._pool = HeldBack()
    return step, engine.init(0, slots), engine.net.space.uniform(0.5)[None]


def forms(step):
    return {key[0] for key, _ in step.programs.live() if isinstance(key, tuple)}


def test_lasting_subnet_trains_bucketed_until_its_sliced_program_is_there():
    step, state, subnets = lasting_step(policy="auto")
    sliced = Form(tuple(subnets[0].tolist()), masked=False)
    seen = []
    for number, batch in enumerate(batches(4)):
        if number == 2:
            step.programs._pool.work()
        state, _ = step(state, batch, subnets)
        seen.append(sliced in forms(step))
    assert seen == [False, False, True, True]
    assert int(state.step) == 4, "the switch loses no step"


def test_switch_changes_no_result_beyond_rounding():
    results = {}
    for policy in ("auto", "sliced", "masked"):
        step, state, subnets = lasting_step(policy=policy)
        for number, batch in enumerate(batches(6)):
            if number == 3:
                step.programs._pool.work()
            state, _ = step(state, batch, subnets)
        results[policy] = state.trainable
    assert len({form.masked for form in forms(step)}) == 1, "masked: all are"
    assert_trees_close(results["auto"], results["sliced"], "training")
    assert_trees_close(results["masked"], results["sliced"], "training")


def test_without_compile_behind_the_sliced_program_serves_the_first_step():
    step, state, subnets = lasting_step(policy="auto", compile_behind=False)
    step(state, next(batches(1)), subnets)
    assert not any(form.masked for form in forms(step))
    assert not step.programs._pool.jobs


def test_programs_of_many_lasting_subnets_stay_within_the_bound():
    step, state, _ = lasting_step(policy="auto", max_programs=6)
    space = step.engine.net.space
    for width in (0.3, 0.4, 0.5, 0.6, 0.7):
        for batch in batches(2):
            state, _ = step(state, batch, space.uniform(width)[None])
            step.programs._pool.work()
    assert len(step.programs) <= 6


def test_sliced_programs_of_lasting_subnets_are_provided_for():
    """Of six programs: prepare, update, the largest, one sliced; two are left for rungs."""
    engine = engine_of(policy="auto", max_programs=6)
    slots = (Slot("max", tuple(engine.net.space.largest.tolist())), Slot("stays", lasting=True))
    draws = np.stack([engine.net.space.uniform(width) for width in np.linspace(0.25, 1, 30)])
    assert len(ComposedStep(engine, slots, draws).forms.rungs) == 2


def test_subnets_that_nobody_waits_for_are_not_compiled():
    cache = programs.Programs(2, "cpu")
    call = lambda key: programs.Call(key, lambda: jax.jit(lambda x: x), (np.ones(()),))  # noqa: E731
    cache._pool = pool = HeldBack()
    for n in range(5):
        assert not cache.compile_behind(call(n))
    pool.work()
    assert [cache.compile_behind(call(n)) for n in (3, 4)] == [True, True]
    assert not cache.compile_behind(call(0)), "pushed out by later ones"
    assert cache.compiles == 0, "what nobody uses is not counted"


def test_compile_makes_the_programs_that_the_step_then_uses():
    step, state, subnets = lasting_step(policy="auto")
    batch = next(batches(1))
    other, same = lasting_step(policy="auto")[:2]
    split = sharding.batch_sharded(step.engine.mesh)
    programs_, seen = step.compile(state, sharding.abstract(batch, split), subnets, lambda: None), []
    step.compile(state, sharding.abstract(batch, split), subnets, lambda: seen.append(1))
    assert len(programs_) == len(seen) == step.programs.compiles == 4  # prepare, two subnets, update
    ahead, _ = step(state, batch, subnets)
    assert step.programs.compiles == 4
    assert_trees_close(ahead.trainable, other(same, batch, subnets)[0].trainable, "training")


def test_peak_bytes_counts_what_is_alive_and_is_no_argument():
    split = sharding.replicated(sharding.make_mesh(1))
    shape = jax.ShapeDtypeStruct((1000,), np.float32, sharding=split)
    idle = jax.ShapeDtypeStruct((500,), np.float32, sharding=split)
    program = jax.jit(lambda x: x + 1).lower(shape).compile()
    alone = programs.peak_bytes([(program, (shape,))], shape)
    assert 8000 <= alone < 12000  # the argument and the result, each once
    assert programs.peak_bytes([(program, (shape,))], (shape, idle)) == alone + 2000


@pytest.mark.parametrize("policy", ["auto", "masked"])
def test_description_names_every_slot(policy):
    text = "; ".join(lasting_step(policy=policy)[0].describe())
    assert "max" in text
    assert ("stays sliced once compiled" in text) == (policy == "auto")


def test_one_process_agrees_with_itself():
    assert sharding.agree(True)
    assert not sharding.agree(False)
