# Two commands: `make demo` shows a service live and die, `make test` checks everything.
# Each makes its own virtual environment and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HASH := 8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488
IMAGE := examples/simple_service/image

.PHONY: demo test lint typecheck pytest mutants soak diagrams clean

demo: $(VENV)/demo
	@$(BIN)/shem run examples/simple_service/simple_service.py -n 2 --for 20s --image $(HASH)=$(IMAGE)

test: lint typecheck pytest

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/test
	$(BIN)/mypy

pytest: $(VENV)/test
	$(BIN)/python -m pytest -q

# Seeded bugs: each has to be found by the suite. Takes about twenty minutes on two cores.
mutants: $(VENV)/test
	$(BIN)/python tests/mutants/run.py

# Random plans until there were a million, half an hour has passed, or one has failed; SOAK= changes that.
soak: $(VENV)/test
	$(BIN)/python -m shem.testing.soak $(SOAK)

diagrams: $(VENV)/test
	$(BIN)/shem diagram --all diagrams

# The stamps stand for what has been installed; the files they depend on say what that is.
$(VENV)/demo: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing shem into $(VENV) …"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/test: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing shem and what its tests need into $(VENV) …"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[demo,dev,diagrams,testing]'
	@touch $@ $(VENV)/demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "shem needs Python 3.11 or later; try: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
