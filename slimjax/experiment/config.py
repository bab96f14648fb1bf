"""Every setting with its default, and the check that reports all mistakes of a config at once."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict, config_dict

from slimjax import algorithms, models
from slimjax.checks import FLAG, Rule, integer, number, one_of, optional, problem, tuple_of
from slimjax.cost import counts
from slimjax.data import augment
from slimjax.errors import BadValue, UserError
from slimjax.experiment import signature
from slimjax.experiment.signature import Argument
from slimjax.nn.widths import Rounding
from slimjax.step import optimizers
from slimjax.step.engine import POLICIES

_ENGINE = MappingProxyType(
    {"policy": "auto", "rung_cost": "auto", "max_programs": 16, "compile_behind": True, "remat": False}
)
_NORM = MappingProxyType(
    {"statistics": "global", "variance": "one_pass", "momentum": 0.1, "unbiased": True, "affine": True}
)


def default_config() -> ConfigDict:
    """All fields of a run. Config files start from here (through `slimjax.experiment.recipes`) and change a few."""
    return ConfigDict(
        {
            "seed": 1995,
            "devices": config_dict.placeholder(int),  # None: all that JAX sees
            "data": {
                "name": "digits",
                "data_dir": config_dict.placeholder(str),  # TFDS directory, or the root of listed images
                "train_list": config_dict.placeholder(str),
                "test_list": config_dict.placeholder(str),
                "image_size": config_dict.placeholder(int),
                "channels": config_dict.placeholder(int),
                "num_classes": config_dict.placeholder(int),
                "holdout": 0,  # training images kept back for search
                "train_examples": config_dict.placeholder(int),  # use only so many training images
                "drop_remainder": False,  # of each epoch, what does not fill a batch; else the next epoch fills it
                "augment": "none",
                "statistics": config_dict.placeholder(str),  # to normalise by; None: the data set's own
            },
            "model": {
                "name": "resnet20",
                "min_width": config_dict.placeholder(float),  # None: the paper's for this model
                "rounding": config_dict.placeholder(str),
                "divisor": config_dict.placeholder(int),
                "convention": config_dict.placeholder(str),  # what counts as a MAC
                "dtype": "float32",
                "resolutions": (),  # sides that images are resized to, the last their own; none: they stay as they are
                "options": {},  # further arguments of the model's class
            },
            "algorithm": {"name": "usnet"},
            "engine": dict(_ENGINE),
            "batch_norm": dict(_NORM),
            "train": {
                "batch_size": 128,
                "epochs": 10.0,
                "steps": config_dict.placeholder(int),  # overrides epochs
                "micro_batches": 1,
                "label_smoothing": 0.0,
                "smoothing_form": "all",
                "average_decay": config_dict.placeholder(float),
                "log_every": 20,
                "checkpoint_every": 200,
                "keep_checkpoints": 3,
            },
            "optimizer": _optimizer(),
            "scoring": {"images": 128, "split": "holdout"},  # what searches score subnets on
            "calibration": {"images": 1024, "batch_size": 128},
            "evaluation": {"widths": (), "split": "test", "batch_size": 256},
        }
    )


def _optimizer() -> dict[str, Any]:
    return {
        "learning_rate": 0.1,
        "schedule": "linear",
        "warmup_epochs": 0.0,
        "factor": 0.98,
        "decay_epochs": 1.0,
        "final_fraction": 0.0,
        "milestones": (),
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay_depthwise": False,
        "decay_all": False,  # weight decay on biases, gammas and betas, too
        "clip_norm": config_dict.placeholder(float),
    }


LOOKUPS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {"model.name": models.lookup, "algorithm.name": algorithms.lookup}
)


def complete(config: ConfigDict) -> None:
    """Writes the algorithm's options that a config does not name into it, as its function's signature has them.

    An algorithm that cannot be found has none; `validate` says so.
    """
    section = config.get("algorithm")
    if isinstance(section, ConfigDict) and "name" in section:
        with contextlib.suppress(BadValue):
            signature.fill(section, algorithm_options(section.name))


def defaults_of(config: ConfigDict) -> ConfigDict:
    """Every setting of a valid config as it is where nothing is said: those of its own algorithm and model."""
    defaults = default_config()
    section = ConfigDict({"name": config.algorithm.name})
    signature.fill(section, algorithm_options(config.algorithm.name))
    defaults.algorithm = ConfigDict({**section, "name": defaults.algorithm.name})
    signature.fill(defaults.model.options, model_options(config.model.name))
    return defaults


def algorithm_options(name: str) -> dict[str, Argument]:
    """What an algorithm's function takes beside the engine, which comes first."""
    return dict(list(signature.of(algorithms.lookup(name)).items())[1:])


