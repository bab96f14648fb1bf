"""Compiling for TPUs that are not there: slices, chips, and what compiled programs say."""

import importlib.util

import pytest

from slimjax.errors import UserError
from slimjax.nn.widths import Widths
from slimjax.profiling import hlo, tpu
from slimjax.profiling.chips import CHIPS
from slimjax.verbs import options

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install -e '.[tpu-compile]'",
)


LOOP = """HloModule m

%body (x: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(128)} add(%x, %x), backend_config={"estimated_cycles":"1000"}
  ROOT %s = f32[8]{0:T(128)} all-reduce(%a), replica_groups={{0,1}}, to_apply=%add
}

%condition (x: f32[8]) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %b = f32[8]{0} add(%x, %x), backend_config={"estimated_cycles":"7"}
  %w = f32[8]{0} while(%b), condition=%condition, body=%body
  ROOT %c = f32[8]{0} add(%w, %b), backend_config={"estimated_cycles":"30"}
}
"""

BRANCHES = """HloModule m

%square (x: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(128)} multiply(%x, %x), backend_config={"estimated_cycles":"1000"}
  ROOT %s = f32[8]{0:T(128)} all-reduce(%a), replica_groups={{0,1}}, to_apply=%add
}

%sine (x: f32[8]) -> f32[8] {
  ROOT %sin = f32[8]{0:T(128)} sine(%x), backend_config={"estimated_cycles":"500"}
}

%outer (x: f32[8]) -> f32[8] {
  ROOT %inner = f32[8]{0} conditional(%p, %x, %x), branch_computations={%square, %sine}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %b = f32[8]{0} conditional(%i, %x, %x, %x), branch_computations={%square, %sine, %outer}
  ROOT %c = f32[8]{0} add(%b, %b), backend_config={"estimated_cycles":"30"}
}
"""

EXCHANGES = """HloModule m

%chained (x: f32[8,4]) -> f32[32,4] {
  ROOT %g = f32[32,4]{1,0:T(8,128)} all-gather(%x), frontend_attributes={chain_id="0"}
}

%chained.1 (x: f32[8,4]) -> f32[32,4] {
  ROOT %g.1 = f32[32,4]{1,0:T(8,128)} all-gather(%x), frontend_attributes={chain_id="0"}
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %begin = (f32[8,4], f32[32,4], s32[2]) fusion(%x), kind=kCustom, calls=%chained
  %end = f32[32,4]{1,0} fusion(%begin), kind=kCustom, calls=%chained.1
  %sum = (f32[10]{0}, /*index=1*/bf16[2,3]{1,0:T(8,128)(2,1)S(1)}) all-reduce(%a, %b), channel_id=1
  %start = (f32[8,4]{1,0}, f32[8,4]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=2
  %done = f32[8,4]{1,0} collective-permute-done(%start), metadata={op_name="all-to-all"}
  %scatter = pred[6]{0} reduce-scatter(%p), dimensions={0}
  ROOT %swap = f64[]{:T(128)} all-to-all(%q)
}
"""


KINDS = """HloModule m

%forward (x: f32[8]) -> f32[8] {
  %c = f32[8]{0} convolution(%x, %w), window={size=3x3}, dim_labels=b01f_01io->b01f
  ROOT %m = f32[] reduce(%c, %z), dimensions={0}, to_apply=%add
}

%norm (x: f32[8]) -> f32[8] {
  %t = f32[8]{0} multiply(%x, %x)
  ROOT %r = f32[] reduce(%t, %z), dimensions={0}, to_apply=%add
}

%moved (x: f32[8]) -> f32[8] {
  ROOT %t = f32[8]{0} transpose(%x), dimensions={0}
}

%cheap (x: f32[8]) -> f32[8] {
  ROOT %v = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"100"}
}

%costly (x: f32[8]) -> f32[8] {
  ROOT %v = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %a = f32[8]{0} fusion(%x), kind=kOutput, calls=%forward, backend_config={"estimated_cycles":"1"}
  %b = f32[8]{0} convolution(%x, %w), dim_labels=bf_oi->bf, backend_config={"estimated_cycles":"2"}
  %c = f32[8]{0} convolution(%x, %w), dim_labels=f01b_i01o->01bf, backend_config={"estimated_cycles":"4"}
  %d = f32[8]{0} fusion(%x), kind=kLoop, calls=%norm, backend_config={"estimated_cycles":"8"}
  %e = f32[8]{0} add(%x, %x), backend_config={"estimated_cycles":"16"}
  %f = f32[8]{0} fusion(%x), kind=kLoop, calls=%moved, backend_config={"estimated_cycles":"32"}
  ROOT %g = f32[8]{0} conditional(%p, %x, %x), branch_computations={%cheap, %costly}, METADATA
}
"""


