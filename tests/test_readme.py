"""What README shows is run."""

import re

import jax
import numpy as np

from helpers.paths import REPOSITORY
from helpers.trees import assert_trees_close

README = (REPOSITORY / "README.md").read_text()


def test_readme_network_runs_and_its_forms_agree(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert len(code.splitlines()) < 33, "the network and its use stay short"
    assert_trees_close(names["masked"], names["sliced"])
    assert sum(x.size for x in jax.tree.leaves(names["dense"])) == int(names["net"].params(names["subnet"]))
    assert np.isfinite(names["sliced"]).all()
    assert capsys.readouterr().out.split()[1] == str(int(names["net"].params(names["subnet"])))


def test_readme_names_only_files_that_exist():
    mentioned = set(re.findall(r"(?:configs|launch|tests|slimjax)/[\w/]+\.(?:py|sh)", README))
    assert mentioned
    missing = sorted(name for name in mentioned if not (REPOSITORY / name).exists())
    assert not missing
