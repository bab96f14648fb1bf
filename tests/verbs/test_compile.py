"""`slimjax compile`: on eight CPU devices in the place of a slice's chips, and on the TPU compiler."""

import importlib.util
import json

import jax
import pytest

from helpers.paths import CONFIGS
from helpers.shipped import combinations, load
from helpers.tfnas import OVERRIDES
from slimjax.experiment import config_file, recipes
from slimjax.experiment.build import build, load_data
from slimjax.profiling import hlo, tpu
from slimjax.profiling.chips import CHIPS, GIB
from slimjax.profiling.tpu import Slice
from slimjax.verbs import cli, compile

TINY = """
from slimjax.experiment import recipes

def get_config():
    config = recipes.embedded("synthetic")
    config.algorithm = recipes.algorithm("snet", widths=(0.5, 1.0))
    config.data.update(image_size=8, channels=1, num_classes=4)
    config.model.options = {"channels": (2, 4, 4)}
    config.batch_norm.statistics = "device"
    return config
"""


def tiny(**train):
    config = recipes.embedded("synthetic")
    config.algorithm = recipes.algorithm("snet", widths=(0.5, 1.0))
    config.data.update(image_size=8, channels=1, num_classes=4)
    config.model.options = {"channels": (2, 4, 4)}
    config.batch_norm.statistics = "device"  # the norms then exchange nothing
    config.train.update(train)
    return config


@pytest.fixture
def eight_cpus(monkeypatch):
    """The TPU compiler's place is taken by the CPU's, which estimates no cycles."""
    monkeypatch.setattr(tpu, "compile_only_devices", lambda topology: jax.devices())


@pytest.fixture
def refuses(monkeypatch):
    """Returns a function: message -> from now on the compiler refuses every program with it."""

    def refuse(message):
        def compile_steps(experiment, advance):
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr(compile, "compile_steps", compile_steps)

    return refuse


@pytest.fixture
def yields(monkeypatch, compiled):
    """Returns a function: bytes -> every step compiles at once, to the same programs, and needs so many."""

    def accept(peak):
        steps = [{"slots": ["w1.00", "w0.50"], "mcycles": 1.0, "peak_bytes": peak}]
        monkeypatch.setattr(compile, "compile_steps", lambda experiment, advance: (compiled[1], steps))

    return accept


OUT_OF_MEMORY = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (21.64G) exceeds available HBM (15.75G). HLO module: jit__local_gradient.\nSee https://..."
)


@pytest.fixture(scope="module")
def compiled():
    """One step of a tiny S-Net on eight CPU devices: the experiment and its programs."""
    experiment = build(tiny())
    return experiment, compile.compile_steps(experiment, lambda: None)[0]


def test_programs_of_a_step_that_draws_its_paths_have_their_names():
    """Those of the costliest, which is no path: all operators run in it."""
    given = ("algorithm.warmup=1", "algorithm.search=1", "train.steps=8", "train.batch_size=16")
    config = config_file.load(
        str(CONFIGS / "digits_tfnas.py"), [*OVERRIDES, *(f"--config.{x}" for x in given)]
    )
    experiment, done = build(config, jax.devices()[:1]), []
    programs, steps = compile.compile_steps(experiment, lambda: done.append(1))
    assert list(programs) == ["prepare", "mixture", "update"]
    assert len(done) == sum(len(step.parts) for step in experiment.algorithm.steps())
    assert [step["slots"] for step in steps] == [["path"], ["path", "second"], ["mixture"]]
    assert 0 < steps[0]["peak_bytes"] <= steps[1]["peak_bytes"]


def test_gradients_and_metrics_are_all_that_a_step_exchanges(compiled):
    """One all-reduce of the parameters' bytes and of two metrics a subnet; and one of each subnet's statistics."""
    experiment, programs = compiled
    slots = experiment.algorithm.at(0).step.slots
    modules = {name: hlo.Module.of(program) for name, program in programs.items()}
    trainable = jax.tree.leaves(experiment.abstract_state(slots).trainable)
    numbers = sum(leaf.size for leaf in trainable) + 2 * len(slots)
    update = compile.exchanged([modules["update"]])
    assert update == {"all-reduce": {"count": 1, "bytes": 4 * numbers}}
    found = compile.exchanged(modules.values())["all-reduce"]
    assert found["count"] == 1 + len(slots)
    assert 1 < found["bytes"] / (4 * numbers) < 1.2