SET_BY_A_RUN = ("parent", "name", *models.RUN_FIELDS)
"""Fields of a model's class that no option sets."""


def model_options(name: str) -> dict[str, Argument]:
    """What a model's class takes, beside what a run sets."""
    spec = models.lookup(name)
    defaults = {**spec.defaults, **spec.fields}
    return {
        key: argument if defaults[key] is models.REQUIRED else argument.with_default(defaults[key])
        for key, argument in signature.of(spec.module).items()
        if key not in SET_BY_A_RUN
    }


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "seed": integer(0),
        "devices": optional(integer(1)),
        "data.image_size": optional(integer(1)),
        "data.channels": optional(integer(1)),
        "data.num_classes": optional(integer(2)),
        "data.holdout": integer(0),
        "data.train_examples": optional(integer(1)),
        "data.augment": one_of(*augment.AUGMENTATIONS),
        "data.statistics": optional(one_of(*augment.STATISTICS)),
        "model.min_width": optional(number(0, above=True)),
        "model.rounding": optional(one_of(*Rounding.POLICIES)),
        "model.divisor": optional(integer(1)),
        "model.convention": optional(one_of(*counts.CONVENTIONS)),
        "model.dtype": one_of("float32", "bfloat16"),
        "model.resolutions": tuple_of(integer(1)),
        "engine.policy": one_of(*POLICIES),
        "engine.max_programs": integer(3),
        "batch_norm.statistics": one_of("global", "device"),
        "batch_norm.variance": one_of("one_pass", "two_pass"),
        "batch_norm.momentum": number(0, 1, above=True),
        "train.batch_size": integer(1),
        "train.epochs": number(0, above=True),
        "train.steps": optional(integer(1)),
        "train.micro_batches": integer(1),
        "train.label_smoothing": number(0, 1),
        "train.smoothing_form": one_of("all", "others"),
        "train.average_decay": optional(number(0, 1)),
        "train.log_every": integer(1),
        "train.checkpoint_every": integer(1),
        "train.keep_checkpoints": integer(1),
        "optimizer.learning_rate": number(0, above=True),
        "optimizer.schedule": one_of(*optimizers.SCHEDULES),
        "optimizer.warmup_epochs": number(0),
        "optimizer.factor": number(0, 1, above=True),
        "optimizer.decay_epochs": number(0, above=True),
        "optimizer.final_fraction": number(0, 1),
        "optimizer.decay_depthwise": FLAG,
        "optimizer.milestones": tuple_of(number(0, above=True)),
        "optimizer.momentum": number(0, 1),
        "optimizer.weight_decay": number(0),
        "optimizer.clip_norm": optional(number(0, above=True)),
        "scoring.images": integer(2),
        "scoring.split": one_of("holdout", "train"),
        "calibration.images": integer(1),
        "calibration.batch_size": integer(2),
        "evaluation.widths": tuple_of(number(0, above=True)),
        "evaluation.split": one_of("train", "holdout", "test"),
        "evaluation.batch_size": integer(1),
    }
)


def validate(config: ConfigDict, device_count: int) -> None:
    """Checks every value and how they fit together.

    Raises:
      UserError: one message with all mistakes: the field, what was expected, what was found.
    """
    errors, given = _strange_fields(config), dict(_fields(config))
    for path, rule in RULES.items():
        if path in given and (found := problem(given[path], rule)):
            errors.append(f"config.{path}: {found}")
    errors += _unknown_names(given)
    if not errors:
        errors = _strange_options(config)
    if not errors:
        errors = _misfits(config, device_count)
    if errors:
        raise UserError("\n".join([f"{len(errors)} mistake(s) in the config:", *(f"  {e}" for e in errors)]))


