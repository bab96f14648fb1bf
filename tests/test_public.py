"""The public face: every name is there, is imported when it is used, and its docstring's examples are true."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import slimjax

NAMES = [name for name in slimjax.__all__ if name != "__version__"]
WITH_EXAMPLES = ["Choice", "Conv", "FeatureMap", "Group", "Rounding", "Space", "Supernet", "named"]


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_there_and_says_what_it_is(name):
    assert getattr(slimjax, name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_public_names_are_true(name):
    public = getattr(slimjax, name)
    home = sys.modules[getattr(public, "__module__", public.__name__)]
    tests = doctest.DocTestFinder(recurse=False).find(public, name, globs=dict(vars(home)))
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert not sum(result.failed for result in results)
    assert (sum(result.attempted for result in results) > 0) == (name in WITH_EXAMPLES)


def test_type_checkers_see_what_is_imported_when_it_is_used():
    """The names under TYPE_CHECKING, of the same modules, are those of `__getattr__` and of `__all__`."""
    (block,) = [n for n in ast.parse(Path(slimjax.__file__).read_text()).body if isinstance(n, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    homes = {name: home.removesuffix(f".{name}") for name, home in slimjax._HOMES.items()}
    assert seen == homes
    assert sorted(homes) == sorted(NAMES)


def test_importing_slimjax_imports_no_jax():
    code = "import sys, slimjax; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'Convolution'\. It has: BatchNorm, Choice"):
        slimjax.Convolution  # noqa: B018
