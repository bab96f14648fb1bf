"""Every option is used or refused, and what only prints answers at once."""

import argparse
import re
import subprocess
import sys

import pytest

import slimjax
from helpers.commands import refusal
from helpers.paths import CONFIGS
from slimjax.errors import BadValue, UserError
from slimjax.verbs import arguments, cli, options

DIGITS = str(CONFIGS / "digits_usnet.py")
# The least that each command asks for.
LEAST = {
    "train": ["--config", DIGITS, "--workdir", "run"],
    "config": ["--config", DIGITS],
    "configs": [],
    "evaluate": ["--workdir", "run"],
    "search": ["--workdir", "run", "--budget", "macs<=0.5"],
    "cost": ["--model", "resnet8"],
    "profile": ["--model", "resnet8", "--out", "t.json", "--target", "cpu"],
    "report": ["--out", "p.html", "--tables", "t.json"],
    "compile": ["--config", DIGITS, "--topology", "v5e:2x2"],
    "bench claims": [],
    "bench step": ["--config", DIGITS],
    "bench table": ["--table", "t.json"],
    "bench costs": ["--model", "resnet8"],
    "bench search": [],
    "bench elasticity": [],
    "bench staircase": ["--table", "t.json"],
    "bench device": ["--out", "d.json"],
    "bench input": ["--config", DIGITS],
    "bench bisampling": ["--config", DIGITS],
    "bench rescore": ["--model", "resnet8"],
}


def taken(command: str) -> set[str]:
    """The options of a command."""
    parser = argparse.ArgumentParser(add_help=False)
    known = {**options.VERBS, **{f"bench {tool}": found for tool, found in options.BENCHES.items()}}
    known[command][1](parser)
    return set(re.findall(r"--[\w-]+", parser.format_usage()))


def test_the_table_of_commands_is_whole():
    tools = {f"bench {tool}" for tool in options.BENCHES}
    assert set(LEAST) == {*options.VERBS, *tools} - {"bench"}


@pytest.mark.parametrize("command", LEAST)
def test_a_command_takes_what_it_asks_for(command):
    found, overrides = cli.parse([*command.split(), *LEAST[command]])
    assert overrides == []
    assert " ".join(filter(None, [found.verb, getattr(found, "tool", None)])) == command


@pytest.mark.parametrize("command", LEAST)
def test_an_option_of_another_command_is_refused(command):
    foreign = set().union(*map(taken, LEAST)) - taken(command)
    assert len(foreign) > 10
    for option in sorted(foreign - {"--config"}):
        with pytest.raises(UserError, match=rf"^unexpected arguments: {option} 1\. "):
            cli.parse([*command.split(), *LEAST[command], option, "1"])


@pytest.mark.parametrize("command", [name for name in LEAST if "--config" not in LEAST[name]])
def test_overrides_without_a_config_are_refused(command):
    with pytest.raises(
        UserError, match=rf"^unexpected arguments: --config\.seed=1\. See slimjax {command} --help\.$"
    ):
        cli.parse([*command.split(), *LEAST[command], "--config.seed=1"])


@pytest.mark.parametrize("command", [name for name in LEAST if "--config" in LEAST[name]])
def test_overrides_of_a_config_are_kept_in_order(command):
    overrides = ["--config.seed=1", "--config.train.steps=3"]
    assert cli.parse([*command.split(), *LEAST[command], *overrides])[1] == overrides


def test_bench_names_its_tools(capsys):
    assert "required: TOOL" in refusal(capsys, "bench")
    assert "invalid choice: 'sterp' (choose from 'claims', 'step'" in refusal(capsys, "bench", "sterp")
    assert "slimjax bench: error: unexpected arguments: --model x." in refusal(
        capsys, "bench", "search", "--model", "x"
    )


