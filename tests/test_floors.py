"""The architecture, held: imports go down only, and what the core may not use is not there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "slimjax"
# From the ground up. A module may import modules of lower floors, and of its own floor.
FLOORS = [
    {"errors", "checks", "progress", "worker"},
    {"files", "sharding"},
    {"nn"},
    {"search", "data", "workdir", "models", "cost"},
    {"report"},
    {"supernet"},
    {"vectors", "budgets"},
    {"step"},
    {"profiling", "algorithms"},
    {"experiment"},
    {"bench"},
    {"verbs"},
    {"__main__"},
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    inner = {name.split(".")[1] for name in imports(path) if name.startswith("slimjax.")}
    too_high = sorted(name for name in inner if FLOOR[name] > FLOOR[room(path)])
    assert not too_high, f"{path.name} stands on floor {FLOOR[room(path)]} and imports {too_high}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_package_uses_no_pickle_no_private_jax_and_no_tensorflow(path):
    banned = ("pickle", "cloudpickle", "dill", "jax._src", "jaxlib", "tensorflow.", "joblib")
    bad = sorted(name for name in imports(path) if (name + ".").startswith(banned))
    assert not bad


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_under_400_lines(path):
    assert len(path.read_text().splitlines()) < 400


def test_search_knows_neither_jax_nor_networks():
    files = {"slimjax.files"}  # the log of trials
    allowed = {"slimjax.search", "slimjax.errors", "slimjax.checks", "slimjax.nn", *files}
    inner = {name for path in (PACKAGE / "search").glob("*.py") for name in imports(path)}
    assert {".".join(name.split(".")[:2]) for name in inner if name.startswith("slimjax.")} <= allowed
    code = "import sys, slimjax.search.bayes; sys.exit(bool({'jax', 'flax'} & {m.split('.')[0] for m in sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_imports_no_tensorflow():
    code = (
        "import sys, slimjax.experiment.loop, slimjax.verbs.cli;"
        "sys.exit(any(m.split('.')[0] == 'tensorflow' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