def test_a_norm_exchanges_once_in_each_direction():
    """Mean and variance together; then the gradient and the metrics of the whole step, once."""
    config = tiny()
    config.batch_norm.statistics = "global"
    experiment = build(config)
    programs, _ = compile.compile_steps(experiment, lambda: None)
    norms = sum(layer.kind == "BatchNorm" for layer in experiment.net.records)
    found = compile.exchanged(map(hlo.Module.of, programs.values()))["all-reduce"]
    assert norms == 7
    assert found["count"] == 2 * 2 * norms + 1


def test_exchange_takes_what_a_ring_sends_over_the_links(compiled):
    experiment, programs = compiled
    answer = compile.account(programs, experiment, CHIPS["v5e"])
    sent = 2 * 7 / 8 * answer["collectives"]["all-reduce"]["bytes"]
    assert answer["exchange_ms"] == pytest.approx(1e3 * sent / 200e9)
    assert answer["step_ms"] == answer["compute_ms"] + answer["exchange_ms"]
    assert answer["images_per_second"] == pytest.approx(1e3 * 64 / answer["step_ms"])


def test_flops_are_those_of_one_devices_images(compiled):
    """Forward and backward of the slices, 8 of 64 images: three times the MACs, two FLOPs each, and some more."""
    experiment, programs = compiled
    macs = 3 * 8 * experiment.algorithm.at(0).step.exact_macs()
    assert 1 < compile.step_flops(programs, 1) / (2 * macs) < 2


def test_flops_count_every_micro_batch(compiled):
    programs = compiled[1]
    around = compile.step_flops({name: programs[name] for name in ("prepare", "update")}, 1)
    whole = compile.step_flops(programs, 1)
    assert compile.step_flops(programs, 4) - around == pytest.approx(4 * (whole - around))


def test_typical_step_is_compiled():
    """Its cost is nearer the sample's mean than nine in ten of the sample."""
    config = tiny()
    config.algorithm = recipes.algorithm("usnet")
    config.model.options = {"channels": (8, 16, 16)}
    experiment = build(config)
    macs = experiment.algorithm.at(0).step.executed_macs
    sample = sorted(macs(experiment.algorithm.propose({}, step)) for step in range(compile.SAMPLE))
    mean = sum(sample) / len(sample)
    chosen = abs(macs(compile._typical(experiment.algorithm.at(0).step)) - mean)
    assert sum(abs(cost - mean) < chosen for cost in sample) < len(sample) / 10
    assert sample[0] < sample[-1]


def test_a_typical_step_of_joslim_has_as_many_subnets_as_it_trains():
    config = tiny()
    config.algorithm = recipes.algorithm("joslim", steps_per_round=2)
    config.data.holdout = config.scoring.images = 16
    experiment = build(config)
    rows = compile._typical(experiment.algorithm.at(0).step)
    assert rows.shape == (2, len(experiment.net.space))
    for row in rows:
        experiment.net.space.check(row)


@pytest.mark.parametrize(
    "name", ["imagenet_snet", "imagenet100_usnet", "cifar_usnet:model=resnet20,classes=100"]
)
def test_published_data_need_not_be_there(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    info = load_data(config_file.load(f"slimjax:{name}", []), described=True).info
    expected = {
        "imagenet2012": (1000, (224, 224, 3), {"train": 1_281_167, "holdout": 0, "test": 50_000}),
        "imagenet100": (100, (224, 224, 3), {"train": 102_170, "holdout": 0, "test": 25_550}),
        "cifar100": (100, (32, 32, 3), {"train": 50_000, "holdout": 0, "test": 10_000}),
    }
    assert (info.num_classes, info.image_shape, info.splits) == expected[info.name]


def test_every_imagenet_config_is_of_published_data():
    from slimjax.data import sources

    names = [name for name in combinations() if name.startswith("imagenet")]
    assert len(names) > 20
    for name in names:
        assert load(name).data.name in sources._PUBLISHED


# What does not fit


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (OUT_OF_MEMORY, round(21.64 * GIB)),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.5M of 15.75G hbm.",
            512.5 * 2**20,
        ),
        ("RESOURCE_EXHAUSTED: no more", None),
    ],
)
def test_needed_bytes_are_read_from_the_refusal(message, needed):
    assert compile.needed_bytes(message) == needed


