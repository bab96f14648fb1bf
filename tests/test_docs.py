"""What README and the docs say: every command is parsed, every snippet runs, and what they name is there."""

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
from pathlib import Path

import pytest

import slimjax
from helpers import pages
from helpers.pages import DOCS, PAGES, title
from helpers.paths import REPOSITORY
from slimjax.algorithms import ALGORITHMS
from slimjax.errors import UserError
from slimjax.experiment import config_file
from slimjax.experiment.build import build
from slimjax.experiment.config import default_config, validate
from slimjax.search.bayes_options import BayesOptions
from slimjax.verbs import cli

COMMANDS = [(page, words) for page in PAGES for words in pages.commands(page)]
MENTIONS = [(page, words) for page in PAGES for words in pages.mentions(page)]


def ids(found):
    return [f"{title(page)}: {' '.join(words)[:70]}" for page, words in found]


def parsed(words):
    return cli.make_parser().parse_known_args(words[1:])


@functools.cache
def made() -> set[str]:
    """Directories and files that the commands of the pages write."""
    found = set()
    for _, words in COMMANDS:
        with contextlib.suppress(UserError, SystemExit):
            arguments, _ = parsed(words)
            found |= {os.path.abspath(arguments.out)} if "out" in arguments else set()
            if words[1] == "train":
                found.add(arguments.workdir)
                system = Path(without_arguments(arguments.config)).stem.rpartition("_")[2]
                found.add(f"{arguments.workdir}/search-{system}/retrain.py")  # of those that find subnets
            if words[1] == "search":
                found.add(f"{arguments.workdir}/search-{arguments.method}/retrain.py")
    return found


def read_by(words) -> set[str]:
    """Directories and files, but configs, that a command reads."""
    arguments, rest = parsed(words)
    found = set() if words[1] in ("train", "bench") else set(as_list(getattr(arguments, "workdir", None)))
    named = [*as_list(getattr(arguments, "table", None)), *as_list(getattr(arguments, "tables", None))]
    named += [text.partition("@")[2] for text in as_list(getattr(arguments, "budget", None)) if "@" in text]
    named += [text.partition("=")[2] for text in rest if text.startswith("--config.algorithm.table=")]
    return found | {os.path.abspath(name) for name in named}


def without_arguments(config: str) -> str:
    return config.partition(":")[0]


