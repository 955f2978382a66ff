# Each target does all of its own set-up; a second call does it no more.
PYTHON ?= python3
BIN := .venv/bin
# Not compiled: most files are never imported, and Python compiles the others when they first are.
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
# Where it is set, each of the many processes that tests start would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE
# One more than cores: some tests wait for processes that they have started.
PYTEST = $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal

.PHONY: train test coverage lint docs board clean

train: .venv/run.stamp        ## train the default experiment
	$(BIN)/python train.py

test: .venv/test.stamp        ## run every test
	$(PYTEST)

coverage: .venv/test.stamp    ## the same with coverage, which takes half as long again
	$(PYTEST) --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

lint: .venv/test.stamp        ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/test.stamp        ## build the pages of docs/ into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

board: .venv/run.stamp        ## open TensorBoard on outputs/, on this machine only
	$(BIN)/tensorboard --logdir outputs --host localhost

clean:                        ## remove what the targets above set up
	rm -rf .venv

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/test.stamp: .venv/run.stamp
	$(INSTALL) --editable '.[test]'
	touch $@
