"""The architecture, held: imports go down only, without circles, and what the core may not use is not there."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "slimjax"
# From the ground up: a room imports rooms of lower floors only. A room is a folder, or a file beside the folders.
FLOORS = [
    {"errors", "progress"},
    {"checks", "data", "files", "sharding", "worker"},
    {"nn"},
    {"cost", "models", "search", "workdir"},
    {"report", "supernet"},
    {"budgets", "step"},
    {"profiling", "vectors"},
    {"algorithms"},
    {"experiment"},
    {"bench"},
    {"verbs"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FACE = PACKAGE / "__init__.py"  # the public face stands outside: it only says where names are


def modules() -> dict[str, Path]:
    """Every module by its dotted name, but for the public face."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if path != FACE)
    return {dotted(path): path for path in paths}


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, also inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inner(name: str, path: Path) -> set[str]:
    """The modules of the package that a module imports. A package that it only names on the way is none."""
    found = imports(path) & set(modules())
    return {module for module in found if not any(other.startswith(module + ".") for other in found)} - {name}


def room(module: str) -> str:
    return module.split(".")[1]


def circle(imported: dict[str, set[str]]) -> list[str]:
    """One circle of imports; empty: there is none."""
    try:
        graphlib.TopologicalSorter(imported).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_room_has_its_floor():
    assert {room(module) for module in modules()} == set(FLOOR)


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module):
    mine, path = room(module), modules()[module]
    wrong = {
        other for other in inner(module, path) if mine != room(other) and FLOOR[room(other)] >= FLOOR[mine]
    }
    assert not wrong, f"{module} stands on floor {FLOOR[mine]} and imports {sorted(wrong)}"


def test_no_module_imports_itself_by_way_of_others():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}), "a circle is seen"
    assert not circle({name: inner(name, path) for name, path in modules().items()})


@pytest.mark.parametrize("module", modules())
def test_package_uses_no_pickle_no_private_jax_and_no_tensorflow(module):
    banned = ("pickle", "cloudpickle", "dill", "jax._src", "jaxlib", "tensorflow.", "joblib")
    assert not sorted(name for name in imports(modules()[module]) if (name + ".").startswith(banned))


@pytest.mark.parametrize("module", modules())
def test_files_stay_under_400_lines(module):
    assert len(modules()[module].read_text().splitlines()) < 400


def functions() -> list[tuple[str, int]]:
    """Where each function of the package is, and its lines."""
    found = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found.append((f"{module}.{node.name}", node.end_lineno - node.lineno + 1))
    return found


def test_no_function_but_the_loop_is_longer_than_60_lines():
    assert {name for name, lines in functions() if lines > 60} <= {"slimjax.experiment.loop.train"}


def test_an_algorithm_is_one_file_of_at_most_200_lines():
    long = {
        path.stem
        for path in (PACKAGE / "algorithms").glob("*.py")
        if len(path.read_text().splitlines()) > 200
    }
    assert not long


def test_search_knows_neither_jax_nor_networks():
    allowed = {"search", "errors", "checks", "nn", "files"}  # files: the log of trials
    found = {
        room(other)
        for module, path in modules().items()
        if room(module) == "search"
        for other in inner(module, path)
    }
    assert found <= allowed
    code = "import sys, slimjax.search.bayes; sys.exit(bool({'jax', 'flax'} & {m.split('.')[0] for m in sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_imports_no_tensorflow():
    code = (
        "import sys, slimjax.experiment.loop, slimjax.verbs.cli;"
        "sys.exit(any(m.split('.')[0] == 'tensorflow' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_page_of_the_architecture_shows_these_floors():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    shown = [set(line.strip().split(", ")) for line in page.splitlines() if line.startswith("    ")]
    assert shown == [rooms for rooms in reversed(FLOORS) if rooms != {"__main__"}]
    assert [room for room in FLOOR if room != "__main__" and f"`{room}`" not in page] == []
