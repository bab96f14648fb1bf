"""The shipped configs: headers that hold, and runs that build, trace, train and resume on mock data."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from helpers.paths import CONFIGS
from helpers.runs import flat
from slimjax.experiment import config_file
from slimjax.experiment.build import Experiment, build
from slimjax.experiment.config import validate
from slimjax.experiment.loop import train
from slimjax.verbs import cli
from slimjax.verbs.search import Search
from slimjax.workdir import metrics
from slimjax.workdir.checkpoint import Checkpointer

FILES = sorted(CONFIGS.glob("*.py"))
IMAGES = 16  # of every mocked split


def header(path: Path) -> str:
    """The docstring, with continued lines joined."""
    return re.match(r'r?"""(.*?)"""', path.read_text(), re.DOTALL)[1].replace("\\\n", "")


def load(path: Path, *overrides: str):
    return config_file.load(str(path), [f"--config.{override}" for override in overrides])


def number(text: str) -> int:
    return int(text.replace(",", ""))


class MyData(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The user's own data set that own_*.py is about, as small as can be."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS need not look for a list of check sums beside this file

    def _info(self):
        features = {
            "image": tfds.features.Tensor(shape=(32, 32, 3), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
        yield from ((i, {"image": images[i], "label": i % 10}) for i in range(IMAGES))


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> Path:
    """List files with one image of each of 100 classes."""
    root = tmp_path_factory.mktemp("listed")
    for label in range(100):
        Image.new("RGB", (8, 8), (label, 0, 0)).save(root / f"{label}.png")
    for split in ("train", "test"):
        lines = [f"{label}.png {label}\n" for label in range(100)]
        (root / f"imagenet100_{split}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("own")
    MyData(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@pytest.fixture(scope="module")
def prepared(listed, own):
    """Returns a function: config -> context in which its data is there, through the real loading code."""

    def enter(config) -> contextlib.AbstractContextManager:
        config.data.holdout = min(config.data.holdout, IMAGES // 2)
        config.scoring.images = min(config.scoring.images, IMAGES // 2)
        if config.data.name in ("imagenet100", "my_data"):
            config.data.data_dir = str(listed if config.data.name == "imagenet100" else own)
            return contextlib.nullcontext()
        policy = tfds.testing.MockPolicy.USE_CODE
        return tfds.testing.mock_data(num_examples=IMAGES, policy=policy)

    return enter


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def experiment(path, prepared) -> Experiment:
    config = load(path)
    with prepared(config):
        return build(config)


@pytest.mark.parametrize("entry", ["Paper", "Command", "Hardware", "Expected"])
def test_header_has_entry(path, entry):
    assert re.search(rf"^{entry}: \S", header(path), re.MULTILINE)


def test_header_command_names_the_file(path):
    assert f"Command: slimjax train --config configs/{path.name} --workdir runs/" in header(path)


def test_header_overrides_are_accepted(path):
    """Those of each line by themselves: alternatives may exclude one another."""
    for line in header(path).splitlines():
        overrides = re.findall(r"--config\.(\S+=\S+)", line)
        placeholders = ("FILE", "DIR", "NAME", "K")
        config = load(path, *(o for o in overrides if not o.endswith(placeholders)))
        validate(config, device_count=8)


def test_header_search_is_of_what_the_command_has_trained(path, experiment):
    """And its budgets are within reach."""
    text = re.search(r"^Then: slimjax (search .*)$", header(path), re.MULTILINE)
    assert text or not re.search("bignas|autoslim", path.stem)
    if text is None:
        return
    asked, rest = cli.make_parser().parse_known_args(shlex.split(text[1]))
    assert not rest
    search = Search(asked.workdir, tuple(asked.budget), asked.method, asked.images, asked.trials, asked.split)
    net, budgets = experiment.net, [budget.absolute(experiment.net) for budget in search.parsed()]
    assert net.macs(net.space.lowest) <= min(budgets) <= max(budgets) <= net.macs(net.space.largest)
    run = f"runs/{Path(search.directory).name}"  # the parser makes it absolute
    assert re.search(rf"^Command: .* --workdir {run}$", header(path), re.MULTILINE)
    retrained = f"slimjax train --config {run}/search-greedy/retrain.py"
    assert search.method != "greedy" or retrained in header(path)


COMPARED = [path for path in FILES if path.stem.endswith(("_bignas", "_usnet"))]
COMPARED = [path for path in COMPARED if path.with_stem(re.sub("_[a-z]+$", "_joslim", path.stem)) in FILES]
OWN_RECIPE = ("digits_resnet8_usnet", "imagenet_mobilenet_v2_usnet")  # not for comparison with Joslim


@pytest.mark.parametrize(
    "path", [path for path in COMPARED if path.stem not in OWN_RECIPE], ids=lambda path: path.stem
)
def test_what_is_compared_with_joslim_differs_in_the_algorithm_only(path):
    """US-Nets on CIFAR with the overrides that their headers give."""
    line = re.search(r"^With Joslim's settings.*$", header(path), re.MULTILINE)
    ours = flat(load(path, *re.findall(r"--config\.(\S+)", line[0] if line else "")))
    joslim = flat(load(path.with_stem(re.sub("_[a-z]+$", "_joslim", path.stem))))
    assert ours["algorithm.name"] != joslim["algorithm.name"]
    names = {name for name in ours | joslim if not name.startswith("algorithm.")}
    assert {name: ours.get(name) for name in names} == {name: joslim.get(name) for name in names}


def test_config_values_are_valid_on_eight_devices(path):
    validate(load(path), device_count=8)


def test_header_network_is_what_is_built(path, experiment):
    stated = re.search(
        r"^Network.*: (\d+) groups, ([\d,]+) MACs at width (\S+) to ([\d,]+)", header(path), re.MULTILINE
    )
    if stated is None:  # an embedded data set's config may leave it out
        assert path.stem.startswith("mnist5k")
        return
    net = experiment.net
    assert len(net.space.groups) == int(stated[1])
    assert net.macs(net.space.smallest) == number(stated[2])
    assert net.space.min_width == float(stated[3])
    assert net.macs(net.space.largest) == number(stated[4])


def test_published_widths_cost_what_the_header_says(path, experiment):
    for width, millions in re.findall(r"(\d[\d.]*): [\d.]+ \((\d+)\)", header(path)):
        macs = experiment.net.macs(experiment.net.space.uniform(float(width)))
        assert abs(macs / 1e6 - int(millions)) < 1  # US-Net's authors truncate, S-Net's round


def test_published_widths_are_evaluated(path, experiment):
    published = {float(w) for w in re.findall(r"(\d[\d.]*): [\d.]+ \(\d+\)", header(path))}
    if not published:
        return
    like = jax.eval_shape(lambda: experiment.algorithm.init(0))
    chosen = experiment.algorithm.choose(like, experiment.evaluation_subnets())
    subnets = {tuple(choice.subnet.tolist()) for choice in chosen.values()}
    assert {tuple(experiment.net.space.uniform(w).tolist()) for w in published} <= subnets


# A trace takes seconds; these steps are those of others with more classes, channels, or fewer blocks.
LIKE_OTHERS = (
    "cifar100|resnet32|resnet44|autoslim|v3_small|imagenet_resnet50_usnet"
    "|(net56|imagenet.*)_joslim|(cifar|imagenet).*_bignas"
)
TRACED = [path for path in FILES if not re.search(LIKE_OTHERS, path.stem)]


@pytest.mark.parametrize("path", TRACED, indirect=True, ids=lambda path: path.stem)
def test_step_traces_and_keeps_the_state(experiment):
    size = experiment.config.train.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, *experiment.dataset.info.image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
    }
    algorithm = experiment.algorithm
    state = jax.eval_shape(lambda: algorithm.init(0))
    arrays = algorithm.init(0).algorithm if "joslim" in experiment.config.algorithm.name else {}
    after, _ = algorithm.step.shapes(state, batch, algorithm.propose(arrays, 0))
    assert after == state


TRAINED = {
    "digits_resnet8_usnet": ("evaluation.widths=0.5,1",),
    "digits_resnet8_snet": (),
    "cifar10_resnet20_usnet": ("evaluation.widths=0.5,1",),
    # Only the largest and the smallest: random widths are in the others, and compile for half a minute.
    "imagenet_mobilenet_v1_usnet": (
        "data.image_size=32",
        "evaluation.widths=0.25,1",
        "algorithm.num_subnets=2",
    ),
}
TINY = (
    "devices=1", "train.steps=3", "train.log_every=1", "train.checkpoint_every=1", "train.batch_size=8",
    "calibration.images=8", "calibration.batch_size=8", "evaluation.batch_size=8",
)  # fmt: skip


@pytest.fixture
def compile_cache(tmp_path) -> Iterator[None]:
    """The resumed run takes its programs from the interrupted one's, as it does on the command line."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


class Interrupted(Exception):
    """Stops a run."""


def run_until(step: int, config, directory: str, monkeypatch) -> None:
    """Trains, and stops when that step's checkpoint is kept."""
    save = Checkpointer.save

    def save_and_stop(self, done, tree):
        save(self, done, tree)
        if done == step:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", save_and_stop)
        with pytest.raises(Interrupted):
            train(config, directory)


@pytest.mark.slow
@pytest.mark.usefixtures("compile_cache")
@pytest.mark.parametrize("name", TRAINED)
def test_run_trains_two_steps_and_resumes_to_three(name, prepared, tmp_path, monkeypatch, capsys):
    path = next(path for path in FILES if path.stem == name)
    config = load(path, *TINY, *TRAINED[name])
    with prepared(config):
        run_until(2, config, str(tmp_path), monkeypatch)
        rows = train(config, str(tmp_path))
    assert "2 done, 1 to go" in capsys.readouterr().err
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert all(np.isfinite(row["loss"]) for row in rows)
