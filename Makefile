# `make demo` and `make test` do all the set-up they need: Python 3.11 or 3.12 and a package index.
.PHONY: help setup demo screenshots test chaos fuzz lint type ci docs sbom audit release readme peers bench-all lock clean
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null \
  && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.ready

help: ## what each word does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## .venv with everything, from the lock file

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Stayline needs Python 3.11 or 3.12; none was found. Set PYTHON=/path/to/python3.12."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup ## a small telco, live; Ctrl-C ends it
	$(BIN)/stayline demo

test: setup ## all tests
	$(BIN)/pytest

chaos: setup ## a hundred disturbed runs, and many more seeds of other tests; takes an hour
	$(BIN)/pytest -m slow

FUZZ_TARGETS ?= freeswitch asterisk kamailio cucm voipmonitor vqrtcpxr csv hep arrow events
FUZZ_S ?= 30

fuzz: setup ## fuzz every decoder, coverage-guided, FUZZ_S seconds each (Linux on x86-64)
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: -r requirements-fuzz.lock
	@for target in $(FUZZ_TARGETS); do echo "fuzz $$target"; $(BIN)/python tests/fuzz.py $$target $(FUZZ_S) || exit 1; done

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup ## mypy, strict
	$(BIN)/mypy

ci: lint type test ## what the continuous integration runs

docs: setup ## write what is made by code: dashboards, configuration reference, pictures
	$(BIN)/python -m dataflows.published

TOOLS := build/tools

$(TOOLS)/.ready: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --quiet --disable-pip-version-check install pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

sbom: $(TOOLS)/.ready ## bill of materials of what a deployment runs: build/release/stayline.cdx.json
	@mkdir -p build/release
	$(TOOLS)/bin/cyclonedx-py requirements requirements-run.lock --pyproject pyproject.toml --output-reproducible \
	  --validate --output-file build/release/stayline.cdx.json

audit: $(TOOLS)/.ready ## known vulnerabilities of what the lock file installs (asks the advisory database)
	$(TOOLS)/bin/pip-audit --vulnerability-service osv --strict --require-hashes --disable-pip --requirement requirements.lock

release: setup audit sbom ## wheel, bill of materials and their digests: build/release (docs/SECURITY.md)
	$(BIN)/python -m pip --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation --wheel-dir build/release .
	cd build/release && sha256sum stayline-*.whl stayline.cdx.json > SHA256SUMS

readme: setup ## run the sessions of the README and write down what they print
	$(BIN)/python -m bench.readme

PEERS := $(CURDIR)/build/peers

# PyFlink pins older libraries than the other two take.
$(PEERS)/.ready: Makefile
	$(PYTHON) -m venv $(PEERS)/streams
	$(PEERS)/streams/bin/python -m pip --quiet --disable-pip-version-check install quixstreams==3.28.1 pathway==0.33.0 river==0.26.1 orjson
	$(PYTHON) -m venv $(PEERS)/flink
	$(PEERS)/flink/bin/python -m pip --quiet --disable-pip-version-check install apache-flink==2.3.0 scipy orjson
	$(PEERS)/flink/bin/python -m pip --quiet --disable-pip-version-check install --no-deps river==0.24.2
	@touch $@

peers: $(PEERS)/.ready ## other engines for `stayline bench peers`, each where its libraries fit: build/peers

BENCHES := throughput+profile kafka stalls day delivery+desk+metering formats detection market peers

bench-all: export STAYLINE_PEERS_PYTHON := $(PEERS)/streams/bin/python:$(PEERS)/flink/bin/python
bench-all: setup peers ## every benchmark, then docs/numbers.md; takes hours (CHURN="--table FILE --label COLUMN --id COLUMN")
	@for cases in $(BENCHES); do $(BIN)/stayline bench $$(echo $$cases | tr + ' ') --out bench/results || exit 1; done
	$(if $(CHURN),$(BIN)/stayline bench churn $(CHURN) --out bench/results)
	$(BIN)/python -m bench.numbers

screenshots: setup ## pictures of the desk for the documentation (needs Chromium)
	$(BIN)/python -m bench.screenshots docs/img

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet

lock: setup ## resolve again what is installed, and what of it runs (needs uv)
	$(LOCK) --extra dev pyproject.toml --output-file requirements.lock
	$(LOCK) --extra build --constraints requirements.lock pyproject.toml --output-file requirements-run.lock

clean: ## remove what set-up and runs made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info
