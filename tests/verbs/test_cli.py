"""The command line under bad input: one message that says what is wrong, exit code 2, nothing on stdout."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.commands import refusal
from helpers.paths import CONFIGS, REPOSITORY
from helpers.runs import untrained
from slimjax.errors import UserError
from slimjax.experiment import config_file, reload
from slimjax.experiment.config import validate
from slimjax.verbs import cli
from slimjax.verbs.cost import cost_of
from slimjax.workdir.rundir import RunDir

DIGITS = str(CONFIGS / "digits_usnet.py")
SNET = str(CONFIGS / "digits_snet.py")
JOSLIM = str(CONFIGS / "digits_joslim.py")
CIFAR = str(CONFIGS / "cifar_usnet.py")


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch):
    """No prepared data, no home directory, and JAX's settings as they were."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_data"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def refused(capsys):
    """Returns a function: arguments -> the message with which they are refused."""

    return functools.partial(refusal, capsys)


@pytest.fixture
def refused_config(refused, tmp_path):
    """Returns a function: a config file's text and overrides -> the message that refuses to train it."""

    def call(text: str, *overrides: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return refused("train", "--config", str(path), "--workdir", str(tmp_path / "run"), *overrides)

    return call


# What is asked of any verb


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["required: VERB"]),
        (["trian"], ["invalid choice: 'trian'", "'train'"]),
        (["cost"], ["required: --model"]),
        (["train", "--config", DIGITS, "--workdir", ""], ["--workdir: expected a directory, got ''"]),
        (["train", "--config", DIGITS, "--workdir", DIGITS], ["--workdir: expected a directory, got '/"]),
        (
            ["train", "--config", str(REPOSITORY), "--workdir", "x"],
            ["--config", str(REPOSITORY), "no such file"],
        ),
        (["train", "--config", DIGITS], ["required: --workdir"]),
        (["cost", "--model", "resnet20", "extra"], ["unexpected arguments: extra"]),
        (["cost", "--mod", "resnet20"], ["required: --model"]),
        (["evaluate", "--workdir", "x", "--config.seed=1"], ["unexpected arguments: --config.seed=1"]),
    ],
)
def test_arguments_that_no_verb_knows_are_refused(refused, arguments, parts):
    message = refused(*arguments)
    assert all(part in message for part in parts)


# cost


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["--model", "resnet-20"],
            ["--model: expected one of us_mobilenet_v1", "got 'resnet-20'. Did you mean 'resnet20'?"],
        ),
        (["--width", "1.5"], ["--width: expected a number above 0 and up to 1, got 1.5"]),
        (["--width", "0"], ["--width", "got 0"]),
        (["--width", "nan"], ["--width", "got nan"]),
        (["--width", "wide"], ["--width", "'wide'"]),
        (["--width", "0.5", "--subnet", "{}"], ["--width or --subnet, not both"]),
        (["--variant", "305M", "--width", "1"], ["--width or --variant, not both"]),
        (["--variant", "305M"], ["resnet20 has no variants", "autoslim_mobilenet_v1, autoslim_mobilenet_v2"]),
        (
            ["--model", "autoslim_mobilenet_v2", "--variant", "306M"],
            ["autoslim_mobilenet_v2 has 207M, 305M, 505M, got '306M'"],
        ),
        (["--subnet", "{"], ["--subnet: expected JSON", "got '{'"]),
        (["--subnet", "[8, 8]"], ['expected an object {"group": channels}, got [8, 8]']),
        (
            ["--subnet", '{"stage9": 8}'],
            ["--subnet: unknown groups ['stage9']", "Groups of this network: stage1"],
        ),
        (["--subnet", '{"stage1": 3}'], ["stage1: 3 (legal: 4 to 16 in steps of 1)"]),
        (["--subnet", '{"stage1": 17}'], ["stage1: 17 (legal: 4 to 16"]),
        (["--subnet", '{"stage1": 8.5}'], ["stage1: 8.5 (legal"]),
        (["--subnet", '{"stage1": "8"}'], ["stage1: '8' (legal"]),
        (["--multiplier", "0"], ["--multiplier: expected a number above 0, got 0"]),
        (["--multiplier", "nan"], ["--multiplier: expected a number above 0, got nan"]),
        (["--multiplier", "1.5"], ["--multiplier: expected a whole number for resnet20, got 1.5"]),
        (["--model", "resnet50", "--multiplier", "1.5"], ["unknown fields ['multiplier']"]),
        (["--model", "s_shufflenet", "--width", "2.5"], ["expected a number above 0 and up to 2, got 2.5"]),
        (
            ["--model", "s_shufflenet", "--subnet", '{"stem": 25}'],
            ["stem: 25 (legal: 12 to 48 in steps of 3)"],
        ),
        (["--num-classes", "-1"], ["--num-classes: expected a number above 0, got -1"]),
        (["--image-size", "0"], ["--image-size: expected a number above 0, got 0"]),
        (["--divisor", "0"], ["--divisor: expected a number above 0, got 0"]),
        (["--divisor", "4", "--subnet", '{"stage1": 6}'], ["stage1: 6 (legal: 4 to 16 in steps of 4)"]),
    ],
)
def test_cost_refuses(refused, arguments, parts):
    model = [] if "--model" in arguments else ["--model", "resnet20"]
    message = refused("cost", "--json", *model, *arguments)
    assert all(part in message for part in parts)


