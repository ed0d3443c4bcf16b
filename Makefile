# Every target sets up what it needs: a virtual environment in .venv, which is updated when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=  # else each process of the tests compiles the package anew

.PHONY: run test test-slow test-oldest soak gpu-check answer lint format clean

run: .venv/installed            ## train: make run ARGS="model=simplecnn seed=1"
	@$(BIN)/cnnbench $(ARGS)

test: .venv/installed-dev       ## run the default tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-slow: .venv/installed-dev  ## run the longer tests, and the browser tests if there is a Chromium
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "(slow or browser) and not soak" $(ARGS)

test-oldest: .venv/installed-dev  ## run the default tests with the oldest packages that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable ".[test]"
	.venv-oldest/bin/python -m pytest -n 2 $(ARGS)

soak: .venv/installed-dev       ## kill runs and sweeps at many moments; takes half an hour
	$(BIN)/python -m pytest -m soak $(ARGS)

gpu-check: .venv/installed-dev  ## run the GPU tests and print a table of their results
	$(BIN)/python -m pytest -m gpu $(ARGS)

answer: .venv/installed         ## make answer NAME=demo: run an experiment and save its report next to its YAML
	$(BIN)/cnnbench -m experiment=$(NAME)
	$(BIN)/cnnbench report runs/$(NAME)
	sed -e '/^!\[\(cost\|confusion\|reliability\)/,+1d' -e 's|](figures/|]($(NAME)_|' runs/$(NAME)/report.md > experiments/$(NAME).md
	for picture in accuracy curves; do cp runs/$(NAME)/figures/$$picture.svg experiments/$(NAME)_$$picture.svg; done

lint: .venv/installed-dev       ## check style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	@echo "making .venv, once (torch and what it needs: some minutes)"
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@
