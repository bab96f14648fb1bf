"""Compiling for TPUs that are not there."""

import importlib.util

import pytest

from slimjax import cli
from slimjax.errors import UserError
from slimjax.profiling import tpu

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install -e '.[tpu-compile]'",
)


class Program:
    """Text of a compiled program: a computation that a loop calls, then the entry computation."""

    def as_text(self):
        body = (
            '%body (x: f32[8]) -> f32[8] {\n  ROOT %a = f32[8] add(%x, %x), {"estimated_cycles":"1000"}\n}\n'
        )
        entry = 'ENTRY %main (x: f32[8]) -> f32[8] {\n  %b = f32[8] add(%x, %x), {"estimated_cycles":"7"}\n'
        return (
            f'HloModule m\n\n{body}\n{entry}  ROOT %c = f32[8] add(%b, %b), {{"estimated_cycles":"30"}}\n}}\n'
        )


def test_estimated_cycles_are_those_of_the_entry_computation():
    assert tpu.estimated_cycles(Program()) == 37


def test_command_line_offers_every_target():
    assert set(cli.BENCH_TARGETS) == {"cpu", *tpu.TARGETS}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="needs a machine without libtpu")
def test_missing_compiler_is_one_message_with_the_remedy():
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu-compile\]'"):
        tpu.compile_only_devices("tpu-v5e")


@needs_libtpu
@pytest.mark.slow
def test_step_is_estimated_for_a_tpu_that_is_not_there():
    from slimjax import recipes
    from slimjax.bench import step

    config = recipes.embedded("synthetic")
    config.algorithm = recipes.snet((0.5, 1.0))
    config.data.update(image_size=8, channels=1, num_classes=4)
    config.model.options = {"channels": (8, 8, 16)}
    config.devices = 1
    answer = step.estimate(config, "tpu-v5e")
    assert answer["unit"] == "Mcycles"
    assert answer["compiles_after_warmup"] == 0
    # So small a network costs the same at any width: lanes of 128 channels are filled up.
    assert 0 < min(answer["slices"]) < answer["sandwich"] < 1.2 * sum(answer["slices"])
