# make demo | test | bench | soak | lint: each sets up what it needs first, from Python 3.11 (or newer) and make alone.
# Set-up happens once: it is repeated only when pyproject.toml or uv.lock changed, so later runs need no network.

UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
# Tests may be told more, e.g.  make test PYTEST_ARGS="-k audit"
PYTEST_ARGS ?=
# One more than two cores have work for: tests wait too, for servers to stop and for events to come.
WORKERS ?= 3
BENCH_ARGS ?=

# The user's own uv settings, indexes and Pythons stay out of it; certificates are the machine's, as for pip.
export UV_NO_CONFIG := 1
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
export UV_PROJECT_ENVIRONMENT := $(VENV)
# Compiled modules are kept, whatever the machine says: every process would compile all it imports anew, for seconds.
export PYTHONDONTWRITEBYTECODE :=
UV_SYNC := $(BIN)/uv sync --frozen --all-extras --quiet --python $(BIN)/python

.PHONY: all setup demo test bench soak lint format clean
SUITES := dropin workers overhead growth sharing feed audit log profile
.PHONY: $(SUITES:%=bench-%)
.DEFAULT_GOAL := all

all:
	@echo "make demo    start a server, run the whole flow with letta-client, show the proof"
	@echo "make test    lint, strict types, all tests, and those that open a store on PostgreSQL too"
	@echo "make bench   the suites dropin, overhead and growth, twenty minutes; alone, with BENCH_ARGS='--help' for their options:"
	@echo "make bench-dropin    requests a second of a letta-compatible server, ours or another's"
	@echo "make bench-workers   one worker and two on PostgreSQL, in turns"
	@echo "make bench-overhead  ours against a plaintext twin"
	@echo "make bench-growth    1,000 to 100,000 blocks, or a million"
	@echo "make bench-sharing   what sharing and revoking cost (BENCH_ARGS='--members 100000' for a large role)"
	@echo "make bench-feed      how soon listeners hear of a change"
	@echo "make bench-audit     what the log costs those who read"
	@echo "make bench-log       what a long log costs: 10 million leaves, 5 GB for a while (BENCH_ARGS='--leaves 100000' for fewer)"
	@echo "make bench-profile   what an operation costs and where: statements, signatures, processor time by part"
	@echo "make soak    24 clients for 10 minutes while workers, database sessions and the primary are killed (BENCH_ARGS='--minutes 1')"
	@echo "make lint    lint and strict types only"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove the virtual environment and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml uv.lock
	@set -e; \
	if ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
	  found=; \
	  for python in "$$PYTHON" python3.11 python3 python3.12 python3.13 python3.14; do \
	    [ -n "$$python" ] || continue; \
	    if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no Python 3.11 or newer that can make a virtual environment"; \
	    echo "hint: install python3.11 and python3.11-venv, or say which: make PYTHON=/path/to/python"; exit 1; \
	  fi; \
	  echo "setting up $(VENV) with $$found"; \
	  rm -rf $(VENV); "$$found" -m venv $(VENV); \
	fi
	@test -x $(BIN)/uv && $(BIN)/uv --version | grep -qF ' $(UV_VERSION)' || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV_SYNC) --system-certs || $(UV_SYNC)
	@touch $@

demo: $(STAMP)
	@$(BIN)/tallystone demo

bench: $(STAMP)
	@for suite in dropin overhead growth; do echo "-- $$suite"; $(BIN)/python -m bench $$suite || exit 1; done

$(SUITES:%=bench-%): bench-%: $(STAMP)
	@$(BIN)/python -m bench $* $(BENCH_ARGS)

soak: $(STAMP)
	@$(BIN)/python -m bench soak $(BENCH_ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/mypy

PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# The second run is of the tests that open a store (tests/stores.py), on a PostgreSQL server that it starts.
# TALLYSTONE_LONG=1 leaves out no case of either.
test: lint
	@$(PYTEST)
	@TALLYSTONE_TEST_STORE=postgresql $(PYTEST)

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
