"""A run's directory: one config for ever, read by the schema that wrote it, in buckets too."""

import ast
import json
from pathlib import Path

import pytest

import slimjax
from slimjax.errors import UserError
from slimjax.files import write_atomic
from slimjax.workdir import rundir
from slimjax.workdir.rundir import RunDir
from slimjax.workdir.versions import SCHEMA, versions

CONFIG = {"seed": 0, "train": {"steps": 10, "lr": 0.1}, "data": {"dir": "/a", "batch": {"train": 8}}}


def record(directory, ignore=(), **changes) -> None:
    RunDir(directory).record(json.dumps({**CONFIG, **changes}), ignore)


def test_record_writes_config_and_versions(tmp_path):
    record(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == CONFIG
    assert json.loads((tmp_path / "new" / "versions.json").read_text()) == {
        "schema": SCHEMA,
        "slimjax": slimjax.__version__,
        **versions(),
    }


def test_same_config_resumes(tmp_path):
    record(tmp_path)
    record(tmp_path)


def test_other_config_is_refused_with_the_keys_listed(tmp_path):
    record(tmp_path)
    with pytest.raises(UserError) as error:
        record(tmp_path, seed=1, train={"steps": 10, "lr": 0.2}, new=True)
    text = str(error.value)
    assert "seed: was 0, is 1" in text
    assert "train.lr: was 0.1, is 0.2" in text
    assert "new: was absent, is true" in text
    assert "steps" not in text


def test_refused_config_is_not_written(tmp_path):
    record(tmp_path)
    with pytest.raises(UserError):
        record(tmp_path, seed=1)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize("ignore", ["data", "data.batch", "data.batch.train"])
def test_ignored_key_may_differ(tmp_path, ignore):
    record(tmp_path)
    record(tmp_path, [ignore], data={"dir": "/a", "batch": {"train": 16}})
    assert json.loads((tmp_path / "config.json").read_text())["data"]["batch"]["train"] == 16


def test_ignored_key_is_no_prefix_of_another_name(tmp_path):
    record(tmp_path)
    with pytest.raises(UserError, match=r"data\.batch"):
        record(tmp_path, ["data.bat", "seed"], data={"dir": "/a", "batch": {"train": 16}})


def test_truncated_config_is_a_user_error(tmp_path):
    record(tmp_path)
    (tmp_path / "config.json").write_text('{"seed"')
    with pytest.raises(UserError, match="expected the config of a run as JSON"):
        record(tmp_path)


# What another slimjax wrote


def stamped(directory, **changes) -> None:
    """A recorded run with other words in its versions; None: without the word."""
    record(directory)
    said = {**json.loads(RunDir(directory).versions.read_text()), **changes}
    RunDir(directory).versions.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


@pytest.mark.parametrize(
    ("stamp", "writer"),
    [
        ({"schema": SCHEMA + 1, "slimjax": "9.8.7"}, f"slimjax 9.8.7 with jax 0.1 (schema {SCHEMA + 1})"),
        ({"schema": None, "slimjax": None}, "slimjax 0.1.0 or earlier with jax 0.1 (schema none)"),
    ],
)
def test_another_schema_is_neither_read_nor_taken_over(tmp_path, stamp, writer):
    stamped(tmp_path, jax="0.1", **stamp)
    before = RunDir(tmp_path).versions.read_text()
    for use in (lambda: record(tmp_path), RunDir(tmp_path).read_config, RunDir(tmp_path).check_schema):
        with pytest.raises(UserError) as error:
            use()
        assert f"{tmp_path} was written by {writer}; this is slimjax {slimjax.__version__}" in str(
            error.value
        )
    assert RunDir(tmp_path).versions.read_text() == before


def test_another_slimjax_of_this_schema_goes_on(tmp_path):
    stamped(tmp_path, slimjax="0.2.9")
    record(tmp_path)
    assert json.loads(RunDir(tmp_path).versions.read_text())["slimjax"] == slimjax.__version__


def test_a_config_without_versions_is_an_old_runs(tmp_path):
    RunDir(tmp_path).config.write_text(json.dumps(CONFIG))
    with pytest.raises(UserError, match=r"written by slimjax 0\.1\.0 or earlier \(schema none\)"):
        record(tmp_path)


@pytest.mark.parametrize("written", [1, 2])
def test_a_run_killed_while_it_is_recorded_is_recorded_again(tmp_path, monkeypatch, written):
    """Whatever is on the disk at that time, the same command goes on."""
    left = [written - 1]

    def write(path, text):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_atomic(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(rundir, "write_atomic", write)
        with pytest.raises(KeyboardInterrupt):
            record(tmp_path)
    record(tmp_path)
    assert RunDir(tmp_path).read_config().seed == 0


@pytest.mark.parametrize("text", ["", '{"schema": ', "3"])
def test_damaged_versions_are_a_user_error(tmp_path, text):
    record(tmp_path)
    RunDir(tmp_path).versions.write_text(text)
    with pytest.raises(UserError, match=r"versions\.json: expected the versions of a run as JSON"):
        record(tmp_path)


# Names


@pytest.mark.parametrize("path", ["runs/one", "gs://bucket/runs/one"])
def test_names_are_the_same_on_disks_and_in_buckets(path):
    run = RunDir(path)
    assert str(run.metrics) == f"{path}/metrics.jsonl"
    assert str(run.search("bayes").architecture("latency_ms<=3.2@a/t.json")) == (
        f"{path}/search-bayes/latency_ms-3.2.json"
    )


def test_only_this_module_knows_the_names():
    """Of all that a run keeps; docstrings and messages may speak of them."""
    run = RunDir("run")
    names = {path.name for path in vars(run).values()} - {"run"}
    package = Path(slimjax.__file__).parent
    knowing = {
        str(path.relative_to(package)): found
        for path in package.rglob("*.py")
        if (found := names & strings(ast.parse(path.read_text())))
    }
    assert set(knowing) == {"workdir/rundir.py"}, knowing


def strings(tree: ast.AST) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
