"""`slimjax bench bisampling`: what it says, and that paths compile nothing."""

import json

import pytest

from helpers.commands import refusal
from helpers.tfnas import OVERRIDES
from slimjax.bench import bisampling
from slimjax.verbs import cli

COMMAND = ["bench", "bisampling", "--repeats", "1"]


@pytest.fixture
def answer(monkeypatch, capsys):
    monkeypatch.setattr(bisampling, "PAIRS", 1)
    given = ["--config.train.steps=6", "--config.train.batch_size=8", *OVERRIDES]
    assert cli.main([*COMMAND, "--paths", "20", "--json", "--config", "configs/digits_tfnas.py", *given]) == 0
    return json.loads(capsys.readouterr().out)


def test_answer_has_times_ratios_and_what_was_compiled(answer):
    times = {name: answer.pop(name) for name in ("bisampling", "single_path", "slices", "pair")}
    assert min(times.values()) > 0
    both = times["bisampling"]
    want = {"single_path": times["single_path"], "two_slices": 2 * times["slices"], "pair": times["pair"]}
    for name, ms in want.items():
        assert answer[f"ratio_to_{name}"] == pytest.approx(both / ms)
    assert answer["paths"] >= 20
    # Drawing, images, a gradient of the first path and one of the second, the update.
    assert answer["compiles"] == 5
    assert (answer["config"], answer["unit"], answer["batch"]) == ("digits tfnas", "ms", [8, 8, 8, 1])


def test_systems_that_draw_no_paths_are_refused(capsys):
    message = refusal(capsys, *COMMAND, "--config", "configs/digits_usnet.py")
    assert "expected an algorithm that draws two paths a step, such as tfnas, got usnet" in message
