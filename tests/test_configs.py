"""The shipped configs: headers that hold, and runs that build, trace, train and resume on mock data."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from helpers.paths import CONFIGS, REPOSITORY
from helpers.runs import flat
from helpers.shipped import combinations, load
from slimjax.experiment import config_file
from slimjax.experiment.build import Experiment, build
from slimjax.experiment.config import validate
from slimjax.experiment.loop import train
from slimjax.verbs import cli
from slimjax.verbs.search import asked
from slimjax.workdir import metrics
from slimjax.workdir.checkpoint import Checkpointer

FILES = sorted(CONFIGS.glob("*.py"))
NETWORKS = (REPOSITORY / "docs/results/networks.md").read_text()
IMAGES = 16  # of every mocked split


def header(path: Path) -> str:
    """The docstring, with continued lines joined."""
    return re.match(r'r?"""(.*?)"""', path.read_text(), re.DOTALL)[1].replace("\\\n", "")


def file(combination: str) -> Path:
    return CONFIGS / f"{combination.partition(':')[0]}.py"


def number(text: str) -> int:
    return int(text.replace(",", ""))


def table(*columns: str) -> dict[str, list[list[str]]]:
    """The other cells of the rows of all tables that have these columns after configs and arguments, by combination."""
    found: dict[str, list[list[str]]] = {}
    for title, body in re.findall(
        r"^\| Configs? \| Arguments \|(.*)\|\n.*\n((?:\|.*\n)+)", NETWORKS, re.MULTILINE
    ):
        if tuple(cells(title)) != columns:
            continue
        for names, arguments, *rest in map(cells, body.splitlines()):
            for name in re.findall(r"`(\w+)`", names):
                found.setdefault(":".join(filter(None, (name, arguments.strip("`")))), []).append(rest)
    return found


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


SIZES = table("Image", "Classes", "Groups", "Smallest width", "MACs there", "MACs at full size")
PUBLISHED = table("Width: top-1 error in % (millions of MACs)")
SLIMMED = table("Budgets", "Top-1 error in %")


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


@pytest.fixture(scope="module", params=combinations())
def combination(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def experiment(combination, prepared) -> Experiment:
    config = load(combination)
    with prepared(config):
        return build(config)


@pytest.mark.parametrize("entry", ["Paper", "Command", "Hardware", "Expected"])
def test_header_has_entry(path, entry):
    assert re.search(rf"^{entry}: \S", header(path), re.MULTILINE)


def command(path: Path):
    """The parsed command of a header, and its overrides."""
    text = re.search(r"^Command: slimjax (train .*)$", header(path), re.MULTILINE)[1]
    return cli.make_parser().parse_known_args(shlex.split(text))


def test_header_command_names_the_file_with_arguments_that_it_takes(path):
    asked, _ = command(path)
    name, _, arguments = asked.config.partition(".py")
    assert (name, arguments.count("=")) == (f"configs/{path.stem}", arguments.count(",") + bool(arguments))
    assert not arguments or f"{path.stem}{arguments}" in combinations()
    assert re.search(r"/runs/\w+$", asked.workdir)


def test_header_overrides_are_accepted(path):
    """Those of each line by themselves: alternatives may exclude one another."""
    config_of = command(path)[0].config.removeprefix("configs/").replace(".py", "")
    for line in header(path).splitlines():
        overrides = re.findall(r"--config\.(\S+=\S+)", line)
        placeholders = ("FILE", "DIR", "NAME", "K")
        config = load(config_of, *(o for o in overrides if not o.endswith(placeholders)))
        validate(config, device_count=8)


def test_header_names_only_configs_and_pages_that_are_there(path):
    for name in re.findall(r"[\w/]+\.(?:md|py)\b", header(path).replace("retrain.py", "")):
        assert (REPOSITORY / name).exists() or (CONFIGS / name).exists(), name
    for named in re.findall(r"--config (configs/\S+\.py\S*)", header(path)):
        config_file.load(str(REPOSITORY / named), [])


def test_header_search_is_of_what_the_command_has_trained(path):
    asked = then(path)
    assert asked or not re.search("bignas|autoslim", path.stem)
    if asked is None:
        return
    run = f"runs/{Path(asked.workdir).name}"  # the parser makes it absolute
    assert command(path)[0].workdir == asked.workdir
    retrained = f"slimjax train --config {run}/search-greedy/retrain.py"
    assert asked.method != "greedy" or retrained in header(path)


def then(path: Path):
    """The parsed search of a header; None: it has none."""
    text = re.search(r"^Then: slimjax (search .*)$", header(path), re.MULTILINE)
    if text is None:
        return None
    asked, rest = cli.make_parser().parse_known_args(shlex.split(text[1]))
    assert not rest
    return asked


def test_budgets_of_searches_are_within_reach(combination, experiment):
    """Those of the page, or of the header, which has them for all its networks where the page has none."""
    arguments = then(file(combination))
    if arguments is None:
        return
    if combination in SLIMMED:
        arguments.budget = re.findall(r"`(.*?)`", SLIMMED[combination][0][0])
    search = asked(arguments)
    net, budgets = experiment.net, [budget.absolute(experiment.net) for budget in search.parsed()]
    assert net.macs(net.space.lowest) <= min(budgets) <= max(budgets) <= net.macs(net.space.largest)


def test_published_networks_of_autoslim_have_an_error_each_and_the_header_has_the_budgets_of_its_command():
    for combination, ((budgets, errors),) in SLIMMED.items():
        found = re.findall(r"\d\d\.\d", errors)
        assert errors == "not published" or len(found) == budgets.count("<=")
        if combination in command(file(combination))[0].config.replace(".py", ""):
            assert then(file(combination)).budget == re.findall(r"`(.*?)`", budgets)
    autoslim = {name for name in combinations() if name.startswith("imagenet_autoslim")}
    assert set(SLIMMED) == autoslim


def joslims(combination: str) -> str:
    """The Joslim config with the same data and arguments."""
    return re.sub(r"^(\w+)_[a-z]+", r"\1_joslim", combination)


SAME_AS_JOSLIM = [
    (name, joslims(name))
    for name in combinations()
    if re.match(r"\w+_(bignas|usnet)\b", name) and joslims(name) in combinations()
    if name != "imagenet_usnet:model=us_mobilenet_v2"  # its own recipe, not for comparison with Joslim
] + [("digits_bignas", "digits_joslim:wide=false")]


@pytest.mark.parametrize(("ours", "joslim"), SAME_AS_JOSLIM)
def test_what_is_compared_with_joslim_differs_in_the_algorithm_only(ours, joslim):
    """US-Nets on CIFAR and BigNAS with the overrides that their headers give."""
    line = re.search(r"^With Joslim's settings(?:.*\\\n)*.*$", header(file(ours)), re.MULTILINE)
    one = flat(load(ours, *re.findall(r"--config\.(\S+)", line[0] if line else "")))
    other = flat(load(joslim))
    assert one["algorithm.name"] != other["algorithm.name"]
    names = {name for name in one | other if not name.startswith("algorithm.")}
    assert {name: one.get(name) for name in names} == {name: other.get(name) for name in names}


def test_bignas_and_usnet_are_compared_with_joslim_on_every_data_set_that_it_has():
    """8 ResNets and 3 ImageNet networks for BigNAS, 8 and 2 for US-Net, and the digits."""
    assert len(SAME_AS_JOSLIM) == 8 + 3 + 8 + 2 + 1


def test_config_values_are_valid_on_eight_devices(combination):
    validate(load(combination), device_count=8)


def test_page_has_every_network_once_and_no_other():
    assert set(SIZES) == set(combinations())
    assert all(len(rows) == 1 for rows in SIZES.values())


def test_network_is_what_the_page_says(combination, experiment):
    net, info = experiment.net, experiment.dataset.info
    space, (row,) = net.space, SIZES[combination]
    image, classes, groups, min_width, least, most = row
    assert image == "x".join(map(str, info.image_shape))
    assert number(classes) == info.num_classes
    assert int(groups) == len(space.groups)
    assert float(min_width) == space.min_width
    assert number(least) == net.macs(space.smallest)
    assert number(most) == net.macs(space.largest)


@pytest.mark.parametrize("combination", ["imagenet_snet:model=s_mobilenet_v2"], indirect=True)
def test_described_state_is_the_one_that_is_trained(experiment):
    """What `slimjax compile` compiles for: with the norm that all switches have in common."""
    described = experiment.abstract_state()
    trained = jax.eval_shape(lambda: experiment.algorithm.init(0))
    assert jax.tree.map(jnp.shape, described) == jax.tree.map(jnp.shape, trained)
    assert set(described.affine["common"]) == {"tail_norm"}


def published(combination: str) -> dict[float, int]:
    """Millions of MACs by width."""
    rows = PUBLISHED.get(combination, [])
    found = [pair for row in rows for pair in re.findall(r"(\d[\d.]*): [\d.]+ \((\d+)\)", row[0])]
    return {float(width): int(millions) for width, millions in found}


def test_published_networks_are_those_of_the_papers():
    """4, 4, 4 and 3 switches; 20 and 19 widths."""
    counts = {name: len(published(name)) for name in PUBLISHED}
    assert sorted(counts.values()) == [3, 4, 4, 4, 19, 20]
    assert set(counts) <= set(combinations())


@pytest.mark.parametrize("combination", PUBLISHED, indirect=True)
def test_published_widths_cost_what_the_page_says(combination, experiment):
    for width, millions in published(combination).items():
        macs = experiment.net.macs(experiment.net.space.uniform(width))
        assert abs(macs / 1e6 - millions) < 1  # US-Net's authors truncate, S-Net's round


@pytest.mark.parametrize("combination", PUBLISHED, indirect=True)
def test_published_widths_are_evaluated(combination, experiment):
    like = jax.eval_shape(lambda: experiment.algorithm.init(0))
    chosen = experiment.algorithm.choose(like, experiment.evaluation_subnets())
    subnets = {tuple(choice.subnet.tolist()) for choice in chosen.values()}
    assert {tuple(experiment.net.space.uniform(w).tolist()) for w in published(combination)} <= subnets


def test_ranges_of_the_page_are_those_that_the_header_has_commands_for():
    ranges = re.findall(r"^\| (\[.*?\]) \| (.*) \|$", NETWORKS, re.MULTILINE)
    assert len(ranges) == 2
    for span, errors in ranges:
        line = re.search(
            rf"^Range {re.escape(span)}: .*widths=(\S+)$", header(CONFIGS / "imagenet_usnet.py"), re.MULTILINE
        )
        assert line[1].split(",") == re.findall(r"([\d.]+): ", errors)


# A trace takes seconds to minutes; these steps are those of others with other numbers of classes, channels or blocks.
# TF-NAS's published network has the step of a found one that is retrained (tests/algorithms/test_tfnas.py).
LIKE_OTHERS = (
    "classes=100|resnet32|resnet44|digits_autoslim|imagenet_autoslim:model=(?!autoslim_mnasnet)|v3_small|imagenet_usnet:model=resnet50"
    "|cifar_joslim.*net56|imagenet_joslim|(cifar|imagenet)_bignas"
    "|(wpc|jst).*net5|imagenet(100)?_tfnas|imagenet2048"
)
TRACED = [name for name in combinations() if not re.search(LIKE_OTHERS, name)]


@pytest.mark.parametrize("combination", TRACED, indirect=True)
def test_step_traces_and_keeps_the_state(experiment):
    size = experiment.config.train.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, *experiment.dataset.info.image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
    }
    algorithm = experiment.algorithm
    state = jax.eval_shape(lambda: algorithm.init(0))
    arrays = algorithm.init(0).algorithm
    for phase in {phase.name: phase for phase in algorithm.phases}.values():
        after, _ = phase.step.shapes(state, batch, algorithm.propose(arrays, phase.first))
        assert after == state, phase.name


TRAINED = {
    "digits_usnet": ("evaluation.widths=0.5,1",),
    "digits_snet": (),
    "cifar_usnet:model=resnet20,classes=10": ("evaluation.widths=0.5,1",),
    # Only the largest and the smallest: random widths are in the others, and compile for half a minute.
    "imagenet_usnet:model=us_mobilenet_v1": (
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
    config = load(name, *TINY, *TRAINED[name])
    with prepared(config):
        run_until(2, config, str(tmp_path), monkeypatch)
        rows = train(config, str(tmp_path))
    assert "2 done, 1 to go" in capsys.readouterr().err
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert all(np.isfinite(row["loss"]) for row in rows)
