"""From a config to the objects of a run. The only reader of configs."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from slimjax import algorithms, checks, models, sharding, supernet
from slimjax.algorithms import Algorithm
from slimjax.budgets import MACS, parse_resource
from slimjax.data import augment, images, pipeline, sources
from slimjax.data.dataset import Dataset, DatasetInfo
from slimjax.errors import BadValue, UserError
from slimjax.experiment.config import complete, validate
from slimjax.nn.layers import BatchNorm
from slimjax.nn.space import Subnet
from slimjax.nn.widths import TILE, width_name
from slimjax.step import optimizers
from slimjax.step.engine import Engine
from slimjax.step.rungs import Cost
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState
from slimjax.supernet import Supernet

Rows = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run is made of. `steps` are updates in all."""

    config: ConfigDict
    dataset: Dataset
    net: Supernet
    engine: Engine
    algorithm: Algorithm
    schedule: optax.Schedule
    mesh: Mesh
    steps: int

    def train_batches(self, start_step: int = 0) -> pipeline.TakingTurns:
        """This process's rows of each step's batch, from `start_step`: of the stream of its phase's split."""
        size, seed = self.config.train.batch_size, self.config.seed
        turns = [(phase.first, [turn.split for turn in phase.turns]) for phase in self.algorithm.phases]
        streams = {
            split: functools.partial(self._stream, size, seed, split=split)
            for split in dict.fromkeys(split for _, splits in turns for split in splits)
        }
        return pipeline.TakingTurns(streams, turns, start_step)

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A global training batch on the devices, as shapes."""
        size, split = self.config.train.batch_size, sharding.batch_sharded(self.mesh)
        shapes = {"image": ((size, *self.net.image_shape), np.uint8), "label": ((size,), np.int32)}
        return {name: jax.ShapeDtypeStruct(*shape, sharding=split) for name, shape in shapes.items()}

    def abstract_state(self, slots: Sequence[Slot] | None = None) -> TrainState:
        """The algorithm's state, or that of a step with other slots, as shapes on every device."""
        init = self.algorithm.init if slots is None else functools.partial(self.engine.init, slots=slots)
        state = jax.eval_shape(lambda: init(0))
        return sharding.abstract(state, sharding.replicated(self.mesh))

    def calibration_batches(self) -> Iterator[Rows]:
        """This process's rows of the calibration images: a shuffled part of the training split."""
        size, count = self.config.calibration.batch_size, self.config.calibration.images
        stream = self._stream(size, self.config.seed + 1)
        try:
            for _ in range(count // size):
                yield next(stream)
        finally:
            stream.close()

    def scoring_batch(self, step: int) -> Rows:
        """Images that subnets are scored on at a step, held out by default: the same whole batch on every process."""
        source, wanted = self.dataset.split(self.config.scoring.split), self.config.scoring.images
        rng = np.random.default_rng((self.config.seed, step))
        rows = rng.permutation(len(source))[:wanted].tolist()
        transform = self._host_transform(train=False) or (lambda example: example)
        examples = [transform(source[row]) for row in rows]
        return {name: np.stack([example[name] for example in examples]) for name in ("image", "label")}

    def evaluation_batches(self) -> Iterator[Rows]:
        """This process's rows of one pass over the evaluation split."""
        return pipeline.eval_batches(
            self.dataset.split(self.config.evaluation.split),
            batch_size=self.config.evaluation.batch_size,
            transform=self._host_transform(train=False),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def evaluation_subnets(self) -> dict[str, Subnet] | None:
        """The config's evaluation widths as named subnets; None: the algorithm's own."""
        widths = self.config.evaluation.widths
        return {width_name(w): self.net.space.uniform(w) for w in widths} if widths else None

    def _stream(
        self, batch_size: int, seed: int, start_step: int = 0, split: str = "train"
    ) -> pipeline.TrainBatches:
        return pipeline.TrainBatches(
            self.dataset.split(split),
            batch_size=batch_size,
            seed=seed,
            transform=self._host_transform(train=True),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            start_step=start_step,
            drop_remainder=self.config.data.drop_remainder,
        )

    def _host_transform(self, train: bool) -> Any:
        name, size = self.config.data.augment, self.dataset.info.image_shape[0]
        return images.host_transform(name, size, train)


def build(config: ConfigDict, devices: Sequence[Any] | None = None) -> Experiment:
    """Completes the config in place, checks it and builds the run.

    Args:
      devices: described ones, to compile for; published data sets then need not be there. None: this machine's.

    Raises:
      UserError: with every mistake of the config, or the first one that only the data reveals.
    """
    available = jax.devices() if devices is None else devices
    complete(config)
    validate(config, len(available))
    mesh = sharding.make_mesh(config.devices, available)
    dataset = load_data(config, described=devices is not None)
    net = build_net(config, dataset.info.image_shape, dataset.info.num_classes)
    per_epoch = steps_per_epoch(config, dataset.info)
    steps = config.train.steps or math.ceil(config.train.epochs * per_epoch)
    updates = build_updates(config, steps, per_epoch)
    engine = build_engine(config, net, updates, dataset.info, mesh)
    algorithm = build_algorithm(config, engine)
    schedule = algorithm.schedule or updates.schedule(steps)
    experiment = Experiment(config, dataset, net, engine, algorithm, schedule, mesh, steps)
    _check_evaluation(experiment)
    return experiment


def _check_evaluation(experiment: Experiment) -> None:
    """A split or widths that cannot be evaluated are refused before training, not after it; so are missing images."""
    turns = [turn for phase in experiment.algorithm.phases for turn in phase.turns]
    for split in dict.fromkeys([experiment.config.evaluation.split, *(turn.split for turn in turns)]):
        experiment.dataset.split(split)
    if experiment.algorithm.needs_scores:
        check_scoring(experiment)
    if (subnets := experiment.evaluation_subnets()) is not None:
        algorithm = experiment.algorithm
        algorithm.choose(jax.eval_shape(lambda: algorithm.init(experiment.config.seed)), subnets)


def check_scoring(experiment: Experiment) -> None:
    """Raises: BadValue: fewer images to score on than the config wants."""
    split, wanted = experiment.config.scoring.split, experiment.config.scoring.images
    held = len(experiment.dataset.split(split))
    if held < wanted:
        raise BadValue(
            "config.scoring.images",
            f"expected at most {held} (in the split {split}), got {wanted}. "
            "Hold out more images (data.holdout), or score on fewer.",
        )


def steps_per_epoch(config: ConfigDict, info: DatasetInfo) -> float:
    """Updates in an epoch of the training stream: images over batch, or whole batches if the remainder is dropped."""
    count, size = info.splits["train"], config.train.batch_size
    # A batch larger than the data is refused where batches are made.
    return max(1, count // size) if config.data.drop_remainder else count / size


def load_data(config: ConfigDict, described: bool = False) -> Dataset:
    not_for_loading = ("name", "augment", "statistics", "drop_remainder")
    fields = {key: value for key, value in config.data.items() if key not in not_for_loading}
    return sources.load(config.data.name, **fields, seed=config.seed, described=described)


def build_net(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> Supernet:
    """The supernet of a config for images [H, W, C]."""
    wanted = config.batch_norm
    norm = functools.partial(
        BatchNorm,
        sync=wanted.statistics == "global",
        unbiased=wanted.unbiased,
        affine=wanted.affine,
        two_pass=wanted.variance == "two_pass",
    )
    takes = (
        "norm" in models.lookup(config.model.name).defaults
    )  # if not, `validate` has seen that it need not
    with checks.under("config.model."):
        return supernet.named(**network(config, image_shape, num_classes), norm=norm if takes else None)


def network(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> dict[str, Any]:
    """A config's network in the words of files: arguments of `supernet.named`, defaults of the model written out."""
    spec, wanted = models.lookup(config.model.name), config.model.to_dict()
    return {
        **wanted,
        "min_width": wanted["min_width"] or spec.min_width,
        "rounding": wanted["rounding"] or spec.rounding.policy,
        "divisor": wanted["divisor"] or spec.rounding.divisor,
        "convention": wanted["convention"] or spec.convention,
        "image_shape": list(image_shape),
        "num_classes": num_classes,
    }


def read_network(config: ConfigDict) -> dict[str, Any]:
    """`network` of a config that is not going to be trained here; published data sets need not be there.

    Raises:
      UserError: mistakes of the config, or options that JSON has no words for.
    """
    complete(config)
    validate(config, config.devices or 1)
    info = load_data(config, described=True).info
    found = network(config, info.image_shape, info.num_classes)
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"config.model.options: expected numbers, texts and tuples of them, got {found['options']} ({error}). "
            "Only such networks can be rebuilt from a file."
        ) from error
    return found


def build_updates(config: ConfigDict, steps: int, steps_per_epoch: float) -> optimizers.Updates:
    wanted = config.optimizer

    def schedule(count: int) -> optax.Schedule:
        return optimizers.schedule(
            wanted.schedule,
            wanted.learning_rate,
            steps=count,
            steps_per_epoch=max(1.0, steps_per_epoch),
            warmup_steps=round(wanted.warmup_epochs * steps_per_epoch),
            factor=wanted.factor,
            decay_epochs=wanted.decay_epochs,
            final_fraction=wanted.final_fraction,
            milestones=wanted.milestones,
        )

    optimizer = functools.partial(
        optimizers.sgd,
        momentum=wanted.momentum,
        nesterov=wanted.nesterov,
        weight_decay=wanted.weight_decay,
        decay_depthwise=wanted.decay_depthwise,
        decay_all=wanted.decay_all,
        clip_norm=wanted.clip_norm,
    )
    return optimizers.Updates(steps, schedule, optimizer)


def build_engine(
    config: ConfigDict, net: Supernet, updates: optimizers.Updates, info: DatasetInfo, mesh: Mesh
) -> Engine:
    return Engine(
        net=net,
        optimizer=updates.optimizer(updates.schedule(updates.count)),
        prepare_train=augment.train_transform(config.data.augment, info, statistics=config.data.statistics),
        prepare_test=augment.test_transform(config.data.augment, info, statistics=config.data.statistics),
        mesh=mesh,
        policy=config.engine.policy,
        rung_cost=_rung_cost(config, net, mesh),
        max_programs=config.engine.max_programs,
        compile_behind=config.engine.compile_behind,
        remat=config.engine.remat,
        label_smoothing=config.train.label_smoothing,
        smoothing_form=config.train.smoothing_form,
        micro_batches=config.train.micro_batches,
        stats_rate=config.batch_norm.momentum,
        average_decay=config.train.average_decay,
        updates=updates,
    )


def _rung_cost(config: ConfigDict, net: Supernet, mesh: Mesh) -> Cost | None:
    """`engine.rung_cost`; None: MACs. "auto" is what the chip pads channels to, where channels lie in its lanes."""
    wanted = config.engine.rung_cost
    if wanted == "auto":
        images = config.train.batch_size // config.train.micro_batches // mesh.size
        in_lanes = mesh.devices.flat[0].platform == "tpu" and images < TILE
        wanted = "tile_macs" if in_lanes else "macs"
    try:
        resource = parse_resource(wanted)
        return None if resource == MACS else resource.cost(net)
    except BadValue as error:
        raise BadValue("config.engine.rung_cost", error.problem) from error


def build_algorithm(config: ConfigDict, engine: Engine) -> Algorithm:
    """The configured algorithm; its arguments are the other fields of `config.algorithm`."""
    options = {key: value for key, value in config.algorithm.items() if key != "name"}
    with checks.under("config.algorithm."):
        return algorithms.make(config.algorithm.name, engine, **options)
