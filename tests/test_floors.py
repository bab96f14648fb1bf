"""The architecture, held: imports go down only, without circles, and what the core may not use is not there."""

import subprocess
import sys

import pytest

from helpers.house import PACKAGE, arrows, circle, functions, imports, modules, room

# From the ground up: a room imports rooms of lower floors only. A room is a folder, or a file beside the folders.
FLOORS = [
    {"errors", "progress"},
    {"checks", "data", "files", "registry", "sharding", "worker"},
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
ARROWS = arrows()


def test_every_room_has_its_floor():
    assert {room(module) for module in modules()} == set(FLOOR)


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module):
    mine = room(module)
    wrong = {other for other in ARROWS[module] if mine != room(other) and FLOOR[room(other)] >= FLOOR[mine]}
    assert not wrong, f"{module} stands on floor {FLOOR[mine]} and imports {sorted(wrong)}"


def test_no_module_imports_itself_by_way_of_others():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}), "a circle is seen"
    assert not circle(ARROWS)


@pytest.mark.parametrize("module", modules())
def test_package_uses_no_pickle_no_private_jax_and_no_tensorflow(module):
    banned = ("pickle", "cloudpickle", "dill", "jax._src", "jaxlib", "tensorflow.", "joblib")
    assert not sorted(name for name in imports(modules()[module]) if (name + ".").startswith(banned))


@pytest.mark.parametrize("module", modules())
def test_files_stay_under_400_lines(module):
    assert len(modules()[module].read_text().splitlines()) < 400


def test_no_function_but_the_loop_is_longer_than_60_lines():
    long = {
        where.split(":")[0] + "." + where.split()[1] for where, lines in functions().items() if lines > 60
    }
    assert long <= {"slimjax.experiment.loop.train"}


def test_an_algorithm_is_one_file_of_at_most_200_lines():
    long = {
        path.stem
        for path in (PACKAGE / "algorithms").glob("*.py")
        if len(path.read_text().splitlines()) > 200
    }
    assert not long


def test_search_knows_neither_jax_nor_networks():
    allowed = {"search", "errors", "checks", "nn", "files"}  # files: the log of trials
    found = {room(other) for module, others in ARROWS.items() if room(module) == "search" for other in others}
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