def suggestions(topology, needed_of_memory, **train):
    where = Slice.parse(topology)
    needed = needed_of_memory and int(needed_of_memory * where.chip.hbm_bytes)
    return compile.suggest(tiny(**train), where, needed)


def test_suggestions_divide_the_need_by_what_is_there():
    assert suggestions("v5e:4x4", 2.5, batch_size=1024) == [
        "--config.train.micro_batches=4",
        "--config.train.batch_size=400",
        "--topology v5e:8x8",
    ]


def test_suggestions_are_for_twice_the_memory_where_the_need_is_unknown():
    assert suggestions("v5e:4x4", None, batch_size=1024) == suggestions("v5e:4x4", 2.0, batch_size=1024)


def test_suggested_micro_batches_are_more_than_there_are_and_divide_a_chips_images():
    assert (
        suggestions("v5e:4x4", 1.01, batch_size=160, micro_batches=2)[0] == "--config.train.micro_batches=5"
    )


def test_suggestions_are_changes_even_if_the_stated_need_would_fit():
    """The compiler names what temporaries need, which is not all."""
    assert suggestions("v5e:4x4", 0.9, batch_size=1024) == [
        "--config.train.micro_batches=2",
        "--config.train.batch_size=928",
        "--topology v5e:4x8",
    ]


def test_nothing_is_suggested_that_the_config_could_not_run():
    """One image a chip on the largest slice: no parts, no smaller batch, no larger slice."""
    assert suggestions("v5e:16x16", 2.0, batch_size=256) == []


def test_suggestions_are_legal_configs():
    from slimjax.experiment.config import validate

    for override in suggestions("v5e:4x4", 3.3, batch_size=960, micro_batches=2):
        config, where = tiny(batch_size=960, micro_batches=2), "v5e:4x4"
        if override.startswith("--config."):
            key, value = override.removeprefix("--config.train.").split("=")
            config.train[key] = int(value)
        else:
            where = override.split()[1]
        config.evaluation.batch_size = config.calibration.batch_size = config.calibration.images = 1024
        validate(config, Slice.parse(where).chips)


@pytest.mark.usefixtures("eight_cpus")
def test_step_that_the_compiler_refuses_for_memory_is_an_answer(refuses):
    refuses(OUT_OF_MEMORY)
    (answer,) = compile.compile_configs({"tiny.py": tiny()}, "v5e:2x4")
    assert answer["fits"] is False
    assert answer["peak_bytes"] == round(21.64 * GIB)
    assert answer["suggestions"] == compile.suggest(tiny(), Slice.parse("v5e:2x4"), round(21.64 * GIB))
    assert "tiny does not fit. Try one of: --config.train.micro_batches=2" in compile.format_answers([answer])


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("peak", [15 * GIB, 16 * GIB])
def test_step_fits_if_it_needs_no_more_than_the_compiler_grants(yields, peak):
    """Programs may fit one by one, and not together with the batches that wait."""
    yields(peak)
    (answer,) = compile.compile_configs({"tiny.py": tiny()}, "v5e:2x4")
    assert answer["peak_bytes"] == peak
    assert answer["fits"] == (peak < 15.75 * GIB)
    assert bool(answer["suggestions"]) == (not answer["fits"])


