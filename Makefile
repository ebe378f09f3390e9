# The developer's whole interface. Each target makes what it needs, on a fresh clone, with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONSAFEPATH := 1

.PHONY: demo test check format lint types contracts docs bench bench-quick run lock clean

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e ./client -e .
	touch $@

demo: $(STAMP)             ## the whole story, narrated, on a temporary broker
	$(BIN)/tokenbroker demo

test: $(STAMP)             ## every test; says loudly what was left out
	$(BIN)/python tests/run.py

check: $(STAMP) format lint types contracts docs test   ## what CI runs

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

docs: $(STAMP)             ## generated reference is current
	$(BIN)/python docs/generate.py --check

bench: $(STAMP)
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP)
	$(BIN)/python -m benchmarks --quick

run: $(STAMP)              ## a development broker in ./dev-data
	$(BIN)/tokenbroker init --data-dir dev-data
	$(BIN)/tokenbroker serve --data-dir dev-data

lock: $(STAMP)             ## recompile constraints.txt (names, versions, hashes; no index)
	$(BIN)/python config/../docs/../tests/../scripts/lock.py

clean:
	rm -rf $(VENV)
