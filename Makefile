# Every target sets up what it needs: a virtual environment in .venv, made once, and again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-slow test-oldest soak gpu-check answer lint format clean

run: .venv/installed            ## train: make run ARGS="model=simplecnn seed=1"
	@$(BIN)/python -m cnnbench $(ARGS)

test: .venv/installed-dev       ## the tests, in about six minutes
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: .venv/installed-dev  ## the longer ones, and those that open the pages in chromium, where there is one
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "(slow or browser) and not soak" $(ARGS)

test-oldest: .venv/installed-dev  ## the tests, with the oldest packages that pyproject.toml names
	$(BIN)/uv venv --quiet --clear .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable ".[test]"
	.venv-oldest/bin/python -m pytest -n 2 $(ARGS)

soak: .venv/installed-dev       ## kills at twenty random moments, and before everything that a run does to its files
	$(BIN)/python -m pytest -m soak $(ARGS)

gpu-check: .venv/installed-dev  ## what needs a GPU, on a machine that has one: a table of what holds there
	$(BIN)/python -m pytest -m gpu $(ARGS)

answer: .venv/installed         ## make answer NAME=demo: runs an experiment, and keeps beside its YAML what it showed
	$(BIN)/python -m cnnbench -m experiment=$(NAME)
	$(BIN)/python -m cnnbench report runs/$(NAME)
	sed -e '/^!\[\(cost\|confusion\|reliability\)/,+1d' -e 's|](figures/|]($(NAME)_|' runs/$(NAME)/report.md > experiments/$(NAME).md
	for picture in accuracy curves; do cp runs/$(NAME)/figures/$$picture.svg experiments/$(NAME)_$$picture.svg; done

lint: .venv/installed-dev       ## style, types, and which room imports which
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
