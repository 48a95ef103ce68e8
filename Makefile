# Everything a newcomer needs: each target sets up .venv first if it is missing or older than pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check format bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "accord needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/ready ## two organisations train a model together and prove it
	$(BIN)/accord demo

test: .venv/ready ## all tests
	$(BIN)/python -m pytest

check: .venv/ready ## format, lint and types, as CI would
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/ready ## measure against the plain computation and against peers
	$(BIN)/python -m benchmarks.vertical_logistic
	$(BIN)/python -m benchmarks.engine --peers all
	$(BIN)/python -m benchmarks.ring

clean: ## remove the environments and caches
	rm -rf .venv .bench build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
