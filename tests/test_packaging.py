"""What is installed: everything that `slimjax train` needs, by the account of setuptools itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import CONFIGS, REPOSITORY

# What building a wheel would copy, without building one.
ASK = """
import json, setuptools
package = setuptools.Distribution({"script_name": "setup.py"})
package.parse_config_files()
command = package.get_command_obj("build_py")
command.ensure_finalized()
print(json.dumps([path.removeprefix(command.build_lib + "/") for path in command.get_outputs(include_bytecode=False)]))
"""


@pytest.fixture(scope="module")
def installed() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_module_is_installed(installed):
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "slimjax").rglob("*.py")}
    assert len(modules) > 100
    assert modules <= installed


def test_what_is_no_module_is_installed_too(installed):
    others = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "slimjax").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {"slimjax/py.typed", "slimjax/report/page.html.jinja"} <= others
    assert others <= installed


def test_configs_are_installed_where_their_names_are_looked_up(installed):
    assert {f"slimjax/configs/{path.name}" for path in CONFIGS.glob("*.py")} <= installed


def test_nothing_else_is_installed(installed):
    assert all(Path(name).parts[0] == "slimjax" for name in installed)