OPEN_SECTIONS = ("algorithm.", "model.options.")
"""Their fields are arguments of the algorithm's function and of the model's class."""


def _hint(path: str, known: Mapping[str, Any]) -> str:
    if near := difflib.get_close_matches(path, known, n=3, cutoff=0.75):
        return f"Did you mean {' or '.join(near)}?"
    section = path.rpartition(".")[0]
    return f"There are: {', '.join(p for p in known if p.rpartition('.')[0] == section)}."


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every section and field."""
    for key in config:
        value = config[key]
        yield prefix + key, value
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{key}.")


def _strange_fields(config: ConfigDict) -> list[str]:
    """Fields that a run does not know, and those that it misses: a file can write anything."""
    known, given = dict(_fields(default_config())), dict(_fields(config))
    unknown = [path for path in given if path not in known and not path.startswith(OPEN_SECTIONS)]
    missing = [path for path in known if path not in given]
    return [f"config.{path}: no such field. {_hint(path, known)}" for path in unknown] + [
        f"config.{path}: missing. Start from a recipe, or from default_config()." for path in missing
    ]


def _unknown_names(given: Mapping[str, Any]) -> list[str]:
    """Models and algorithms that are neither known nor of the user's own."""
    errors = []
    for path, lookup in LOOKUPS.items():
        try:
            lookup(given.get(path, ""))
        except BadValue as error:
            errors.append(f"config.{path}: {error.problem}")
    return errors


def _strange_options(config: ConfigDict) -> list[str]:
    """Arguments that the algorithm's function and the model's class do not take, miss, or take of another type."""
    algorithm, model = config.algorithm, config.model
    given = {key: value for key, value in algorithm.items() if key != "name"}
    return [
        *signature.mistakes("config.algorithm", algorithm.name, given, algorithm_options(algorithm.name)),
        *signature.mistakes("config.model.options", model.name, model.options, model_options(model.name)),
        *_without_a_field(config),
    ]


SET_THROUGH_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dtype": ("model.dtype",),
        "norm": tuple(f"batch_norm.{field}" for field in ("statistics", "variance", "unbiased", "affine")),
    }
)
"""Settings that reach a network through a field of its class."""


def _without_a_field(config: ConfigDict) -> list[str]:
    """Settings that are no longer the defaults, and would not reach a network of the user's own."""
    fields, defaults = models.lookup(config.model.name).defaults, default_config()
    return [
        f"config.{path}: expected {_get(defaults, path)!r}, got {_get(config, path)!r}, but {config.model.name} "
        f"has no field {field} to set it by"
        for field, paths in SET_THROUGH_FIELDS.items()
        for path in paths
        if field not in fields and _get(config, path) != _get(defaults, path)
    ]


def _get(config: ConfigDict, path: str) -> Any:
    for key in path.split("."):
        config = config[key]
    return config


def _misfits(config: ConfigDict, available: int) -> list[str]:
    """Values that are legal alone but not together."""
    errors = []
    devices = config.devices or available
    if devices > available:
        errors.append(f"config.devices: expected at most {available} (what JAX sees here), got {devices}")
    parts = devices * config.train.micro_batches
    for path, divisor in (
        ("train.batch_size", parts),
        ("calibration.batch_size", devices),
        ("evaluation.batch_size", devices),
    ):
        if (size := _get(config, path)) % divisor:
            errors.append(
                f"config.{path}: expected a multiple of {divisor} (devices x micro-batches), got {size}. "
                f"Nearest: {max(1, round(size / divisor)) * divisor}"
            )
    if config.calibration.images % config.calibration.batch_size:
        errors.append(
            f"config.calibration.images: expected a multiple of calibration.batch_size "
            f"({config.calibration.batch_size}), got {config.calibration.images}"
        )
    return errors + _widths_outside(config)


def _widths_outside(config: ConfigDict) -> list[str]:
    """Widths outside the model's range."""
    spec = models.lookup(config.model.name)
    low, high = config.model.min_width or spec.min_width, spec.max_width
    if found := problem(low, number(0, high, above=True)):
        return [f"config.model.min_width: {found}"]
    if outside := [w for w in config.evaluation.widths if not low <= w <= high]:
        return [f"config.evaluation.widths: expected {low:g} (model.min_width) to {high:g}, got {outside}"]
    return []
