"""Checkpoints: what is read back is what was written, or the reader is told."""

import gc
import json
import logging
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from helpers.flags import QUICK
from helpers.paths import REPOSITORY
from helpers.trees import assert_trees_equal
from slimjax.errors import UserError
from slimjax.workdir.checkpoint import Checkpointer, CheckpointError, NonFiniteError, seal
from slimjax.workdir.versions import SCHEMA

# Where a file is damaged or a disk is full, orbax drops coroutines and threads that complain when collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def nothing_else_is_looked_through():
    """Else each collection takes a second: other modules have left a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leftovers_of_orbax_stay_here():
    yield
    gc.collect()


class OptState(NamedTuple):
    count: Any
    mu: Any


def make_tree(seed: int = 0) -> dict[str, Any]:
    """Returns one leaf of each kind that a training state has."""
    kernel, mu = jax.random.normal(jax.random.key(seed), (2, 64, 64))
    return {
        "params": {"conv": {"kernel": kernel, "half": kernel.astype(jnp.bfloat16)}},
        "opt": (OptState(jnp.int32(seed), {"kernel": mu}), ()),
        "batch_stats": {"w0.25": {"mean": jnp.full(7, -0.0)}},
        "scores": jnp.array([jnp.nan, jnp.inf]),
        "trials": jnp.zeros((0, 3)),
        "rng": jax.random.key_data(jax.random.key(seed)),
        "best": None,
    }


def abstract(tree: Any, sharding: Any = None) -> Any:
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def make_paths() -> list[str]:
    """Returns the spelled paths of all leaves, each also as a checksum mismatch names it."""
    leaves = jax.tree_util.tree_flatten_with_path(make_tree())[0]
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return paths + [f"CheckpointError: checksum mismatch in {path}" for path in paths]


def save_steps(directory: pathlib.Path, *steps: int) -> None:
    with Checkpointer(directory) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_tree(step))


def restore(directory: pathlib.Path, tree: Any = None) -> Any:
    with Checkpointer(directory) as checkpointer:
        return checkpointer.restore(abstract(make_tree() if tree is None else tree))


def data_file(step: pathlib.Path) -> pathlib.Path:
    return max((step / "state").glob("**/d/*"), key=lambda path: path.stat().st_size)


def test_round_trip_is_bit_identical(tmp_path):
    save_steps(tmp_path, 7)
    found = restore(tmp_path)
    assert found.step == 7
    assert_trees_equal(found.tree, make_tree(7))


def test_meta_comes_back_with_schema_and_counts(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, make_tree(), {"widths": [0.25, 1.0], "best": float("nan")})
        meta = checkpointer.restore(abstract(make_tree())).meta
    assert meta["widths"] == [0.25, 1.0]
    assert (meta["schema"], meta["step"], meta["process_count"]) == (SCHEMA, 3, 1)
    assert meta["device_count"] == jax.device_count()
    assert meta["leaves"]["params/conv/kernel"]["shape"] == [64, 64]


def test_meta_refuses_reserved_keys(tmp_path):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(ValueError, match="step"):
        checkpointer.save(3, make_tree(), {"step": 4})


def test_restore_of_an_empty_directory_is_none(tmp_path):
    assert restore(tmp_path) is None


def test_restore_onto_another_mesh_keeps_every_bit(tmp_path):
    devices = np.array(jax.devices())
    assert devices.size == 8
    old = NamedSharding(jax.sharding.Mesh(devices, "d", axis_types=(AxisType.Auto,)), PartitionSpec("d"))
    new = NamedSharding(
        jax.sharding.Mesh(devices[:2], "d", axis_types=(AxisType.Auto,)), PartitionSpec(None, "d")
    )
    tree = {"params": jax.device_put(jnp.arange(64.0).reshape(8, 8), old)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, tree)
        found = checkpointer.restore(abstract(tree, new))
    assert found.tree["params"].sharding == new
    assert_trees_equal(found.tree, tree)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7, 0.9])
def test_flipped_bytes_fall_back_to_the_older_step_and_name_the_leaf(tmp_path, caplog, fraction):
    save_steps(tmp_path, 1, 2)
    path = data_file(tmp_path / "2")
    data = bytearray(path.read_bytes())
    at = int(len(data) * fraction)
    data[at : at + 8] = bytes(255 - byte for byte in data[at : at + 8])
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "slimjax.workdir.checkpoint"):
        found = restore(tmp_path)
    assert found.step == 1
    assert_trees_equal(found.tree, make_tree(1))
    assert any(f"is damaged: {path}" in caplog.text for path in make_paths()), caplog.text


def test_leaf_of_an_unreadable_file_is_named_in_one_line(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    os.truncate(data_file(tmp_path / "2"), 0)
    with caplog.at_level(logging.WARNING, "slimjax.workdir.checkpoint"):
        restore(tmp_path)
    messages = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    assert len(messages) == 1
    assert re.search(r"is damaged: (params|opt|batch_stats|scores|rng)[/:]", messages[0])
    assert "\n" not in messages[0]


def silently_replace(directory: pathlib.Path, step: int) -> None:
    """Rewrites the state with other values but leaves meta alone: only a checksum can notice."""
    meta = (directory / str(step) / "meta" / "metadata").read_bytes()
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(step, make_tree(99))
    (directory / str(step) / "meta" / "metadata").write_bytes(meta)


def test_wrong_bytes_that_orbax_reads_without_complaint_are_a_checksum_mismatch(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    silently_replace(tmp_path, 2)
    with caplog.at_level(logging.WARNING, "slimjax.workdir.checkpoint"):
        assert restore(tmp_path).step == 1
    assert "checksum mismatch in" in caplog.text
    assert "params/conv/kernel" in caplog.text


def empty_the_step(step: pathlib.Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = {
    "truncated data": lambda step: os.truncate(data_file(step), data_file(step).stat().st_size // 2),
    "zero-length data": lambda step: os.truncate(data_file(step), 0),
    "missing data": lambda step: data_file(step).unlink(),
    "zero-length manifest": lambda step: os.truncate(step / "state" / "manifest.ocdbt", 0),
    "missing manifest": lambda step: (step / "state" / "manifest.ocdbt").unlink(),
    "zero-length _METADATA": lambda step: os.truncate(step / "state" / "_METADATA", 0),
    "zero-length meta": lambda step: os.truncate(step / "meta" / "metadata", 0),
    "missing meta": lambda step: (step / "meta" / "metadata").unlink(),
    "empty step": empty_the_step,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_step_falls_back_to_the_older_one(tmp_path, damage):
    save_steps(tmp_path, 1, 2)
    DAMAGES[damage](tmp_path / "2")
    found = restore(tmp_path)
    assert found.step == 1
    assert_trees_equal(found.tree, make_tree(1))


def test_flipped_digit_in_meta_is_damage_not_a_different_network(tmp_path):
    save_steps(tmp_path, 1, 2)
    path = tmp_path / "2" / "meta" / "metadata"
    path.write_text(path.read_text().replace("64", "65", 1))
    assert restore(tmp_path).step == 1


def test_all_steps_damaged_is_an_error_that_lists_them(tmp_path):
    save_steps(tmp_path, 1, 2)
    for step in ("1", "2"):
        data_file(tmp_path / step).unlink()
    with pytest.raises(CheckpointError, match=r"(?s)step 2: .*step 1: "):
        restore(tmp_path)


def test_keyboard_interrupt_is_never_taken_for_damage(tmp_path, monkeypatch):
    save_steps(tmp_path, 1, 2)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ocp.CheckpointManager, "restore", interrupt)
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path)


def test_run_goes_on_over_a_damaged_step(tmp_path):
    save_steps(tmp_path, 1, 2)
    data_file(tmp_path / "2").unlink()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(abstract(make_tree())).step == 1
        checkpointer.save(2, make_tree(5))
    found = restore(tmp_path)
    assert found.step == 2
    assert_trees_equal(found.tree, make_tree(5))


def test_save_drops_the_steps_of_a_rewound_trajectory(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(abstract(make_tree()), step=1).step == 1
        checkpointer.save(2, make_tree(5))
        assert checkpointer.latest_step() == 2


def test_explicit_step_does_not_fall_back(tmp_path):
    save_steps(tmp_path, 1, 2)
    data_file(tmp_path / "2").unlink()
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match="step 2"):
        checkpointer.restore(abstract(make_tree()), step=2)


def test_unknown_step_is_a_user_error(tmp_path):
    save_steps(tmp_path, 1)
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(UserError, match=r"\[1\]"):
        checkpointer.restore(abstract(make_tree()), step=5)


MISMATCHES = {
    "shape": ({"w": jnp.zeros(3)}, {"w": jnp.zeros(4)}, r"w: expected float32\[4\], got float32\[3\]"),
    "dtype": ({"w": jnp.zeros(3)}, {"w": jnp.zeros(3, "f2")}, r"w: expected float16\[3\], got float32\[3\]"),
    "missing": (
        {"a": jnp.zeros(3)},
        {"a": jnp.zeros(3), "b": jnp.zeros(())},
        r"b: expected float32\[\], got no",
    ),
    "extra": (
        {"a": jnp.zeros(3), "b": jnp.zeros(2)},
        {"a": jnp.zeros(3)},
        r"b: expected nothing, got float32",
    ),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_other_network_is_refused_with_the_leaf_named(tmp_path, kind):
    saved, wanted, message = MISMATCHES[kind]
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, saved)
    with pytest.raises(UserError, match=message):
        restore(tmp_path, wanted)


@pytest.mark.parametrize(
    ("stamp", "writer"),
    [
        ({"schema": SCHEMA + 1, "slimjax": "9.8.7"}, "slimjax 9.8.7"),
        ({"schema": 1}, "slimjax 0.1.0 or earlier"),
    ],
)
def test_another_schema_is_refused_with_the_version_that_wrote_it(tmp_path, stamp, writer):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jnp.ones(2)})
        meta = checkpointer.restore({"w": jax.ShapeDtypeStruct((2,), jnp.float32)}).meta
    meta.pop("slimjax")
    (tmp_path / "1" / "meta" / "metadata").write_text(json.dumps(seal({**meta, **stamp})))
    with pytest.raises(
        UserError, match=f"1 was written by {writer} .schema {stamp['schema']}.*slimjax that wrote it"
    ):
        restore(tmp_path, {"w": jnp.ones(2)})


@pytest.mark.parametrize("value", [jnp.nan, -jnp.inf])
def test_non_finite_params_are_not_saved(tmp_path, value):
    tree = make_tree()
    tree["params"]["conv"]["kernel"] = tree["params"]["conv"]["kernel"].at[3, 3].set(value)
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(NonFiniteError, match=r"in params/conv/kernel$"):
            checkpointer.save(1, tree)
        assert checkpointer.latest_step() is None


def test_non_finite_params_are_saved_when_told(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"params": jnp.array([jnp.nan])}, require_finite=False)
    assert np.isnan(restore(tmp_path, {"params": jnp.zeros(1)}).tree["params"][0])


@pytest.mark.parametrize("leaf", [3, "text", jax.random.key(0)])
def test_leaf_that_is_no_array_is_refused_with_its_path(tmp_path, leaf):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(TypeError, match="state/odd"):
        checkpointer.save(1, {"state": {"odd": leaf}})


def test_keep_leaves_the_newest_steps_and_no_trash(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "5"]


def test_half_written_step_is_not_listed_and_is_gone_after_the_next_save(tmp_path):
    save_steps(tmp_path, 1)
    half = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", half)
    assert restore(tmp_path).step == 1
    save_steps(tmp_path, 3)  # orbax cleans in the background, and waits for it no sooner than here
    assert not half.exists()


def test_read_only_touches_nothing(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.restore(abstract(make_tree())).step == 1
    assert (tmp_path / "2.orbax-checkpoint-tmp").exists()


def test_read_only_refuses_to_save(tmp_path):
    with (
        Checkpointer(tmp_path, read_only=True) as checkpointer,
        pytest.raises(CheckpointError, match="read-only"),
    ):
        checkpointer.save(1, make_tree())


@pytest.fixture
def full_disk():
    """No file can grow over 4 kB, as on a full disk."""
    old_limit, old_handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old_limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)


def test_failed_async_save_surfaces_on_the_next_save(tmp_path, full_disk):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, make_tree())
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpointer.save(2, make_tree())


def test_failed_async_save_surfaces_at_close(tmp_path, full_disk):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, make_tree())
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpointer.close()


def test_failed_async_save_does_not_hide_the_error_in_flight(tmp_path, full_disk):
    def run() -> None:
        with Checkpointer(tmp_path) as checkpointer:
            checkpointer.save(1, make_tree())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


def test_failed_async_save_leaves_the_last_good_step(tmp_path, request):
    save_steps(tmp_path, 1)
    request.getfixturevalue("full_disk")
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(2, make_tree(2))
    with pytest.raises(CheckpointError):
        checkpointer.close()
    assert_trees_equal(restore(tmp_path).tree, make_tree(1))


TWO_PROCESSES = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), initialization_timeout=60)
    from slimjax.workdir import checkpoint
    from slimjax.workdir.checkpoint import Checkpointer, NOT_HASHED
    mesh = Mesh(np.array(jax.devices()), "d", axis_types=(AxisType.Auto,))
    place = lambda spec: NamedSharding(mesh, spec)
    make = lambda spec, value: jax.jit(lambda: jnp.arange(8.0) + value, out_shardings=place(spec))()
    tree = lambda v: {"params": make(PartitionSpec(), v), "sharded_params": make(PartitionSpec("d"), v)}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree(0))
    with Checkpointer(sys.argv[3]) as checkpointer:
        checkpointer.save(1, tree(1))
        checkpointer.save(2, tree(2))
        checkpointer.save(3, tree(3))
    if jax.process_index() == 0:
        meta = sys.argv[3] + "/3/meta/metadata"
        text = open(meta).read()
        open(meta, "w").write(text.replace('"process_count": 2', '"process_count": 3'))
    jax.experimental.multihost_utils.sync_global_devices("damaged")

    check_sums, calls = checkpoint._check_sums, []
    def find_damage_in_one_process_only(saved, leaves):
        calls.append(leaves)
        if jax.process_index() == 1 and len(calls) == 1:
            raise checkpoint.CheckpointError("step 2, only here")
        check_sums(saved, leaves)
    checkpoint._check_sums = find_damage_in_one_process_only

    with Checkpointer(sys.argv[3]) as checkpointer:
        found = checkpointer.restore(abstract)
        assert found.step == 1 and found.meta["process_count"] == 2
        assert found.meta["leaves"]["sharded_params"]["note"] == NOT_HASHED
        assert (np.asarray(found.tree["params"]) == np.arange(8) + 1).all()
        checkpointer.save(2, tree(5))
    print("fine")
"""


def test_two_processes_save_and_fall_back_together(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    port = 20000 + os.getpid() % 20000
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK}",
        "JAX_PLATFORMS": "cpu",
    }
    environment["PYTHONPATH"] = str(REPOSITORY)
    processes = [
        subprocess.Popen(
            [sys.executable, script, f"localhost:{port}", str(rank), str(tmp_path / "steps")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=90)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
