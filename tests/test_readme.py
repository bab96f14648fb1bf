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


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_readme_shows_six_rows_of_the_demo():
    demo = (REPOSITORY / "docs/results/demo.md").read_text().splitlines()
    rows = re.findall(r"^ {4} +[\d.]+ .*%.*$", README, re.MULTILINE)
    assert len(rows) == 6
    assert set(rows) <= set(demo)


def test_readme_names_five_files_to_read_of_under_1000_lines_together():
    (sentence,) = re.findall(r"^The code, in this order.*?\.\s", README, re.DOTALL | re.MULTILINE)
    paths = re.findall(r"`(slimjax/[\w/]+\.py)`", sentence)
    assert len(paths) == 5
    assert sum(len((REPOSITORY / path).read_text().splitlines()) for path in paths) < 1000