def test_cost_refuses_channels_off_the_grid(refused):
    message = refused("cost", "--model", "us_mobilenet_v1", "--subnet", '{"stem": 12}')
    assert "stem: 12 (legal: 8 to 32 in steps of 8)" in message


def test_cost_prints_one_line_of_json(capsys):
    assert cli.main(["cost", "--model", "resnet20", "--width", "0.5", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [cost_of("resnet20", width=0.5)]


def test_cost_of_a_variant_is_that_of_its_channels(capsys):
    assert cli.main(["cost", "--model", "autoslim_mobilenet_v1", "--variant", "150M", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["variant"], answer["width"], answer["macs"]) == ("150M", None, 149_861_584)
    subnet = cost_of("autoslim_mobilenet_v1", subnet=answer["channels"])
    assert {**subnet, "variant": "150M"} == answer


def test_cost_is_of_the_full_network_by_default():
    assert cost_of("s_shufflenet") == cost_of("s_shufflenet", width=2.0)


def test_cost_answers_below_the_trained_range():
    assert cost_of("us_mobilenet_v2", width=0.25)["macs"] < 59_348_528


def test_cost_prints_units_for_people(capsys):
    assert cli.main(["cost", "--model", "resnet20", "--num-classes", "10"]) == 0
    assert "macs  40,551,040" in capsys.readouterr().out


# train: overrides


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("lrr=1", ["config.lrr: no such field", "optimizer", "train"]),
        ("lrr=fast", ["config.lrr: no such field"]),
        ("trian.steps=1", ["overrides of", "'trian'", 'Did you mean "train"']),
        ("seed.steps=1", ["overrides of", "seed.steps"]),
        ("batch_size=4", ["config.batch_size: no such field", "Did you mean train.batch_size"]),
        ("optimizer.learning_rat=1", ["Did you mean optimizer.learning_rate?"]),
        ("algorithm.num_subnet=3", ["config.algorithm: usnet has no num_subnet", "num_subnets"]),
        ("algorithm.num_subnets=two", ["--config.algorithm.num_subnets=two", "int"]),
        ("model.options.dtype=float32", ["config.model.options: resnet8 has no dtype"]),
        ("algorithm.num_subnets=0", ["config.algorithm.num_subnets: expected at least 1", "got 0"]),
        (
            "algorithm.student_target=x",
            ["config.algorithm.student_target: expected one of labels", "both, got 'x'"],
        ),
        ("model.options.chanels=1", ["config.model.options: resnet8 has no chanels", "channels"]),
        ("model.options.stem_stride=two", ["config.model.options.stem_stride: expected int, got 'two'"]),
        ("model.options.channels=(0,8,8)", ["expected at least 1 channel, got 0"]),
        ("train.batch_size=64.5", ["--config.train.batch_size=64.5", "int"]),
        ("train=3", ["--config.train=3", "not a dict"]),
        ("train.batch_size=-4", ["config.train.batch_size: expected a whole number of at least 1, got -4"]),
        (
            "train.batch_size=63",
            ["config.train.batch_size: expected a multiple of 8", "got 63", "Nearest: 64"],
        ),
        ("devices=9", ["config.devices: expected at most 8", "got 9"]),
        ("calibration.images=100", ["calibration.images: expected a multiple", "(128)", "got 100"]),
        (
            "optimizer.learning_rate=nan",
            ["config.optimizer.learning_rate: expected a number above 0, got nan"],
        ),
        ("optimizer.schedule=step", ["config.optimizer.schedule", "multistep", "'step'"]),
        ("model.name=resnet21", ["config.model.name: expected one of", "resnet20", "got 'resnet21'"]),
        ("model.min_width=1.5", ["config.model.min_width: expected a number above 0 and up to 1", "1.5"]),
        ("algorithm.name=autoslim2", ["config.algorithm.name: expected one of", "'autoslim2'"]),
        ("data.augment=blur", ["config.data.augment: expected one of", "'blur'"]),
        ("evaluation.widths=abc", ["config.evaluation.widths: expected a tuple of numbers", "('abc',)"]),
        ("evaluation.widths=0.1,1", ["config.evaluation.widths: expected 0.25", "[0.1]"]),
        ("evaluation.widths=0.5,1.5", ["config.evaluation.widths: expected 0.25", "to 1, got [1.5]"]),
        ("evaluation.split=holdout", ["images in split 'holdout'", "Set data.holdout"]),
        ("data.num_classes=11", ["expected num_classes 11 (from the config), got 10 in the data"]),
        ("data.holdout=1297", ["data.holdout from 0 to 1296, got 1297"]),
        ("data.name=../digits", ["data.name", "'../digits'"]),
        ("data.name=digit", ["data set 'digit'"]),
    ],
)
def test_train_refuses_override(refused, tmp_path, override, parts):
    message = refused("train", "--config", DIGITS, "--workdir", str(tmp_path / "run"), f"--config.{override}")
    assert all(part in message for part in parts), message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("history=10", "config.algorithm.history: expected a whole number of at least 22, got 10."),
        ("search.beta=-1", "config.algorithm.search.beta: expected a number of at least 0, got -1."),
        ("search.betta=1", "config.algorithm.search: no betta. It has: beta, "),
    ],
)
def test_options_of_an_algorithm_are_named_as_the_user_writes_them(refused, tmp_path, override, message):
    arguments = ["--workdir", str(tmp_path / "run"), f"--config.algorithm.{override}"]
    assert f": error: {message}" in refused("train", "--config", JOSLIM, *arguments)


