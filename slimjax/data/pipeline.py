"""Batches on the host: the step number alone decides what a batch holds.

The training data is one infinite stream: epoch after epoch, each in an order of its own (or of each order
only what fills whole batches). Batch t is rows [t B, (t + 1) B) of the stream, of which process p of P takes
the p-th block of B / P rows. So the whole state is the next step, a resume is exact, and the number of
processes may change in between. Grain's threads make whole batches ahead of time.

The order is a numpy permutation instead of Grain's index shuffle, which costs 20 us an example on small
data (a batch of 128 digits: 4.8 ms with it, 0.3 ms without), and may change with Grain's version.
"""

import bisect
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import grain
import numpy as np

from slimjax.data.dataset import Example, Source, mistake

Batch = dict[str, np.ndarray]

_THREADS = min(16, os.cpu_count() or 1)
_PREFETCH = max(2, _THREADS)  # batches; fewer than threads would leave threads idle
_ORDER, _TRANSFORM = 0, 1  # separate random streams of one seed


class TrainBatches(Iterator[Batch]):
    """This process's rows of each training batch, for ever: "image" uint8 [b, H, W, C], "label" int32 [b].

    The data is reshuffled each epoch. Batches are always full: one that reaches the end of an epoch goes on
    with the next, so each epoch holds every example exactly once.
    Differs: S-Net, US-Net and AutoSlim train on an epoch's remainder too, as a smaller last batch: as many
    updates as ceil(examples / batch). Joslim drops it (`drop_remainder`).
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        transform: Callable[[Example, np.random.Generator], Example] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        start_step: int = 0,
        drop_remainder: bool = False,
        num_threads: int = _THREADS,
        prefetch: int = _PREFETCH,
    ) -> None:
        """Args:
            batch_size: of the global batch, over all processes.
            seed: decides the order, and what `transform` draws.
            transform: makes images of many sizes equal in size (`images.host_transform`).
            start_step: the step of the first batch.
            drop_remainder: an epoch is its whole batches only; the last examples of its order are not seen.
            num_threads, prefetch: batches made at the same time, and kept ready.

        Raises:
            UserError: a batch larger than the data, or not divisible among the processes.
        """
        self._rows = _rows_per_process(batch_size, process_index, process_count)
        if batch_size > len(source):
            expected = f"at most the {len(source)} training images"
            raise mistake("train.batch_size", expected, str(batch_size), "Lower it, or use more images.")
        self._source, self._seed, self._transform = source, seed, transform
        self._batch_size, self._first_row = batch_size, process_index * self._rows
        self._per_epoch = len(source) // batch_size * batch_size if drop_remainder else len(source)
        # Batches that are being made at the same time share an epoch, or two.
        self._order = functools.lru_cache(maxsize=2)(functools.partial(_epoch_order, seed, len(source)))
        self._iterator = _iterate(self._batch, sys.maxsize, num_threads, prefetch)
        self._iterator.set_state({"next_index": start_step})

    def __next__(self) -> Batch:
        return next(self._iterator)

    def close(self) -> None:
        """Stops the prefetching threads; no batch can be taken afterwards."""
        self._iterator.close()

    def _batch(self, step: int) -> Batch:
        start = step * self._batch_size + self._first_row
        return _stack(self._example(row) for row in range(start, start + self._rows))

    def _example(self, row: int) -> Example:
        """Row `row` of the infinite stream."""
        epoch, place = divmod(row, self._per_epoch)
        example = self._source[self._order(epoch)[place]]
        if self._transform is None:
            return example
        return self._transform(example, np.random.default_rng((self._seed, _TRANSFORM, row)))


class TakingTurns(Iterator[Batch]):
    """Batches of several streams, each going on where it was when its turn comes again.

    Args:
      streams: by name, a function of the stream's own first step.
      turns: (first step, names of streams that take turns, one a step), with ascending first steps; each lasts until
        the next begins.
      start_step: the step of the first batch.

    Raises:
      UserError: a stream that cannot be made.
    """

    def __init__(
        self,
        streams: Mapping[str, Callable[[int], TrainBatches]],
        turns: Sequence[tuple[int, Sequence[str]]],
        start_step: int = 0,
    ) -> None:
        self._step, self._turns = start_step, turns
        done = dict.fromkeys(streams, 0)
        ends = [first for first, _ in turns[1:]] + [sys.maxsize]
        for (first, names), end in zip(turns, ends, strict=True):
            rounds, rest = divmod(max(0, min(end, start_step) - first), len(names))
            for place, name in enumerate(names):
                done[name] += rounds + (place < rest)
        self._streams = {name: make(done[name]) for name, make in streams.items()}

    def __next__(self) -> Batch:
        turn = bisect.bisect_right(self._turns, self._step, key=lambda turn: turn[0]) - 1
        first, names = self._turns[turn]
        name = names[(self._step - first) % len(names)]
        self._step += 1
        return next(self._streams[name])

    def close(self) -> None:
        """Closes all streams."""
        for stream in self._streams.values():
            stream.close()


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    transform: Callable[[Example], Example] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = _THREADS,
    prefetch: int = _PREFETCH,
) -> Iterator[Batch]:
    """One pass in order over this process's rows of each batch, with "weight" float32 [b].

    The last batch is filled up with copies of the last example, of weight 0 (real ones: 1), so that every
    process sees the same number of batches of one shape, and weighted sums over them are exact.

    Raises:
        UserError: no examples, or a batch that cannot be divided among the processes.
    """
    rows = _rows_per_process(batch_size, process_index, process_count)
    size = len(source)
    if not size:
        raise mistake("evaluation", "at least one image", "an empty split", "Choose another split.")

    def example(row: int) -> Example:
        found = source[min(row, size - 1)]
        return {**(found if transform is None else transform(found)), "weight": np.float32(row < size)}

    def batch(step: int) -> Batch:
        start = step * batch_size + process_index * rows
        return _stack(example(row) for row in range(start, start + rows))

    return _iterate(batch, math.ceil(size / batch_size), num_threads, prefetch)


def _epoch_order(seed: int, size: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(size)


def _rows_per_process(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        expected = f"a positive multiple of the {process_count} processes"
        raise mistake("train.batch_size", expected, str(batch_size), "Change one of the two.")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index {process_index} is outside the {process_count} processes")
    return batch_size // process_count


def _iterate(
    make: Callable[[int], Batch], steps: int, num_threads: int, prefetch: int
) -> grain.DatasetIterator:
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.range(steps).map(make).to_iter_dataset(options))


def _stack(examples: Iterable[Example]) -> Batch:
    """Stacks examples of one shape. Raises UserError if their images differ in size."""
    listed = list(examples)
    shapes = sorted({example["image"].shape for example in listed})
    if len(shapes) > 1:
        remedy = "Choose a data.augment that brings them to one: basic, mobile, tfnas."
        raise mistake("data.augment", "images of one size", f"sizes such as {shapes[:2]}", remedy)
    return {key: np.stack([example[key] for example in listed]) for key in listed[0]}
