"""All measurements of a device: parts are kept as they come, and what is missing is said."""

import json

import pytest

from slimjax.bench import device
from slimjax.errors import UserError
from slimjax.verbs import cli


@pytest.fixture
def asked(monkeypatch):
    """The parts that were asked; a part whose name is in `failing` has no answer."""
    monkeypatch.setattr(device, "_hello", lambda: ("0.1", 2, "cpu", "made up"))
    found = []

    def ask(part, seconds):
        found.append(part.name)
        return "it broke" if part.name in failing else {"full": 1.5, "ratio_to_against": 0.9}

    failing = set()
    monkeypatch.setattr(device, "_ask", ask)
    return found, failing


def test_a_later_call_goes_on_with_the_parts_that_are_missing(asked, tmp_path):
    names, failing = asked
    failing.add("input")
    out = str(tmp_path / "d.json")
    first = device.run(out)
    assert list(first["missing"]) == ["input"]
    assert "input: not measured: it broke" in (tmp_path / "d.html").read_text()
    names.clear()
    failing.clear()
    second = device.run(out)
    assert names == ["input"]
    assert second["missing"] == {}
    assert json.loads((tmp_path / "d.json").read_text())["parts"] == second["parts"]
    assert "2 x made up" in (tmp_path / "d.html").read_text()


@pytest.mark.usefixtures("asked")
def test_measurements_of_another_device_are_not_lost(tmp_path, monkeypatch):
    out = tmp_path / "d.json"
    device.run(str(out))
    before = out.read_text()
    monkeypatch.setattr(device, "_hello", lambda: ("0.1", 1, "gpu", "another"))
    with pytest.raises(UserError, match="Name another file"):
        device.run(str(out))
    assert out.read_text() == before


def test_commands_are_those_of_slimjax(tmp_path):
    """All verbs, options and overrides that the parts name are there."""
    for platform in ("cpu", "gpu", "tpu"):
        for part in device.parts(platform, str(tmp_path / "t.json")):
            found, overrides = cli.parse(list(part.words))
            assert found.verb in ("bench", "profile")
            assert all(word.startswith("--config.") for word in overrides)


def test_a_part_that_fails_says_its_last_line(tmp_path):
    part = device.Part("broken", ("bench", "step", "--config", str(tmp_path / "none.py")))
    assert "none.py" in device._ask(part, 60.0)
    assert "no time left" in device._ask(part, 0.0)
