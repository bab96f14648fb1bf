"""Batches: what is in one, in which order, on which process, and after a resume."""

import functools
from itertools import chain

import numpy as np
import pytest

from slimjax.data.dataset import ArraySource, Source
from slimjax.data.pipeline import TakingTurns, TrainBatches, eval_batches
from slimjax.errors import UserError


def labels_of(batches: TrainBatches, steps: int) -> list[list[int]]:
    found = [next(batches)["label"].tolist() for _ in range(steps)]
    batches.close()
    return found


def test_train_batch_has_documented_types(numbered):
    batch = next(TrainBatches(numbered, batch_size=8, seed=0))
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((8, 2, 2, 1), "uint8"),
        "label": ((8,), "int32"),
    }


def test_epoch_covers_every_example_once(numbered):
    rows = list(chain.from_iterable(labels_of(TrainBatches(numbered, batch_size=20, seed=3), 5)))
    assert sorted(rows[:50]) == sorted(rows[50:]) == list(range(50))


def test_epochs_differ_in_order(numbered):
    first, second = labels_of(TrainBatches(numbered, batch_size=50, seed=3), 2)
    assert first != second


def test_next_seed_does_not_repeat_this_one_an_epoch_later(numbered):
    _, second = labels_of(TrainBatches(numbered, batch_size=50, seed=3), 2)
    (first,) = labels_of(TrainBatches(numbered, batch_size=50, seed=4), 1)
    assert first != second


def test_resume_is_exact(numbered):
    def noise(example, rng):
        return {**example, "image": rng.integers(0, 256, (2, 2, 1), dtype=np.uint8)}

    unbroken = TrainBatches(numbered, batch_size=8, seed=0, transform=noise)
    for _ in range(9):  # into the second epoch
        next(unbroken)
    resumed = TrainBatches(numbered, batch_size=8, seed=0, transform=noise, start_step=9)
    for _ in range(3):
        expected, found = next(unbroken), next(resumed)
        for key in ("image", "label"):
            np.testing.assert_array_equal(expected[key], found[key])


def test_start_step_is_a_resume(numbered):
    whole = labels_of(TrainBatches(numbered, batch_size=8, seed=0), 6)
    assert labels_of(TrainBatches(numbered, batch_size=8, seed=0, start_step=4), 2) == whole[4:]


@pytest.fixture
def seven() -> Source:
    """Seven examples: in batches of 3 an epoch is two whole batches and one example more."""
    return ArraySource(np.zeros((7, 2, 2, 1), np.uint8), np.arange(7, dtype=np.int32))


def dropping(source: Source, steps: int, **options) -> list[list[int]]:
    return labels_of(TrainBatches(source, batch_size=3, seed=5, drop_remainder=True, **options), steps)


def test_dropping_the_remainder_leaves_whole_batches_of_each_epochs_order(seven):
    """Of the orders o, p, q of three epochs: o0-2, o3-5, p0-2, p3-5, q0-2, q3-5; by default o0-2, o3-5, o6 p0-1, ..."""
    kept = list(chain.from_iterable(labels_of(TrainBatches(seven, batch_size=3, seed=5), 7)))
    orders = [kept[:7], kept[7:14], kept[14:21]]
    assert [sorted(order) for order in orders] == [list(range(7))] * 3
    expected = [block for order in orders for block in (order[:3], order[3:6])]
    assert dropping(seven, 6) == expected


def test_dropping_the_remainder_of_nothing_changes_nothing(numbered):
    whole, dropped = (
        labels_of(TrainBatches(numbered, batch_size=10, seed=0, drop_remainder=drop), 12)
        for drop in (False, True)
    )
    assert dropped == whole


@pytest.mark.parametrize("start", range(6))
def test_a_resume_that_drops_remainders_is_exact(seven, start):
    assert dropping(seven, 6 - start, start_step=start) == dropping(seven, 6)[start:]