def test_train_refuses_an_override_without_equals_sign(refused, tmp_path):
    message = refused("train", "--config", DIGITS, "--workdir", str(tmp_path), "--config.seed", "5")
    assert "unexpected arguments: 5. Config fields are set by --config.key=value" in message


def test_config_takes_widths_up_to_the_largest_of_the_model():
    overrides = ["--config.model.name=s_shufflenet", "--config.evaluation.widths=0.5,2"]
    validate(config_file.load(CIFAR, overrides), device_count=8)


def test_train_reports_all_mistakes_at_once(refused, tmp_path):
    mistakes = ("train.batch_size=-4", "optimizer.learning_rate=nan", "evaluation.widths=abc", "lrr=1")
    overrides = [f"--config.{mistake}" for mistake in mistakes]
    message = refused("train", "--config", DIGITS, "--workdir", str(tmp_path), *overrides)
    assert "4 mistake(s)" in message
    assert all(f"config.{mistake.split('=')[0]}: " in message for mistake in mistakes)


def test_train_refuses_widths_that_are_no_switches(refused, tmp_path):
    arguments = ["--config", SNET, "--workdir", str(tmp_path), "--config.evaluation.widths=0.3,1"]
    message = refused("train", *arguments)
    assert "w0.30: a slimmable network runs at its switches only (w1.00, w0.75, w0.50, w0.25" in message


def test_train_says_what_data_to_prepare_and_where(refused, tmp_path):
    message = refused("train", "--config", CIFAR, "--workdir", str(tmp_path / "run"))
    assert f"tfds build cifar10 --file_format=array_record --data_dir={tmp_path / 'no_data'}" in message


def test_workdir_may_be_relative(tmp_path, monkeypatch):
    """Orbax refuses relative paths, and says so only when the first checkpoint is due."""
    monkeypatch.chdir(tmp_path)
    arguments = cli.make_parser().parse_args(["train", "--config", "x.py", "--workdir", "runs/x"])
    assert arguments.workdir == str(tmp_path / "runs/x")


def test_override_sets_the_field():
    assert config_file.load(DIGITS, ["--config.optimizer.learning_rate=0.5"]).optimizer.learning_rate == 0.5


def test_override_gives_the_model_an_argument_that_the_file_does_not_name():
    assert config_file.load(DIGITS, ["--config.model.options.stem_stride=2"]).model.options.stem_stride == 2


# train: config files


def test_config_file_that_is_missing_is_named(refused, tmp_path):
    message = refused("train", "--config", str(tmp_path / "none.py"), "--workdir", str(tmp_path))
    assert f"{tmp_path / 'none.py'}" in message
    assert "no such file" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("\nx = 1 / 0\n", ["mine.py, line 2: ZeroDivisionError"]),
        ("def get_config(:\n", ["mine.py, line 1: SyntaxError"]),
        ("import no_such_module\n", ["mine.py, line 1: ModuleNotFoundError", "no_such_module"]),
        ("x = 1\n", ["mine.py: expected a function get_config()", "no such function"]),
        ("def get_config():\n    return None\n", ["returns a ConfigDict, got NoneType"]),
        (
            "from slimjax.experiment import recipes\ndef get_config():\n    return recipes.cifra(10)\n",
            ["mine.py, line 3: AttributeError", "'cifra'"],
        ),
    ],
)
def test_config_file_that_fails_is_named_with_its_line(refused_config, text, parts):
    message = refused_config(text, "--config.seed=1")
    assert all(part in message for part in parts), message


