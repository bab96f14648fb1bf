"""`slimjax config` and `slimjax configs`, and the help that a config file gives."""

import json
import os
import subprocess
import sys

import pytest

from helpers.commands import refusal
from helpers.paths import CONFIGS, REPOSITORY
from helpers.shipped import combinations
from slimjax.experiment import config_file
from slimjax.verbs import cli

WIDE = "slimjax:digits_joslim:wide=true"


def printed(capsys, *arguments: str) -> str:
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_config_prints_every_setting_once_and_sections_apart(capsys):
    paragraphs = printed(capsys, "config", "--config", WIDE).split("\n\n")
    names = [[line[2:].split()[0] for line in paragraph.splitlines()] for paragraph in paragraphs]
    assert names[0] == ["seed", "devices"]
    assert all(len({name.partition(".")[0] for name in group}) == 1 for group in names[1:])
    found = [name for group in names for name in group]
    assert len(found) == len(set(found))
    assert {"data.name", "model.options.channels", "algorithm.search_seed", "evaluation.widths"} <= set(found)


def test_config_marks_what_differs_from_the_defaults(capsys):
    out = printed(capsys, "config", "--config", WIDE, "--config.optimizer.momentum=0.8")
    marked = {line.split()[1]: line.split(None, 2)[2] for line in out.splitlines() if line.startswith("*")}
    assert marked["optimizer.momentum"] == "0.8  (default: 0.9)"
    assert marked["algorithm.steps_per_round"] == "10  (default: 235)"
    assert marked["algorithm.search.bound"] == '"lower"  (not set by default)'
    assert marked["model.options.channels"] == "[64, 128, 256]  (default: [16, 32, 64])"
    assert not {"algorithm.num_sampled", "optimizer.nesterov", "seed", "devices"} & set(marked)


def test_config_as_json_is_what_a_run_writes_down(capsys):
    answer = json.loads(printed(capsys, "config", "--config", WIDE, "--json"))
    assert answer["config"] == json.loads(config_file.load(WIDE, []).to_json_best_effort())
    assert answer["changed"]["algorithm.steps_per_round"] == 235
    assert "seed" not in answer["changed"]


def test_empty_sections_do_not_differ(capsys):
    assert (
        "model.options"
        not in json.loads(printed(capsys, "config", "--config", "slimjax:cifar_usnet", "--json"))["changed"]
    )


def test_config_refuses_what_a_run_would(capsys):
    message = refusal(capsys, "config", "--config", WIDE, "--config.seed=-1", "--config.train.lr=1")
    assert "2 mistake(s)" in message


def test_configs_lists_every_shipped_config_with_its_arguments(capsys):
    paragraphs = printed(capsys, "configs").strip().split("\n\n")
    names = [paragraph.splitlines()[0] for paragraph in paragraphs]
    assert names == [f"slimjax:{path.stem}" for path in sorted(CONFIGS.glob("*.py"))]
    assert paragraphs[names.index("slimjax:cifar_joslim")].splitlines()[1:] == [
        "  Joslim on CIFAR-10 or -100: a ResNet at any channels from 0.42 to 1 of each group.",
        "  model=resnet20  one of resnet20, resnet32, resnet44, resnet56",
        "  classes=10      one of 10, 100",
    ]


def test_configs_as_json_have_names_that_load_with_the_defaults_that_they_state(capsys):
    found = json.loads(printed(capsys, "configs", "--json"))["configs"]
    assert len(found) == len({name.partition(":")[0] for name in combinations()})
    for entry in found:
        stated = ",".join(f"{name}={a['default']}" for name, a in entry["arguments"].items())
        named = ":".join(filter(None, [entry["name"], stated]))
        assert config_file.load(named, []) == config_file.load(entry["path"], [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--workdir", "run", "--config"],
        ["config", "--config"],
        ["compile", "--topology", "v5e:2x2", "--config"],
        ["profile", "--target", "cpu", "--out", "t.json", "--config"],
        ["bench", "step", "--config"],
    ],
)
def test_help_of_a_config_file_is_printed_by_every_verb_that_takes_one(capsys, arguments):
    lines = printed(capsys, *arguments, f"{CONFIGS / 'cifar_joslim.py'}:help").splitlines()
    assert lines[0].endswith(
        "cifar_joslim.py: Joslim on CIFAR-10 or -100: a ResNet at any channels from 0.42 to 1 of each group."
    )
    assert lines[1:] == [
        "Arguments, with their defaults:",
        "  model=resnet20  one of resnet20, resnet32, resnet44, resnet56",
        "  classes=10      one of 10, 100",
    ]


def test_shipped_configs_are_known_in_any_folder(tmp_path):
    command = [
        sys.executable,
        "-m",
        "slimjax",
        "config",
        "--json",
        "--config",
        "slimjax:cifar_usnet:classes=100",
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert json.loads(done.stdout)["config"]["data"]["name"] == "cifar100"
