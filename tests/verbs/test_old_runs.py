"""A run that another schema's slimjax wrote is refused by every verb, with one message that says which it was."""

import json
from pathlib import Path

import pytest

import slimjax
from helpers.paths import CONFIGS
from slimjax.experiment import config_file
from slimjax.verbs import cli
from slimjax.workdir.versions import SCHEMA

DIGITS = str(CONFIGS / "digits_usnet.py")
ROW = {
    "name": "w1.00",
    "width": 1.0,
    "channels": {"stage1": 8},
    "macs": 12480,
    "params": 1242,
    "top1": 0.9,
    "top1_uncalibrated": 0.9,
    "loss": 0.3,
}
VERBS = {
    "train": ("--config", DIGITS),
    "evaluate": (),
    "search": ("--budget", "macs<=0.5"),
    "report": ("--out", "page.html"),
}


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """What slimjax 0.1.0 leaves behind, but for its checkpoints: nothing says who wrote it."""
    monkeypatch.chdir(tmp_path)
    versions = {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8", "platform": "cpu", "device": "1 x cpu"}
    directory = tmp_path / "old"
    directory.mkdir()
    (directory / "config.json").write_text(config_file.load(DIGITS, []).to_json_best_effort())
    (directory / "versions.json").write_text(json.dumps(versions, indent=2))
    (directory / "front.json").write_text(json.dumps([ROW], indent=1))
    (directory / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "max/loss": 2.3}\n')
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_of_the_former_version_is_refused_and_left_as_it_is(verb, old_run, capsys):
    before = contents(old_run)
    assert cli.main([verb, "--workdir", str(old_run), *VERBS[verb]]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"slimjax {verb}: error: {old_run} was written by slimjax 0.1.0 or earlier with jax 0.10.2 (schema none); "
        f"this is slimjax {slimjax.__version__}, which reads schema {SCHEMA} only. Take another workdir, or the "
        "slimjax that wrote it.\n",
    )
    assert contents(old_run) == before
