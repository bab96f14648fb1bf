"""Recipes that start from a finished run."""

import pytest
from ml_collections import ConfigDict

from helpers.runs import flat
from slimjax.errors import UserError
from slimjax.experiment import config_file, recipes
from slimjax.experiment.build import build_updates
from slimjax.experiment.config import complete, validate


@pytest.fixture
def run(tmp_path):
    """Returns a function: a shipped config's name and overrides -> the path of the config.json of its run."""

    def write(name: str, *overrides: str) -> str:
        config = config_file.load(f"slimjax:{name}", list(overrides))
        (tmp_path / "config.json").write_text(config.to_json_best_effort())
        return str(tmp_path / "config.json")

    return write


AUTOSLIM = {
    "data.augment": "mobile",
    "data.holdout": 0,
    "train.steps": None,
    "train.label_smoothing": 0.1,
    "train.smoothing_form": "others",
    "optimizer.warmup_epochs": 0.0,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 1e-4,
    "algorithm.name": "snet",
    "algorithm.private_affine": True,
    "algorithm.inplace_distillation": False,
}
PUBLISHED = {
    "mobilenets": {
        "train.batch_size": 2048,
        "train.epochs": 300.0,
        "optimizer.learning_rate": 0.5,
        "optimizer.schedule": "linear",
    },
    "resnet50": {
        "train.batch_size": 256,
        "train.epochs": 100.0,
        "optimizer.learning_rate": 0.1,
        "optimizer.schedule": "multistep",
        "optimizer.factor": 0.1,
        "optimizer.milestones": (30.0, 60.0, 90.0),
    },
}


@pytest.mark.parametrize("settings", PUBLISHED)
def test_retraining_on_imagenet_has_the_published_settings(run, settings):
    """From a run that differs in all of them but the momentum."""
    path = run(
        "imagenet_joslim:model=mobilenet_v3_large", "--config.train.steps=7", "--config.train.micro_batches=2"
    )
    config = recipes.retrain(path, ["a.json", "b.json"], settings)
    complete(config)
    validate(config, device_count=8)
    got = flat(config)
    assert {key: got[key] for key in (AUTOSLIM | PUBLISHED[settings])} == AUTOSLIM | PUBLISHED[settings]
    assert config.algorithm.architectures == ("a.json", "b.json")
    assert (config.model.name, config.train.micro_batches) == ("mobilenet_v3_large", 2)


def test_retraining_elsewhere_keeps_the_run_but_for_the_form_of_label_smoothing(run):
    path = run("cifar_joslim")
    before, after = (
        flat(config)
        for config in (
            config_file.load("slimjax:cifar_joslim", []),
            recipes.retrain(path, ["a.json"]),
        )
    )
    changed = {key for key in before if before[key] != after.get(key) and not key.startswith("algorithm.")}
    assert changed == {"train.smoothing_form"}
    assert after["train.smoothing_form"] == "others"


@pytest.mark.parametrize(
    ("data", "model", "settings"),
    [
        ("imagenet2012", "autoslim_mobilenet_v2", "mobilenets"),
        ("imagenet2012", "autoslim_mnasnet", "mobilenets"),
        ("imagenet2012", "autoslim_resnet50", "resnet50"),
        ("imagenet2012", "resnet18", "resnet50"),
        ("imagenet100", "us_mobilenet_v2", "own"),
        ("cifar10", "resnet20", "own"),
        ("imagenet100", "tfnas", "tfnas"),
        ("digits", "tfnas", "own"),
    ],
)
def test_published_settings_are_for_imagenet_and_those_of_the_network(data, model, settings):
    assert recipes.retraining(ConfigDict({"data": {"name": data}, "model": {"name": model}})) == settings


def test_unknown_settings_are_refused(run):
    with pytest.raises(
        UserError, match="settings: expected one of own, mobilenets, resnet50, tfnas, got 'mobile'"
    ):
        recipes.retrain(run("cifar_joslim"), [], "mobile")


def test_epochs_of_a_run_are_not_rounded_to_whole_updates():
    """1,281,167 images in batches of 160 are 8,007.29 updates; 480 epochs end with update 3,843,500, after 479 decays.

    Of batches of 256, 30 epochs end before update 150,137, where 30 times 5,005 would be 13 updates more.
    """
    config = config_file.load("slimjax:imagenet_snet:model=s_mobilenet_v2", [])
    rate = build_updates(config, 3_843_501, 1_281_167 / 160).schedule(3_843_501)
    assert float(rate(3_843_500)) == pytest.approx(0.045 * 0.98**479, rel=1e-5)
    config = config_file.load("slimjax:imagenet_snet:model=s_resnet50", [])
    rate = build_updates(config, 500_456, 1_281_167 / 256).schedule(500_456)
    assert [float(rate(step)) for step in (150_136, 150_137)] == pytest.approx([0.1, 0.01])
