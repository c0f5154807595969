# Every command a person or CI needs. Each does its own set-up; nothing has to be installed by hand.
PYTHON3 := /usr/bin/python3
VENV    := .venv
BIN     := $(VENV)/bin
SHELL   := /bin/bash
# A job in the background or under nohup ignores these; what the tests start would inherit it.
FOREGROUND := env --default-signal=HUP,INT,QUIT

UNIT    := unit-properties unit-waiting unit-computing
WAITING := tests/unit/supervisor tests/unit/launcher

.PHONY: demo check test bench fmt lint types contracts unit $(UNIT) compiled integration lock schema venv clean

demo:                             ## One complete session on real parts, shown line by line (root).
	@[ "$$(id -u)" -eq 0 ] || { echo "coding-agents: the demo needs root: run 'sudo make demo'." >&2; exit 2; }
	@$(MAKE) --silent --no-print-directory $(VENV)/.runtime
	@$(BIN)/python -I integration/demo/run.py

check: lint types contracts unit  ## Format, lint, types, import contracts, unit and property tests.

test: check compiled integration  ## Everything, integration tests included (root).

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/coverage erase
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target $(UNIT)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/python tests/core_coverage.py

# Side by side: some compute, and some wait for the processes that they start.
unit-computing:
	$(FOREGROUND) $(BIN)/coverage run -p -m pytest -q tests $(addprefix --ignore=,tests/property $(WAITING))

unit-waiting:
	$(FOREGROUND) $(BIN)/coverage run -p -m pytest -q $(WAITING)

unit-properties:                  # these take three times as long with coverage, and the gate holds without
	$(FOREGROUND) $(BIN)/python -m pytest -q tests/property

compiled: $(VENV)/.dev            ## The tests of proxies once more, on what was compiled of it.
	$(FOREGROUND) $(BIN)/python -m pytest -q --compiled tests/unit/proxies tests/property

integration: $(VENV)/.dev
	@integration/setup.sh test
	$(FOREGROUND) $(BIN)/python -m pytest -q integration

bench: $(VENV)/.dev               ## Every figure of docs/benchmarks.md, pairwise in one run, judged by its budget (root).
	@integration/setup.sh bench
	$(BIN)/python -I integration/bench/run.py $(BENCH)

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(VENV)/.runtime          ## Write the published schema of the event log.
	$(BIN)/python -I -c "from codingagents.trust.schema import schema_text; print(schema_text(), end='')" \
	  > docs/events.schema.json

lock:                             ## Recompile the hashed requirement files (needs uv) and npm's (root).
	for set in runtime dev demo bench node mcp1; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command 'make lock' requirements/$$set.in -o requirements/$$set.txt; done
	cd integration && $(PYTHON3) -m conformance.parts

venv: $(VENV)/.dev

# The system's interpreter and its site packages: python3-seccomp exists only as a Debian package.
$(VENV)/.packages: requirements/runtime.txt
	@integration/setup.sh venv
	$(PYTHON3) -m venv --system-site-packages $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@touch $@

# Compiles some modules (hatch_build.py), so it comes after every change of one.
$(VENV)/.runtime: $(VENV)/.packages hatch_build.py pyproject.toml $(wildcard proxies/codingagents/proxies/*.py)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

clean:
	rm -rf $(VENV) proxies/codingagents/proxies/{*.so,compiled.sha256} .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