SEARCH = ["search", "--workdir", "run", "--budget", "macs<=0.5", "--method"]
PROFILE = ["profile", "--model", "resnet8", "--out", "t.json", "--target"]
ESTIMATE = ["bench", "step", "--config", DIGITS, "--target", "tpu-v5e"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*SEARCH, "greedy", "--trials", "9"], "--trials: --method greedy does not use it."),
        ([*SEARCH, "greedy", "--seed", "0"], "--seed: --method greedy does not use it."),
        ([*SEARCH, "history", "--trials", "9"], "--trials: --method history does not use it."),
        ([*SEARCH, "history", "--seed", "1"], "--seed: --method history does not use it."),
        ([*SEARCH, "history", "--images", "64"], "--images: --method history does not use it."),
        ([*SEARCH, "history", "--split", "holdout"], "--split: --method history does not use it."),
        ([*SEARCH, "history", "--reorder", "l1"], "--reorder: --method history does not use it."),
        ([*SEARCH, "elastic", "--trials", "9"], "--trials: --method elastic does not use it."),
        ([*SEARCH, "elastic", "--images", "64"], "--images: --method elastic does not use it."),
        ([*SEARCH[:-1], "--from", "arch.json"], "--from: --method bayes does not use it."),
        ([*SEARCH, "greedy", "--from", "arch.json"], "--from: --method greedy does not use it."),
        (
            ["cost", "--model", "resnet8", "--monotone"],
            "--monotone: repairs a table. Give one: --table FILE.",
        ),
        (
            [*PROFILE, "tpu-v5e", "--repeats", "3"],
            "--repeats: rounds are timed on cpu or gpu or tpu; tpu-v5e is not",
        ),
        (
            [*PROFILE, "roofline:a100", "--repeats", "7"],
            "--repeats: rounds are timed on cpu or gpu or tpu; roofline",
        ),
        (["report", "--tables", "a", "--table", "b", "--out", "p"], "--table: goes with --workdir."),
        ([*ESTIMATE, "--repeats", "3"], "--repeats: nothing is timed: tpu-v5e is estimated."),
        (
            [*ESTIMATE, "--against", "torch"],
            "--against: PyTorch can be timed on this machine, not estimated for tpu",
        ),
    ],
)
def test_an_option_that_nothing_would_use_is_refused(capsys, command, message):
    assert f": error: {message}" in refusal(capsys, *command)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["bench", "search", "--dims", "1"], "--dims: expected a whole number of at least 2, got 1."),
        (["bench", "search", "--repeats", "0"], "--repeats: expected a whole number of at least 1, got 0."),
        (
            ["bench", "claims", "--only", "snet,unet"],
            "--only: expected one of snet, usnet, autoslim, bignas, joslim",
        ),
        (["bench", "claims", "--seeds", "0"], "--seeds: expected a whole number of at least 1, got 0."),
        (["bench", "costs", "--model", "resnet7"], "--model: expected one of us_mobilenet_v1, "),
        (
            ["bench", "costs", "--model", "resnet8", "--subnets", "0"],
            "--subnets: expected a whole number of at",
        ),
        (
            ["bench", "rescore", "--model", "resnet8", "--spread", "-1"],
            "--spread: expected a number of at least 0",
        ),
        (
            ["bench", "step", "--config", DIGITS, "--repeats", "0"],
            "--repeats: expected a whole number of at least 1",
        ),
        (
            ["bench", "elasticity", "--subnets", "0"],
            "--subnets: expected a whole number of at least 1, got 0.",
        ),
        ([*PROFILE, "cpu", "--timeout", "-1"], "--timeout: expected a number above 0, got -1.0."),
        (
            [*PROFILE, "cpu", "--min-width", "2"],
            "--min-width: expected a number above 0 and up to 1, got 2.0.",
        ),
        ([*SEARCH, "bayes", "--trials", "0"], "--trials: expected a whole number of at least 1, got 0."),
        ([*SEARCH[:-1], "macs<0.5"], "--budget: expected COST<=NUMBER"),
    ],
)
def test_a_value_is_refused_by_the_option_that_gave_it(capsys, tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("slimjax.verbs.answers.start_jax", lambda: None)
    assert f": error: {message}" in refusal(capsys, *command)


def test_a_name_that_no_option_gave_stays_as_it_is():
    given = argparse.Namespace(model="resnet8", width=None, widths=None)
    assert arguments.as_written("name", given) == "--model"
    assert arguments.as_written("width", given) == "width"
    assert arguments.as_written("config.seed", given) == "config.seed"
    assert str(BadValue("width", "wide.")) == "width: wide."


def test_help_and_version_import_no_jax():
    words = [["--version"], ["--help"], *([*command.split(), "--help"] for command in [*LEAST, "bench"])]
    code = (
        "import contextlib, sys\n"
        "from slimjax.verbs import cli\n"
        f"for words in {words}:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        sys.exit(f'{words} did not end: {cli.main(words)}')\n"
        "loaded = {name.partition('.')[0] for name in sys.modules} & {'jax', 'flax', 'numpy', 'tensorflow'}\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: slimjax") == len(words) - 1


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"slimjax {slimjax.__version__}\n"
