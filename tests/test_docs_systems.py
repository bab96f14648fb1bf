"""The page of each system: its parts, its options as the code has them, its configs, and its picture."""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import pytest

from helpers import pages
from helpers.pages import DOCS, title
from helpers.paths import CONFIGS
from slimjax.algorithms import ALGORITHMS
from slimjax.search.bayes_options import BayesOptions

SYSTEMS = DOCS / "systems"
NAMES = sorted({path.stem.rpartition("_")[2] for path in CONFIGS.glob("*.py")})
PARTS = ["What the paper does", "What slimjax does", "What differs", "Run it", "What came out"]
OPTION = re.compile(r"^\| `(algorithm\.[\w.]+)` \| `?([^|`]*)`? \|", re.MULTILINE)
PICTURES = sorted(DOCS.rglob("*.svg"))


def shown(value) -> str:
    """A default as a page has it: what is written after the `=` of an override."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def options(name: str) -> dict[str, str]:
    """Defaults of what a config may say of an algorithm; those of Joslim's search by their own names."""
    defaults = {key: p.default for key, p in list(inspect.signature(ALGORITHMS[name]).parameters.items())[1:]}
    if isinstance(defaults.get("search"), Mapping):
        del defaults["search"]
        defaults |= {f"search.{key}": value for key, value in dataclasses.asdict(BayesOptions()).items()}
    return {f"algorithm.{key}": shown(value) for key, value in defaults.items()}


@pytest.mark.parametrize("name", NAMES)
def test_each_system_that_has_configs_has_a_page_of_all_parts(name):
    text = (SYSTEMS / f"{name}.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == PARTS
    assert f"]({name}.svg)" in text
    assert "](../fidelity.md#" in text


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_page_has_every_option_with_its_default(name):
    assert dict(OPTION.findall((SYSTEMS / f"{name}.md").read_text())) == options(name)


@pytest.mark.parametrize("name", NAMES)
def test_page_runs_every_config_of_its_system(name):
    text = " ".join(" ".join(words) for words in pages.commands(SYSTEMS / f"{name}.md"))
    missing = [p.name for p in CONFIGS.glob(f"*_{name}.py") if f"configs/{p.name}" not in text]
    assert missing == []


def test_there_are_pictures():
    assert {path.stem for path in PICTURES} >= set(NAMES)


@pytest.mark.parametrize("picture", PICTURES, ids=title)
def test_picture_is_plain_and_suits_both_themes(picture):
    """Well-formed, with a title; it loads nothing, and its only colour is that of the theme."""
    root = ElementTree.parse(picture).getroot()
    elements = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert elements >= {"title", "style"}
    assert not elements & {"script", "image", "foreignObject", "use", "a"}
    text = picture.read_text()
    colours = set(re.findall(r"(?:fill|stroke)\s*[:=]\s*[\"']?([#\w()-]+)", text))
    assert colours == {"none", "currentColor"}
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"url\((?!#)|@import|@font-face|href", text)