class Program:
    """A compiled program's text."""

    def __init__(self, text):
        self.text = text

    def as_text(self):
        return self.text


def module(text: str) -> hlo.Module:
    return hlo.Module.of(Program(text))


def test_cycles_of_a_loop_count_as_often_as_it_runs():
    assert module(LOOP).cycles == 37 + 5 * 1000
    assert module(LOOP).unknown_loops == 0


def test_branches_count_as_if_each_were_as_likely():
    found = module(BRANCHES)
    assert found.cycles == 30 + (1000 + 500 + (1000 + 500) / 2) / 3
    assert [one.count for one in found.collectives()] == [pytest.approx(1 / 3 + 1 / 6)]


SECOND = 'metadata={op_name="jit(f)/jvp(net)/norm/second_pass/cond"}'


def test_a_second_pass_of_a_norm_does_not_count():
    assert module(KINDS.replace("METADATA", SECOND)).cycles == 63 + 100
    assert module(KINDS.replace(", METADATA", "")).cycles == 63 + 550


def test_cycles_are_divided_by_what_instructions_do():
    """What a convolution is fused with is the convolution's; a sum over the batch makes a kernel's gradient."""
    found = module(KINDS.replace("METADATA", SECOND))
    assert found.cycles_by_kind() == {
        "convolution": 1,
        "input gradient": 2,
        "kernel gradient": 4,
        "reductions": 8,
        "elementwise": 16,
        "copies": 32 + 100,
    }


def test_cycles_of_a_computation_that_nobody_calls_do_not_count():
    assert module(LOOP.replace("while(%b), condition=%condition, body=%body", "copy(%b)")).cycles == 37


def test_trips_that_the_compiler_writes_down_are_believed():
    text = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert module(text).cycles == 37 + 3 * 1000


def test_loop_that_does_not_say_how_often_it_runs_counts_once_and_is_reported():
    found = module(LOOP.replace("direction=LT", "direction=NE"))
    assert (found.cycles, found.unknown_loops) == (1037, 1)


def test_collective_in_a_loop_counts_as_often_as_it_runs():
    assert list(module(LOOP).collectives()) == [hlo.Collective("all-reduce", 32, 5)]


def test_collectives_have_the_bytes_of_their_results_and_asynchronous_ones_count_once():
    assert list(module(EXCHANGES).collectives()) == [
        hlo.Collective("all-gather", 32 * 4 * 4, 1),
        hlo.Collective("all-reduce", 10 * 4 + 6 * 2, 1),
        hlo.Collective("collective-permute", 8 * 4 * 4, 1),
        hlo.Collective("reduce-scatter", 6, 1),
        hlo.Collective("all-to-all", 8, 1),
    ]


@pytest.mark.parametrize(("kind", "units"), [("v4", 8), ("v5e", 4), ("v5p", 8), ("v6e", 16)])
def test_chip_reaches_its_peak_when_its_multiply_units_are_full(kind, units):
    """In units of 128 x 128 multiply-adds a cycle; a v6e's are four of 256 x 256."""
    assert CHIPS[kind].clock_hz * units * 128 * 128 * 2 == pytest.approx(CHIPS[kind].peak_flops, rel=0.003)


@pytest.mark.parametrize(
    ("topology", "part"),
    [
        ("v5e", "KIND:SHAPE"),
        ("v5e:", "KIND:SHAPE"),
        ("v5e:0x4", "KIND:SHAPE"),
        ("v5e:4x4 ", "KIND:SHAPE"),
        ("v7:2x2", "one of v4, v5e, v5p, v6e"),
        ("v5e:2x2x1", "a shape of 2 sides for v5e"),
        ("v4:2x2", "a shape of 3 sides for v4"),
        ("v5e:16x32", "at most 256 chips of v5e"),
    ],
)
def test_topology_that_does_not_exist_is_refused_with_what_does(topology, part):
    with pytest.raises(UserError, match="such as v5e:4x4") as refusal:
        tpu.Slice.parse(topology)
    assert part in str(refusal.value)
    assert repr(topology) in str(refusal.value)


def test_slice_is_written_as_it_is_read():
    assert [str(tpu.Slice.parse(topology)) for topology in tpu.TARGETS.values()] == list(tpu.TARGETS.values())


