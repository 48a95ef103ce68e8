# Everything a newcomer needs: each target sets up .venv first if it is missing or older than pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-all check format bench examples clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "accord needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/ready ## two organisations train a model together and prove it
	$(BIN)/accord demo

test: .venv/ready ## the tests, two files at a time; without the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: .venv/ready ## all tests, as CI runs them
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/ready ## format, lint and types, as CI would
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/ready ## measure against the plain computation and against peers
	$(BIN)/python -m benchmarks.vertical_logistic --columns 100 --peers spu
	$(BIN)/python -m benchmarks.glm
	$(BIN)/python -m benchmarks.glm_families
	$(BIN)/python -m benchmarks.trees
	$(BIN)/python -m benchmarks.network
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.statistics
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.joint
	$(BIN)/python -m benchmarks.engine --peers all
	$(BIN)/python -m benchmarks.ring
	$(BIN)/python -m benchmarks.log
	$(BIN)/python -m benchmarks.audit
	$(BIN)/python -m benchmarks.matching --sizes 1e5 2^20 --peers spu
	$(BIN)/python -m benchmarks.matching_large
	$(BIN)/python -m benchmarks.hidden
	$(BIN)/python -m benchmarks.star
	$(BIN)/python -m benchmarks.linkage

examples: .venv/ready ## notebooks from their scripts
	$(BIN)/python examples/build.py

clean: ## remove the environments and caches
	rm -rf .venv .bench build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
