"""Config files with arguments: what `FILE:name=value` gives, and what each mistake is told."""

import pytest
from ml_collections import ConfigDict

from helpers.runs import flat
from helpers.shipped import combinations, load
from slimjax.algorithms import ALGORITHMS
from slimjax.errors import HelpAsked, UserError
from slimjax.experiment import config_file, recipes, signature
from slimjax.experiment.config import algorithm_options, complete

FILE = '''"""Mine.

More.
"""
from typing import Literal
from slimjax.experiment import recipes

SIZES = {"small": 8, "large": 64}


def get_config(
    size: Literal[tuple(SIZES)] = "small",
    rate: float = 0.1,
    steps: int = 3,
    distil: bool = True,
    name: str = "digits",
    widen: float | None = None,
    untyped=2,
):
    config = recipes.embedded(name)
    config.train.batch_size = SIZES[size]
    config.given = (rate, steps, distil, widen, untyped)
    return config
'''


@pytest.fixture
def mine(tmp_path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return str(path)


def given(named: str) -> tuple:
    config = config_file.load(named, [])
    return (config.train.batch_size, config.data.name, *config.given)


def test_arguments_are_of_the_types_that_the_signature_says(mine):
    assert given(mine) == (8, "digits", 0.1, 3, True, None, 2)
    text = "size=large,rate=1e-3,steps=7,distil=false,name=mnist5k,widen=2,untyped=5"
    found = given(f"{mine}:{text}")
    assert found == (64, "mnist5k", 1e-3, 7, False, 2.0, 5)
    assert [type(value) for value in found] == [int, str, float, int, bool, float, int]
    assert given(f"{mine}: rate = 2 , widen=none ") == (8, "digits", 2.0, 3, True, None, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise=large", "sise: no such argument. Did you mean size?"),
        ("x=1", "x: no such argument."),
        ("large", "expected NAME=VALUE,NAME=VALUE, got 'large'."),
        ("size=large,", "expected NAME=VALUE,NAME=VALUE, got ''."),
        ("size=large,size=small", "size: given twice."),
        ("size=huge", "size: expected one of small, large, got 'huge'."),
        ("rate=fast", "rate: expected a number, got 'fast'."),
        ("steps=2.5", "steps: expected an integer, got '2.5'."),
        ("steps=", "steps: expected an integer, got ''."),
        ("distil=maybe", "distil: expected true or false, got 'maybe'."),
        ("widen=wide", "widen: expected a number, or none, got 'wide'."),
    ],
)
def test_mistakes_in_arguments_name_file_argument_and_what_there_is(mine, text, message):
    with pytest.raises(UserError) as error:
        config_file.load(f"{mine}:{text}", [])
    first, _, listed = str(error.value).partition("\n")
    assert first == f"{mine}: {message}"
    assert listed.splitlines()[:2] == [
        "Arguments, with their defaults:",
        "  size=small   one of small, large",
    ]


def test_help_lists_the_arguments_with_defaults(mine):
    with pytest.raises(HelpAsked) as asked:
        config_file.load(f"{mine}:help", [])
    assert str(asked.value).splitlines() == [
        f"{mine}: Mine.",
        "Arguments, with their defaults:",
        "  size=small   one of small, large",
        "  rate=0.1     a number",
        "  steps=3      an integer",
        "  distil=true  true or false",
        "  name=digits  a text",
        "  widen=none   a number, or none",
        "  untyped=2    an integer",
    ]


def test_arguments_without_a_default_must_be_given(tmp_path):
    path = tmp_path / "needs.py"
    path.write_text(
        "from slimjax.experiment import recipes\n"
        "def get_config(run: str):\n"
        "    return recipes.embedded(run)\n"
    )
    with pytest.raises(UserError, match="run: expected a text; it is not given"):
        config_file.load(str(path), [])
    assert config_file.load(f"{path}:run=mnist5k", []).data.name == "mnist5k"


def test_a_file_without_arguments_takes_none(tmp_path):
    path = tmp_path / "none.py"
    path.write_text("def get_config():\n    return None\n")
    with pytest.raises(UserError, match=r"a: no such argument.\nIt takes no arguments."):
        config_file.load(f"{path}:a=1", [])