def test_unknown_fields_in_a_config_file_are_all_named(refused_config):
    message = refused_config(
        "from slimjax.experiment import recipes\n"
        "def get_config():\n"
        "    config = recipes.embedded('digits')\n"
        "    config.data.nmae = 'digits'\n"
        "    config.train.batchsize = 64\n"
        "    return config\n"
    )
    assert "config.data.nmae: no such field. Did you mean data.name" in message
    assert "config.train.batchsize: no such field. Did you mean train.batch_size" in message


def test_missing_fields_of_a_config_file_are_named(refused_config):
    message = refused_config(
        "from slimjax.experiment import recipes\n"
        "def get_config():\n"
        "    config = recipes.embedded('digits')\n"
        "    del config.optimizer.momentum\n"
        "    return config\n"
    )
    assert "config.optimizer.momentum: missing" in message


# evaluate


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a function: config file -> workdir of a run of it with a checkpoint, of untrained weights."""

    def make(path: str) -> str:
        return untrained(config_file.load(path, ["--config.devices=1"]), tmp_path_factory.mktemp("run"))

    return make


@pytest.fixture(scope="module")
def usnet_run(trained) -> str:
    return trained(DIGITS)


def test_evaluate_refuses_a_directory_that_is_no_run(refused, tmp_path):
    message = refused("evaluate", "--workdir", str(tmp_path))
    assert f"{tmp_path}: expected a training run, but it has no config.json" in message


def test_evaluate_refuses_a_damaged_config(refused, tmp_path):
    RunDir(tmp_path).record("{}")
    (tmp_path / "config.json").write_text('{"seed": ')
    assert f"{tmp_path / 'config.json'}: expected the config" in refused(
        "evaluate", "--workdir", str(tmp_path)
    )


def test_evaluate_refuses_a_run_without_a_checkpoint(refused, tmp_path):
    RunDir(tmp_path).record(config_file.load(DIGITS, []).to_json_best_effort())
    assert "no checkpoint yet. Train first" in refused("evaluate", "--workdir", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--widths", "0.2"], ["--widths: expected a number from 0.25 to 1, got 0.2"]),
        (["--widths", "0.5,1.01"], ["--widths: expected a number from 0.25 to 1, got 1.01"]),
        (["--widths", "nan"], ["got nan"]),
        (["--widths", "half"], ["--widths: expected numbers such as 0.25,0.5,1, got 'half'"]),
        (["--subnet", '{"stage4": 8}'], ["unknown groups ['stage4']"]),
        (["--subnet", '{"stage1": 1}'], ["stage1: 1 (legal: 2 to 8"]),
        (["--subnet", "8"], ["expected an object", "got 8"]),
        (["--subnet", "stage1=8"], ["--subnet: expected JSON", "'stage1=8'"]),
    ],
)
def test_evaluate_refuses(refused, usnet_run, arguments, parts):
    message = refused("evaluate", "--workdir", usnet_run, *arguments)
    assert all(part in message for part in parts)


def test_evaluate_refuses_a_width_that_is_no_switch(refused, trained):
    message = refused("evaluate", "--workdir", trained(SNET), "--widths", "0.3")
    assert "w0.30: a slimmable network runs at its switches only" in message


def test_evaluate_of_damaged_checkpoints_fails_with_one_message(trained, capsys):
    directory = Path(trained(DIGITS))
    for file in directory.glob("checkpoints/*/state/**/*"):
        if file.is_file():
            file.write_bytes(b"")
    assert cli.main(["evaluate", "--workdir", str(directory)]) == 1
    assert "slimjax evaluate: error: " in capsys.readouterr().err


def test_subnet_of_the_wrong_length_names_the_groups(usnet_run):
    space = reload.experiment_of(RunDir(usnet_run)).net.space
    with pytest.raises(UserError, match=r"expected 6 entries \(stage1, .*\), got 5"):
        space.check(np.zeros(5, np.int32))


# As a program


@pytest.mark.parametrize("arguments", [["cost", "--model", "resnet-20"], ["trian"]])
def test_program_exits_with_2_and_no_traceback(arguments):
    command = [sys.executable, "-m", "slimjax", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_program_prints_nothing_but_json(tmp_path):
    command = [sys.executable, "-m", "slimjax", "cost", "--model", "resnet20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ, check=True)
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["model"] == "resnet20"
