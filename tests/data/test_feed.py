"""The feed: order, errors, and what it counts."""

import itertools
import threading

import pytest

from slimjax.data.feed import AHEAD, Feed


class Batches:
    """Counts what was taken; `until` is where it ends, by running out or with an error."""

    def __init__(self, until=10**9, error=None):
        self.numbers, self.error, self.closed = iter(range(until)), error, False
        self.taken = threading.Semaphore(0)

    def __iter__(self):
        return self

    def __next__(self):
        for number in self.numbers:
            self.taken.release()
            return number
        raise self.error or StopIteration

    def close(self):
        self.closed = True


def feed_of(batches, **options):
    return Feed(batches, lambda number: number * 10, **options)


def test_batches_come_in_order_and_put():
    feed = feed_of(Batches())
    assert list(itertools.islice(feed, 50)) == [10 * n for n in range(50)]
    feed.close()


def test_batches_are_made_before_they_are_asked_for():
    batches = Batches()
    feed = feed_of(batches)
    for _ in range(AHEAD):
        assert batches.taken.acquire(timeout=10)
    feed.close()


@pytest.mark.parametrize("error", [None, OSError("disk")], ids=["end", "error"])
def test_end_and_errors_reach_the_loop_after_the_last_batch(error):
    feed = feed_of(Batches(3, error))
    assert [next(feed) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(StopIteration if error is None else OSError):
        next(feed)
    feed.close()


def test_close_stops_the_thread_and_closes_the_batches():
    batches = Batches()
    feed = feed_of(batches)
    next(feed)
    feed.close()
    assert batches.closed
    assert not feed._thread.is_alive()


def test_lap_counts_steps_and_the_share_of_waiting():
    """The clock: 10 at the start; each of two batches takes 1 s to get; the lap ends at 18, after 8 s."""
    times = iter([10.0, 11.0, 12.0, 14.0, 15.0, 18.0])
    feed = feed_of(Batches(), clock=lambda: next(times))
    next(feed)
    next(feed)
    assert feed.lap() == {"time/steps_per_second": 2 / 8, "time/data_wait": 2 / 8}
    feed.close()
