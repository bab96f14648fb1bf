"""Progress: where, how fast and how long, with an ETA that leaves compilation out."""

import io

from slimjax.progress import Progress


def run_progress(seconds_of_steps: list[float], total: int, **options) -> list[str]:
    """Returns the lines of a loop whose steps take the given seconds."""
    clock, stream = Clock(), io.StringIO()
    with Progress(total, "train", stream=stream, clock=clock, **options) as progress:
        for seconds in seconds_of_steps:
            clock.now += seconds
            progress.advance(loss=0.41234)
    return stream.getvalue().splitlines()


def test_progress_line_says_where_how_fast_and_how_long():
    lines = run_progress([60] + [0.5] * 119, 500, every_seconds=119)
    assert lines[0] == "train  119/500  23%  2.0 step/s  ETA 0:03:10  loss 0.4123"


def test_progress_eta_leaves_compilation_out():
    fast, slow = (run_progress([first, 2, 2], 10, every_seconds=0)[2] for first in (2, 300))
    assert fast == slow == "train  3/10  30%  0.5 step/s  ETA 0:00:14  loss 0.4123"


def test_progress_prints_at_most_every_so_many_seconds():
    lines = run_progress([1] * 30, 30, every_seconds=10)
    assert [line.split()[1] for line in lines] == ["10/30", "20/30", "30/30", "30/30"]


def test_progress_ends_with_the_time_taken():
    assert run_progress([5, 1, 1], 3)[-1] == "train  3/3  100%  1.0 step/s  in 0:00:07  loss 0.4123"


def test_progress_of_a_resumed_loop_starts_where_it_was():
    assert run_progress([1, 1], 10, start=7)[-1].startswith("train  9/10  90%  1.0 step/s")


def test_progress_of_an_empty_loop_does_not_divide_by_zero():
    assert run_progress([], 0) == ["train  0/0  0%  in 0:00:00"]


def test_disabled_progress_is_silent():
    assert run_progress([100, 100], 2, enabled=False) == []


def test_progress_on_a_terminal_is_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress(2, "train", stream=stream) as progress:
        progress.advance()
        progress.advance(loss=0.5)
    assert "━" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