def as_list(value) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Commands are given in the repository's root; a bucket's client need not be installed."""
    monkeypatch.chdir(REPOSITORY)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: name == "gcsfs" or found(name, *rest))


def parser_of(words) -> argparse.ArgumentParser:
    """That of the verb, or of the tool, that is named."""
    parser = cli.make_parser()
    for word in words[1:]:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if below and not word.startswith("-"):
            assert word in below[0].choices
            parser = below[0].choices[word]
    return parser


def test_pages_have_commands():
    assert len(COMMANDS) > 60
    assert len(MENTIONS) > 40
    assert {page.name for page, _ in COMMANDS} >= {
        "README.md",
        "cli.md",
        "search.md",
        "claims.md",
        "latency.md",
    }


@pytest.mark.parametrize(("page", "words"), MENTIONS, ids=ids(MENTIONS))
def test_verb_and_options_that_are_mentioned_exist(page, words):
    if words[1] == "VERB":
        return
    known = parser_of(words)._option_string_actions
    assert [word for word in words if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=ids(COMMANDS))
def test_command_is_accepted_with_its_config(page, words):
    arguments, rest = parsed(words)
    configs = as_list(getattr(arguments, "config", None))
    assert configs or not rest, "nothing else takes overrides"
    for config in configs:
        if os.path.abspath(without_arguments(config)) not in made():
            validate(config_file.load(config, rest), device_count=1)


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=ids(COMMANDS))
def test_command_reads_what_some_command_has_written(page, words):
    assert read_by(words) <= made()


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_python_snippets_run(page, tmp_path, monkeypatch, capsys):
    """Those of a page one after the other, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("snippets")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    for number, code in enumerate(pages.snippets(page), 1):
        exec(compile(code, f"{title(page)}, snippet {number}", "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page):
    for link in pages.links(page):
        assert link.path.exists(), link.target
        assert REPOSITORY in link.path.parents
        assert not link.anchor or link.anchor in pages.anchors(link.path), link.target


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_named_files_exist(page):
    text = page.read_text()
    mentioned = set(
        re.findall(r"(?<![\w/])(?:configs|launch|tests|slimjax|docs)/[\w/.]*\w\.(?:py|sh|md|jinja)\b", text)
    )
    mentioned |= {
        span for span in pages.spans(page) if re.fullmatch(r"(slimjax|configs|docs|tests)/[\w/]*", span)
    }
    assert sorted(name for name in mentioned if not (REPOSITORY / name).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_named_config_fields_exist(page):
    options = {name for make in ALGORITHMS.values() for name in inspect.signature(make).parameters}
    known = {f"algorithm.{name}" for name in options} | {
        f"algorithm.search.{n}" for n in vars(BayesOptions())
    }
    known |= {
        f"{section}.{field}"
        for section, fields in default_config().items()
        if hasattr(fields, "keys")
        for field in fields
    }
    sections = "|".join(name for name, fields in default_config().items() if hasattr(fields, "keys"))
    found = {
        m[1]
        for span in pages.spans(page)
        if (m := re.match(rf"(?:--config\.|config\.)?((?:{sections})\.\w+)", span))
    }
    assert sorted(name for name in found if name not in known) == []


def test_site_has_every_page_and_every_room_named_exists():
    nav = (REPOSITORY / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}\n" in nav, page
    for page in (DOCS / "api").glob("*.md"):
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE):
            path = REPOSITORY / Path(*name.split("."))
            assert path.is_dir() or path.with_suffix(".py").exists(), name


def test_page_of_the_public_face_has_its_names():
    shown = re.findall(r"\[`(\w+)`\]", (DOCS / "api/slimjax.md").read_text())
    assert sorted([*shown, "__version__"]) == sorted(slimjax.__all__)


def test_citation_has_the_version():
    assert f"\nversion: {slimjax.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()


def test_sections_of_docstrings_become_paragraphs(monkeypatch):
    griffe = types.SimpleNamespace(Extension=object, Object=object, Module=object)
    monkeypatch.setitem(sys.modules, "griffe", griffe)  # of the extra docs
    names: dict = {}
    exec((DOCS / "griffe_sections.py").read_text(), names)
    shown = names["readable"]("One.\n\nPaper: section 3\n  and 4.\nDiffers: not.\n\nArgs:\n  x: Paper: no.")
    assert (
        shown
        == "One.\n\n\n**Paper:** section 3\nand 4.\n\n**[Differs](../fidelity.html):** not.\n\nArgs:\n  x: Paper: no."
    )
    shown = names["readable"]("One.\n\nHost code (pure):\n  x: of y,\n    and z.\n  u: w.\n\nArgs:\n  x: no.")
    assert (
        shown == "One.\n\n\n**Host code (pure):**\n\n- `x`: of y,\n    and z.\n- `u`: w.\n\nArgs:\n  x: no."
    )


def differing() -> set[str]:
    """What has a docstring that says in what it differs, as `room.module.name`."""
    found = set()
    for path in sorted((REPOSITORY / "slimjax").rglob("*.py")):
        module = ".".join(path.relative_to(REPOSITORY / "slimjax").with_suffix("").parts)
        tree = ast.parse(path.read_text())
        owners = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        found |= {f"{module}.{node.name}" for node in owners if "Differs" in (ast.get_docstring(node) or "")}
        found |= {module} if "Differs" in (ast.get_docstring(tree) or "") else set()
    return found


def test_page_of_differences_has_them_all():
    """Each docstring's is there, and what the page names exists."""
    page = (DOCS / "fidelity.md").read_text().partition("## What differs on purpose")[2]
    named = set(re.findall(r"`slimjax\.((?:\w+\.)+\w+)`(?=[:,])", page))
    assert differing() <= named
    for name in named:
        module, _, attribute = name.rpartition(".")
        if not (REPOSITORY / "slimjax" / f"{name.replace('.', '/')}.py").exists():
            assert hasattr(importlib.import_module(f"slimjax.{module}"), attribute), name


def test_own_network_and_algorithm_of_the_page_are_found_by_their_names(tmp_path, monkeypatch):
    """As the page says: from a module in the current folder, with the page's own config."""
    module = tmp_path / "my_package" / "my_module.py"
    module.parent.mkdir()
    module.write_text("\n".join(pages.snippets(DOCS / "extending.md")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_package.my_module", raising=False)
    mine = ["model.name=my_package.my_module:separable", "algorithm.name=my_package.my_module:halves"]
    overrides = [
        f"--config.{field}" for field in [*mine, "model.options.blocks=1", "algorithm.num_subnets=3"]
    ]
    experiment = build(config_file.load("my_package/my_module.py:epochs=2", overrides))
    (subnet,) = experiment.algorithm.propose({}, 0)
    channels = experiment.net.space.to_channels(experiment.net.space.check(subnet))
    assert channels["stream"] in (8, 12)
    assert channels["block0"] in (16, 24)
    assert experiment.steps == 2 * 4000 // 64
