"""Networks and algorithms of a user's own, in a package of theirs: trained, measured and refused like the others."""

import json
import sys

import numpy as np
import pytest

from helpers.commands import refusal
from slimjax import algorithms, models, registry
from slimjax.errors import BadValue
from slimjax.verbs import cli

NETS = """
import jax
from flax import linen as nn
from slimjax.models import ModelSpec
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding


class MyNet(nn.Module):
    num_classes: int = 10
    dtype: str = "float32"
    norm: type = BatchNorm
    channels: int = 8

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(Group("stem", self.channels), dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="norm")(x, train).map(jax.nn.relu)
        return PoolingHead(self.num_classes, dtype=self.dtype, name="head")(x)


class NeedsChannels(nn.Module):
    channels: int
    num_classes: int = 10
    dtype: str = "float32"
    norm: type = BatchNorm


class Plain(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(Group("stem", 8), name="stem")(FeatureMap.of(images, widths))
        return PoolingHead(self.num_classes, name="head")(BatchNorm(name="norm")(x, train).map(jax.nn.relu))


class NoClasses(nn.Module):
    channels: int = 8


Wide = ModelSpec(MyNet, fields={"channels": 32}, rounding=Rounding("multiple", 8), min_width=0.5)
number = 3
"""
ALGORITHMS = '''
from slimjax.algorithms import snet


def ends(engine, *, middle: float = 0.5, extra: bool = True):
    """An S-Net of three switches."""
    return snet(engine, widths=(0.25, middle, 1.0) if extra else (0.25, 1.0))


def nothing(engine):
    return None


number = 3
'''
TINY = (
    "train.steps=3", "train.batch_size=8", "train.log_every=1", "train.checkpoint_every=3", "devices=1",
    "calibration.images=16", "calibration.batch_size=16", "engine.policy=masked",
)  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package beside which the command line is used. Returns the folder."""
    (tmp_path / "my_things").mkdir()
    (tmp_path / "my_things/__init__.py").write_text("")
    (tmp_path / "my_things/nets.py").write_text(NETS)
    (tmp_path / "my_things/algorithms.py").write_text(ALGORITHMS)
    (tmp_path / "my_things/broken.py").write_text("import not_there_either\n")
    (tmp_path / "my_things/raises.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_things"]:
        del sys.modules[name]


def overrides(*more: str) -> list[str]:
    return [f"--config.{override}" for override in (*TINY, *more)]


def test_a_network_and_an_algorithm_of_ones_own_are_trained_and_evaluated(own, capsys):
    (own / "mine.py").write_text(
        "from slimjax.experiment import recipes\n"
        "def get_config():\n"
        "    config = recipes.embedded('digits')\n"
        "    config.model.name = 'my_things.nets:MyNet'\n"
        "    config.algorithm = recipes.algorithm('my_things.algorithms:ends', middle=0.75)\n"
        "    return config\n"
    )
    more = overrides("model.options.channels=16")
    assert cli.main(["train", "--config", "mine.py", "--workdir", "run", "--json", *more]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["w0.25", "w0.75", "w1.00"]
    assert [row["channels"] for row in rows] == [{"stem": 4}, {"stem": 12}, {"stem": 16}]
    assert all(np.isfinite(row["loss"]) for row in rows)
    written = json.loads((own / "run/config.json").read_text())
    assert written["algorithm"] == {"name": "my_things.algorithms:ends", "middle": 0.75, "extra": True}
    assert cli.main(["evaluate", "--workdir", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["loss"] == pytest.approx(rows[-1]["loss"])


def test_a_network_without_fields_for_them_takes_the_default_type_and_norm_and_no_other(own, capsys):
    (own / "mine.py").write_text(
        "from slimjax.experiment import recipes\n"
        "def get_config():\n"
        "    config = recipes.embedded('digits')\n"
        "    config.model.name = 'my_things.nets:Plain'\n"
        "    return config\n"
    )
    named = ("train", "--config", "mine.py", "--workdir", "run")
    others = ("statistics=device", "variance=two_pass", "unbiased=false", "affine=false")
    message = refusal(
        capsys,
        *named,
        *overrides("model.dtype=bfloat16", *(f"batch_norm.{other}" for other in others)),
    )
    assert (
        "config.model.dtype: expected 'float32', got 'bfloat16', but my_things.nets:Plain has no field"
        in message
    )
    assert "config.batch_norm.statistics: expected 'global', got 'device'" in message
    assert "config.batch_norm.variance: expected 'one_pass', got 'two_pass'" in message
    assert "config.batch_norm.unbiased: expected True, got False" in message
    assert "config.batch_norm.affine: expected True, got False" in message
    assert cli.main([*named, "--json", *overrides("evaluation.widths=0.5,1")]) == 0
    assert [row["channels"] for row in json.loads(capsys.readouterr().out)] == [{"stem": 4}, {"stem": 8}]


def test_cost_knows_networks_of_ones_own(own, capsys):
    assert cli.main(["cost", "--model", "my_things.nets:MyNet", "--width", "0.5", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["channels"] == {"stem": 4}
    assert answer["macs"] == 32 * 32 * 3 * 9 * 4 + 4 * 10


def test_conventions_of_ones_own_are_those_of_a_spec(own):
    spec = models.lookup("my_things.nets:Wide")
    assert (spec.rounding.policy, spec.min_width, spec.fields["channels"]) == ("multiple", 0.5, 32)
    assert models.lookup("my_things.nets:MyNet").rounding.policy == "truncate"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.name=my_thing.nets:MyNet", ["config.model.name: expected PACKAGE.MODULE:NAME", "no module 'my_thing'"]),
        ("model.name=my_things.net:MyNet", ["config.model.name", "no module 'my_things.net' in "]),
        ("model.name=my_things.nets:MyNett", ["has no 'MyNett'. Did you mean 'MyNet'?", "nets.py"]),
        ("model.name=my_things.nets:number", ["config.model.name: expected a flax.linen.Module class", "is 3"]),
        ("model.name=my_things.nets:NoClasses", ["expected a network with a field num_classes", "NoClasses has none"]),
        ("model.name=my_things.broken:X", ["importing 'my_things.broken:X' failed: ModuleNotFoundError", "not_there"]),
        ("model.name=my_things.raises:X", ["importing 'my_things.raises:X' failed: ZeroDivisionError"]),
        ("model.name=my_things.nets:NeedsChannels", ["config.model.options.channels: missing. Expected an integer"]),
        ("model.options.chanels=3", ["config.model.options: my_things.nets:MyNet has no chanels. It has: channels"]),
        ("model.options.channels=many", ["config.model.options.channels: expected int, got 'many'"]),
        ("algorithm.name=my_things.algorithms:end", ["config.algorithm.name", "Did you mean 'ends'?"]),
        ("algorithm.name=my_things.algorithms:number", ["config.algorithm.name: expected a function", "is 3"]),
        ("algorithm.name=my_things.algorithms:nothing", ["config.algorithm.name: expected", "Algorithm, got None"]),
        ("algorithm.midle=0.5", ["config.algorithm: my_things.algorithms:ends has no midle. It has: middle, extra"]),
        ("algorithm.extra=7", ["--config.algorithm.extra=7"]),
        ("algorithm.middle=wide", ["--config.algorithm.middle=wide", "float"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_as_those_with_shipped_ones(own, capsys, override, parts):
    base = ("model.name=my_things.nets:MyNet", "algorithm.name=my_things.algorithms:ends")
    (own / "mine.py").write_text(
        "from slimjax.experiment import recipes\ndef get_config():\n    return recipes.embedded('digits')\n"
    )
    message = refusal(capsys, "train", "--config", "mine.py", "--workdir", "run", *overrides(*base, override))
    assert all(part in message for part in parts), message
    assert not (own / "run").exists()


def test_cost_of_a_network_that_cannot_be_built_says_why(own, capsys):
    message = refusal(capsys, "cost", "--model", "my_things.nets:MyNett")
    message += refusal(capsys, "cost", "--model", "my_things.nets:NeedsChannels")
    assert "model NeedsChannels: expected channels, which have no defaults" in message
    assert "--model: expected PACKAGE.MODULE:NAME, got 'my_things.nets:MyNett'" in message


@pytest.mark.parametrize("known", [models.MODELS, algorithms.ALGORITHMS])
def test_a_name_that_is_nearly_known_is_told_the_nearest(known):
    for name in known:
        assert registry.lookup(name, known) is known[name]
    with pytest.raises(BadValue, match=rf"PACKAGE.MODULE:NAME of your own, got '{name}x'. Did you mean "):
        registry.lookup(f"{name}x", known)