def test_a_file_that_fails_for_an_argument_is_named_with_its_line(tmp_path):
    path = tmp_path / "fails.py"
    path.write_text("def get_config(n: int = 1):\n    return {1: None}[n]\n")
    with pytest.raises(UserError, match=r"fails.py, line 2: KeyError: 3"):
        config_file.load(f"{path}:n=3", [])


def test_a_shipped_config_needs_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_file.load("slimjax:cifar_usnet:model=resnet56,classes=100", ["--config.seed=3"])
    assert (config.model.name, config.data.name, config.seed) == ("resnet56", "cifar100", 3)


def test_a_shipped_config_that_is_not_there_is_told_the_nearest():
    with pytest.raises(UserError, match=r"no such config: slimjax:cifar_unset. Did you mean cifar_usnet\?"):
        config_file.load("slimjax:cifar_unset", [])


@pytest.mark.parametrize(
    "named", ["configs/cifar_usnet.py:model=resnet20", "slimjax:cifar_usnet:model=resnet20"]
)
def test_short_names_say_the_arguments(named):
    assert config_file.short_name(named) == "cifar_usnet:model=resnet20"


# Options of algorithms


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_loaded_config_has_every_option_of_its_algorithm_with_the_default_of_the_signature(name):
    config = config_file.load("slimjax:digits_usnet", [f"--config.algorithm.name={name}"])
    options = {key: value for key, value in config.algorithm.to_dict().items() if key != "name"}
    known = algorithm_options(name)
    assert set(options) == set(known)
    for key, value in options.items():
        assert value == (dict if known[key].kind is dict else lambda default: default)(known[key].default)


def test_every_option_of_an_algorithm_can_be_overridden_though_no_recipe_names_it():
    values = {int: 3, float: 0.25, bool: False, str: "x", tuple: (0.5,)}
    for name in ALGORITHMS:
        for key, option in algorithm_options(name).items():
            if option.kind is dict:
                continue
            value = values[option.kind]
            text = str(value).strip("(),")
            found = config_file.load(
                "slimjax:digits_usnet",
                [f"--config.algorithm.name={name}", f"--config.algorithm.{key}={text}"],
            )
            assert found.algorithm[key] == value
            assert type(found.algorithm[key]) is option.kind


def test_overrides_of_nested_options_are_accepted():
    config = config_file.load("slimjax:digits_joslim", ["--config.algorithm.search.tolerance=0.5"])
    assert config.algorithm.search.to_dict() == {"bound": "lower", "tolerance": 0.5}


def test_what_a_recipe_says_is_kept_and_completing_again_changes_nothing():
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("joslim", steps_per_round=7)
    complete(config)
    assert (config.algorithm.steps_per_round, config.algorithm.num_sampled) == (7, 2)
    before = flat(config)
    complete(config)
    assert flat(config) == before


def test_an_unset_option_is_held_to_the_type_of_its_annotation():
    config = load("digits_joslim:wide=false", "algorithm.table=7")
    assert config.algorithm.table == "7"
    with pytest.raises(TypeError, match="str"):
        config.algorithm.table = 7


def test_a_section_that_is_no_section_is_left_to_the_check():
    complete(ConfigDict({"algorithm": "usnet"}))
    complete(ConfigDict({}))


def test_names_of_types_that_only_a_checker_sees_do_not_matter():
    def function(engine: "NotImported", *, options: int = 3):  # noqa: F821
        del engine, options

    assert signature.of(function)["options"].kind is int


def test_there_are_all_the_runs_of_the_first_version_and_four_of_vgg():
    """71 files of version 0.1.0 are arguments of 17; two of them take VGG-16, with 10 and 100 classes."""
    systems = ("snet", "usnet", "autoslim", "joslim", "bignas", "mnasnet")
    first = {name for name in combinations() if any(f"_{system}" in name for system in systems)}
    first -= {"mnist5k_bignas", "imagenet_bignas:model=ofa_mobilenet_v3"}  # which are newer
    first = {name for name in first if not name.startswith("imagenet2048_usnet")}
    vgg = {name for name in first if "vgg" in name}
    assert len(vgg) == 4
    assert len(first - vgg) == 71
