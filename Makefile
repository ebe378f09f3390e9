# The developer's whole interface. Each target makes what it needs, on a fresh clone, with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONSAFEPATH := 1
# What the tests run beside what pip installs, by the names of Debian's packages.
DEBIAN := haproxy nginx pgbouncer postgresql softhsm2 systemd

.PHONY: debian demo test check format lint types contracts docs bench bench-quick bench-peers run lock clean

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e ./client -e .
	touch $@

demo: $(STAMP)             ## the whole story, narrated, on a temporary broker
	$(BIN)/tokenbroker demo

debian:                    ## real parts for the tests from Debian; where they cannot be installed, says what is left out
	@missing=; for each in $(DEBIAN); do dpkg -s $$each 2>/dev/null | grep -q "ok installed" || missing="$$missing $$each"; done; \
	install() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $$missing; }; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then install >/dev/null 2>&1 || { apt-get update --quiet >/dev/null && install >/dev/null; } && exit 0; fi; \
	echo "Not installed:$$missing. The tests that need it are left out; install it with: sudo apt-get install$$missing"

test: $(STAMP) debian      ## every test; says loudly what was left out
	$(BIN)/python -m pytest

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

bench: $(STAMP)            ## what leasing costs, every question, in ratios; some minutes
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP)      ## what is guarded, against benchmarks/baseline.json; less than a minute
	$(BIN)/python -m benchmarks --guard

bench-peers: $(STAMP)      ## what users would pick instead, on the same machine in the same run
	$(BIN)/python -m benchmarks peers cached_reads

run: $(STAMP)              ## a development broker in ./dev-data
	$(BIN)/tokenbroker init --data-dir dev-data
	$(BIN)/tokenbroker serve --data-dir dev-data

lock: $(STAMP)             ## recompile constraints.txt: names, versions, hashes; no index
	mkdir -p build/lock
	sed '/"tokenbroker-client==/d' pyproject.toml > build/lock/pyproject.toml
	printf 'hatchling>=1.27\neditables\n' > build/lock/build.in
	cd build/lock && ../../$(BIN)/pip-compile --quiet --extra dev --extra aws --extra azure --extra gcp --extra pkcs11 --extra postgres --generate-hashes --strip-extras --allow-unsafe \
		--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file ../../constraints.txt pyproject.toml build.in

clean:
	rm -rf $(VENV)
