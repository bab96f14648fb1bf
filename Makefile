# make demo: install, train on real images that ship in a package, write runs/demo/report.html
# make test: install, lint, type-check, run all tests
# make docs: the pages in docs/ as a site, into build/docs; a dead link fails
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install test demo docs claims clean
install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "slimjax needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[dev]'
	@touch $@

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope

demo: install
	$(BIN)/slimjax train --config configs/mnist5k_usnet.py --workdir runs/demo
	@echo "Open runs/demo/report.html for the picture; runs/demo/front.json has the numbers."

docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/docs/index.html, or serve it to have its search, too: python3 -m http.server --directory build/docs"

claims: install
	$(BIN)/slimjax bench claims --only snet,usnet

clean:
	rm -rf .venv runs build *.egg-info