def test_slice_doubles_its_shortest_side_until_slices_end():
    larger = [tpu.Slice.parse("v4:2x2x1")]
    while (following := larger[-1].doubled()) is not None:
        larger.append(following)
    assert [str(one) for one in larger[:4]] == ["v4:2x2x1", "v4:2x2x2", "v4:2x2x4", "v4:2x4x4"]
    assert str(larger[-1]) == "v4:16x16x16"


def test_command_line_offers_every_target():
    assert set(options.BENCH_TARGETS) == {"cpu", *tpu.TARGETS}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="needs a machine without libtpu")
def test_missing_compiler_is_one_message_with_the_remedy():
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu-compile\]'"):
        tpu.compile_only_devices("v5e:2x2")


@needs_libtpu
def test_slices_have_one_device_for_a_chip():
    for topology, hosts in {
        "v4:2x2x2": 2,
        "v5e:4x4": 4,
        "v5e:16x16": 64,
        "v5p:2x2x1": 1,
        "v6e:2x4": 2,
    }.items():
        devices = tpu.compile_only_devices(topology)
        assert len(devices) == tpu.Slice.parse(topology).chips
        assert len({device.process_index for device in devices}) == hosts


@needs_libtpu
def test_shape_that_libtpu_refuses_is_refused_with_its_reason():
    with pytest.raises(UserError, match=r"v5e:3x2.*such as v5e:4x4.*not divisible"):
        tpu.compile_only_devices("v5e:3x2")


@needs_libtpu
def test_tpu_programs_say_how_often_their_loops_run():
    import jax
    import jax.numpy as jnp

    chip = jax.sharding.SingleDeviceSharding(tpu.compile_only_devices("v5e:2x2")[0])
    x = jax.ShapeDtypeStruct((512, 512), jnp.float32, sharding=chip)

    def cycles(trips: int) -> int:
        program = jax.jit(lambda x: jax.lax.fori_loop(0, trips, lambda _, y: jnp.sin(y @ y), x))
        found = hlo.Module.of(program.lower(x).compile())
        assert found.unknown_loops == 0
        return found.cycles

    ten, twenty, forty = cycles(10), cycles(20), cycles(40)
    assert 0 < ten < twenty
    assert forty - twenty == 2 * (twenty - ten)


@needs_libtpu
@pytest.mark.slow
def test_step_is_estimated_for_a_tpu_that_is_not_there():
    from slimjax.bench import step
    from slimjax.experiment import recipes

    config = recipes.embedded("synthetic")
    config.algorithm = recipes.algorithm("snet", widths=(0.5, 1.0))
    config.data.update(image_size=8, channels=1, num_classes=4)
    config.model.options = {"channels": (8, 8, 16)}
    config.devices = 1
    answer = step.estimate(config, "tpu-v5e")
    assert answer["unit"] == "Mcycles"
    assert answer["compiles_after_warmup"] == 0
    # So small a network costs the same at any width: lanes of 128 channels are filled up.
    assert 0 < min(answer["slices"]) < answer["sandwich"] < 1.2 * sum(answer["slices"])


@needs_libtpu
@pytest.mark.parametrize("two_pass", [False, True])
def test_statistics_of_a_norm_are_taken_where_the_convolution_writes(two_pass):
    """A bottleneck's forward pass at 56x56 has no reduction of its own, unless variances take a second pass."""
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    from slimjax import BatchNorm, Conv, FeatureMap, Group

    narrow, wide = Group("narrow", 64), Group("wide", 256)

    class Bottleneck(nn.Module):
        @nn.compact
        def __call__(self, value):
            x = y = FeatureMap(value, wide, Widths())
            for number, (group, side) in enumerate([(narrow, 1), (narrow, 3), (wide, 1)]):
                y = Conv(group, side, dtype=jnp.bfloat16, name=f"conv{number}")(y)
                y = BatchNorm(two_pass=two_pass, name=f"norm{number}")(y, True)
                y = y.map(jax.nn.relu) if number < 2 else y
            return (x + y).map(jax.nn.relu).value

    chip = jax.sharding.SingleDeviceSharding(tpu.compile_only_devices("v5e:2x2")[0])
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=chip)  # noqa: E731
    x = place(jax.ShapeDtypeStruct((64, 56, 56, 256), jnp.bfloat16))
    variables = jax.tree.map(place, jax.eval_shape(Bottleneck().init, jax.random.key(0), x))
    program = jax.jit(lambda variables, x: Bottleneck().apply(variables, x)).lower(variables, x).compile()
    kinds = hlo.Module.of(program).cycles_by_kind()
    assert kinds["convolution"] > 0
    assert (kinds["reductions"] > 0.05 * kinds["convolution"]) == two_pass
