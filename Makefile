# Every target is one command that can also be typed by hand.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: all setup demo fmt check test test-slow bench

all: check test

# Installed once, and again when the project's requirements change.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet -c constraints.txt -e ".[dev]" && touch $@

setup: .venv/ready

demo: setup
	$(BIN)/rayreel render manifests/demo.yaml

fmt: setup
	$(BIN)/ruff format && $(BIN)/ruff check --fix

check: setup
	$(BIN)/ruff format --check && $(BIN)/ruff check && $(BIN)/mypy && $(BIN)/lint-imports

test: setup
	$(BIN)/pytest -n 2 -m "not slow"

# Only files that have such tests are read, as all of them take a minute.
test-slow: setup
	$(BIN)/pytest -n 2 -v -m "slow and not alone" $$(grep -rlE "mark\.slow" tests)
	$(BIN)/pytest -m alone $$(grep -rlE "mark\.alone" tests)

bench: setup
	$(BIN)/python jobs/bench.py manifests/bench/cpu.yaml
	$(BIN)/python jobs/bench.py manifests/bench/jobs.yaml
	$(BIN)/python jobs/bench.py manifests/bench/dataset.yaml
	$(BIN)/python jobs/bench.py manifests/bench/train.yaml
	$(BIN)/python jobs/bench.py manifests/bench/serve.yaml