def test_processes_make_up_the_batches_that_drop_remainders(numbered):
    """Of 50, batches of 8: six an epoch, whatever the processes."""
    options = {"batch_size": 8, "seed": 0, "drop_remainder": True}
    whole = labels_of(TrainBatches(numbered, **options), 13)
    assert all(len(set(chain.from_iterable(whole[i : i + 6]))) == 48 for i in (0, 6))
    shards = [
        labels_of(TrainBatches(numbered, **options, process_index=p, process_count=2), 13) for p in range(2)
    ]
    assert [first + second for first, second in zip(*shards, strict=True)] == whole


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_make_up_the_global_batch(numbered, process_count):
    whole = labels_of(TrainBatches(numbered, batch_size=8, seed=0), 10)
    shards = [
        labels_of(
            TrainBatches(numbered, batch_size=8, seed=0, process_index=p, process_count=process_count), 10
        )
        for p in range(process_count)
    ]
    assert [list(chain.from_iterable(blocks)) for blocks in zip(*shards, strict=True)] == whole


def test_order_does_not_depend_on_threads(numbered):
    one = labels_of(TrainBatches(numbered, batch_size=8, seed=0, num_threads=1), 10)
    assert labels_of(TrainBatches(numbered, batch_size=8, seed=0, num_threads=7, prefetch=9), 10) == one


@pytest.mark.parametrize(("batch_size", "process_count"), [(8, 1), (8, 2), (50, 1), (64, 4)])
def test_eval_weights_count_every_example_once(numbered, batch_size, process_count):
    seen = np.zeros(50)
    for p in range(process_count):
        for batch in eval_batches(
            numbered, batch_size=batch_size, process_index=p, process_count=process_count
        ):
            np.add.at(seen, batch["label"], batch["weight"])
    np.testing.assert_array_equal(seen, 1)


def test_eval_batches_have_one_shape_on_every_process(numbered):
    shapes = [
        [
            batch["image"].shape
            for batch in eval_batches(numbered, batch_size=8, process_index=p, process_count=4)
        ]
        for p in range(4)
    ]
    assert shapes == [[(2, 2, 2, 1)] * 7] * 4


def test_batch_larger_than_the_data_is_refused(numbered):
    with pytest.raises(UserError, match="at most the 50 training images, got 51"):
        TrainBatches(numbered, batch_size=51, seed=0)


def test_batch_that_processes_cannot_share_is_refused(numbered):
    with pytest.raises(UserError, match="multiple of the 4 processes, got 10"):
        eval_batches(numbered, batch_size=10, process_count=4)


@pytest.fixture
def numbered() -> Source:
    """Fifty examples whose image and label are their index: what a batch holds can be read off it."""
    index = np.arange(50)
    return ArraySource(
        np.tile(index.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1)), index.astype(np.int32)
    )


def test_streams_that_take_turns_go_on_where_they_were(numbered):
    """Three batches of one, two of the other, one more, then the other, and both in turns; from every step on."""
    turns = [(0, ["a"]), (3, ["b"]), (5, ["a"]), (6, ["b"]), (8, ["b", "a", "a"])]
    make = {
        name: functools.partial(TrainBatches, numbered, batch_size=8, seed=seed)
        for seed, name in enumerate("ab")
    }
    streams = {name: lambda start, make=make: make(start_step=start) for name, make in make.items()}
    a, b = (labels_of(make[name](), 12) for name in "ab")
    expected = [*a[:3], *b[:2], a[3], *b[2:4], b[4], *a[4:6], b[5], *a[6:8], b[6], a[8]]
    for start in range(len(expected) - 1):
        count = len(expected) - start
        assert labels_of(TakingTurns(streams, turns, start), count) == expected[start:], start


def test_a_stream_that_is_never_reached_is_refused_too(numbered):
    streams = {"a": lambda start: TrainBatches(numbered, batch_size=51, seed=0, start_step=start)}
    with pytest.raises(UserError, match="at most the 50 training images"):
        TakingTurns(streams, [(0, ["a"])])
