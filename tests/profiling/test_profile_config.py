"""`slimjax profile --config`: the table is of the network that the config builds, and says so in JSON."""

import json
import re

import pytest

from helpers.paths import CONFIGS
from slimjax.cost import latency, units
from slimjax.errors import UserError
from slimjax.experiment import build, config_file
from slimjax.models.mobilenet_v3 import LARGE
from slimjax.supernet import named
from slimjax.verbs import cli

CIFAR = str(CONFIGS / "cifar_usnet.py")
DIGITS = str(CONFIGS / "digits_joslim.py")
OVERRIDES = ["--config.model.divisor=4", "--config.model.rounding=multiple", "--config.model.min_width=0.3"]


def own_net():
    return build.build_net(config_file.load(DIGITS, OVERRIDES), (8, 8, 1), 10)


def run(capsys, *arguments):
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def table(folder):
    """A roofline table, so quick, of a config with overrides."""
    out, cache = str(folder / "table.json"), str(folder / "cache")
    command = ["profile", "--config", DIGITS, *OVERRIDES, "--target", "roofline:a100", "--points", "3"]
    assert cli.main([*command, "--batch", "4", "--processes", "1", "--cache", cache, "--out", out]) == 0
    return out


def test_a_configs_table_covers_its_own_space(table):
    net, found = own_net(), latency.load(table)
    assert set(found.entries) == {unit.key for unit in units.divide(net.records)}
    assert (net.latency(found)(net.space.random(50, seed=0)) > 0).all()
    assert named("resnet8").space != net.space


def test_a_configs_table_says_what_rebuilds_its_network(table):
    net, again = own_net(), named(**latency.load(table).about["network"])
    assert again.space == net.space
    assert again.records.layers == net.records.layers
    model = again.model
    assert (model.channels, model.num_classes, again.image_shape) == ((8, 16, 32), 10, (8, 8, 1))


def test_a_configs_table_is_compared_with_whole_networks(table, folder, capsys):
    cache = str(folder / "cache")
    arguments = ["--table", table, "--subnets", "2", "--processes", "1", "--cache", cache]
    answer = run(capsys, "bench", "table", *arguments)
    assert 0.5 < answer["bias"] < 2


@pytest.mark.parametrize("name", ["resnet20", "us_mobilenet_v2", "mobilenet_v3_large", "autoslim_resnet50"])
def test_a_config_that_changes_nothing_describes_the_papers_network(name):
    paper = named(name)
    config = config_file.load(CIFAR, [f"--config.model.name={name}", "--config.data.name=synthetic"])
    written = json.dumps(build.network(config, paper.image_shape, 10))
    again, plain = named(**json.loads(written)), named(name, num_classes=10)
    assert again.space == plain.space
    assert again.records.layers == plain.records.layers


def test_a_tuple_of_tuples_survives_the_words_of_files():
    stages = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3))
    written = json.dumps({"name": "us_mobilenet_v2", "options": {"stages": stages}})
    assert named(**json.loads(written)).model.stages == stages


def test_published_data_need_not_be_there_to_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    found = build.read_network(config_file.load(CIFAR, []))
    assert (found["image_shape"], found["num_classes"]) == ([32, 32, 3], 10)


def test_options_that_no_file_can_say_are_refused():
    config = config_file.load(DIGITS, ["--config.model.name=mobilenet_v3_large"])
    config.model.options = {"blocks": LARGE}  # rows hold activations
    with pytest.raises(UserError, match=r"config\.model\.options: expected numbers, texts and tuples"):
        build.read_network(config)


FLAGS = ("multiplier=2", "num-classes=5", "image-size=8", "divisor=8", "dtype=bfloat16", "min-width=0.5")
TO = ["--target", "roofline:a100", "--out"]


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_of_named_networks_are_refused_beside_a_config(flag, capsys, tmp_path):
    name, value = flag.split("=")
    assert cli.main(["profile", "--config", DIGITS, f"--{name}", value, *TO, str(tmp_path / "t.json")]) == 2
    message = capsys.readouterr().err
    field = re.search(rf"--{name}: goes with --model\. With --config write --config\.(\S+)=VALUE", message)[1]
    if field != "model.options.multiplier":  # not every model has it
        assert field.split(".")[1] in config_file.load(DIGITS, [])[field.split(".")[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet8", "--config", DIGITS], "argument --config: not allowed with argument --model"),
        ([], "one of the arguments --model --config is required"),
        (["--model", "resnet8", "--config.seed=1"], "unexpected arguments: --config.seed=1"),
        (["--config", DIGITS, "--config.model.name=resnet9"], "config.model.name: expected one of"),
        (["--config", DIGITS, "--config.model.options.chanels=3"], "resnet8 has no chanels"),
    ],
)
def test_what_cannot_be_profiled_by_config_is_said_in_one_message(arguments, message, capsys, tmp_path):
    assert cli.main(["profile", *arguments, *TO, str(tmp_path / "t.json")]) == 2
    assert message in capsys.readouterr().err