# The command


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """Returns a function: text of config files, arguments -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(files, *arguments):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        code = cli.main(["compile", "--config", *files, *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.usefixtures("eight_cpus")
def test_command_answers_every_config_and_says_which_it_could_not(command, yields):
    """The other file's batch does not divide over the chips; an override applies to both."""
    yields(GIB)
    odd = TINY.replace("return", "config.train.batch_size = 60; return")
    files = {"tiny.py": TINY, "odd.py": odd}
    code, out, err = command(files, "--topology", "v5e:2x4", "--json", "--config.train.micro_batches=2")
    assert code == 1
    assert "no answer for odd.py" in err
    good, bad = json.loads(out)["results"]
    assert len(out.splitlines()) == 1
    assert (good["config"], good["fits"], good["micro_batches"]) == ("tiny.py", True, 2)
    assert set(good["mcycles_by_program"]) == {"prepare", "w1.00", "w0.50", "update"}
    assert list(good["mcycles_by_kind"]) == [*hlo.KINDS, "augmentation", "update"]
    assert "expected a multiple of 16" in bad["error"]


@pytest.mark.usefixtures("eight_cpus")
def test_command_prints_an_aligned_table_of_several_configs(command, refuses):
    refuses(OUT_OF_MEMORY)
    code, out, _ = command({"tiny.py": TINY, "a_longer_name.py": TINY}, "--topology", "v5e:2x4")
    first, head, *rows = out.splitlines()[:4]
    assert code == 0
    assert first.startswith("v5e:2x4: 8 chips on 1 host(s), 15.75 GiB each; compiler estimate, 1.5 GHz")
    assert len({len(head), *map(len, rows)}) == 1
    assert [row.split()[:5] for row in rows] == [
        ["tiny", "64", "8", "no", "21.64"],
        ["a_longer_name", "64", "8", "no", "21.64"],
    ]


@pytest.mark.usefixtures("eight_cpus")
def test_failure_of_the_compiler_is_an_error_of_its_config(command, refuses):
    refuses("INTERNAL: Mosaic failed\nmore")
    code, out, err = command({"tiny.py": TINY}, "--topology", "v5e:2x4")
    assert code == 1
    assert "INTERNAL: Mosaic failed" in out
    assert "no answer for tiny.py" in err


@pytest.mark.usefixtures("eight_cpus")
def test_config_that_cannot_run_anywhere_is_the_users_mistake(command):
    code, out, err = command({"tiny.py": TINY}, "--topology", "v5e:2x4", "--config.train.batch_size=63")
    assert (code, out) == (2, "")
    assert "tiny.py: 1 mistake(s)" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--topology", "v5e"], "topology 'v5e': expected KIND:SHAPE"),
        ([], "required: --topology"),
        (["--topology", "v5e:2x2", "--steps", "3"], "unexpected arguments: --steps 3"),
    ],
)
def test_command_refuses(command, arguments, part):
    code, out, err = command({"tiny.py": TINY}, *arguments)
    assert (code, out) == (2, "")
    assert part in err


# With the TPU compiler


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install -e '.[tpu-compile]'",
)


@needs_libtpu
def test_step_that_the_tpu_compiler_refuses_for_memory_does_not_fit():
    config = tiny(batch_size=8192)
    config.data.image_size = 128
    config.model.options = {"channels": (64, 128, 256)}
    (answer,) = compile.compile_configs({"large": config}, "v5e:2x2")
    assert answer["fits"] is False
    assert answer["peak_bytes"] > 15.75 * GIB
    assert answer["suggestions"][0].startswith("--config.train.micro_batches=")


@needs_libtpu
@pytest.mark.slow
def test_config_is_compiled_for_a_slice_that_is_not_there():
    """Twice the images in twice the micro-batches take about twice as long, and twice the FLOPs.

    Each subnet averages its statistics over the devices once a micro-batch; gradients cross them once.
    """
    configs = {"one": tiny(), "two": tiny(batch_size=128, micro_batches=2)}
    one, two = compile.compile_configs(configs, "v5e:2x2")
    assert one["chips"] == 4
    assert one["fits"]
    assert [answer["collectives"]["all-reduce"]["count"] for answer in (one, two)] == [1 + 2, 1 + 2 * 2]
    assert 0 < one["utilisation"] < 1
    slots = [name for name in one["mcycles_by_program"] if name.startswith("w")]
    cycles = [sum(answer["mcycles_by_program"][name] for name in slots) for answer in (one, two)]
    assert 1.5 < cycles[1] / cycles[0] < 3
    assert two["flops_per_chip"] / one["flops_per_chip"] == pytest.approx(2, rel=0.1)
