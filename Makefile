# make setup | demo | test | test-faults | lint | docs | docs-check | audit | clean. Every target does the set-up that it needs.
#   make PYTHON=python3.11 setup    with another interpreter
#   make test ARGS="-k mixture"     arguments for pytest
#   LAD_FIXTURES=DIR make test      more folders of reference outputs, see tests/data/official
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/setup-done
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-faults lint docs docs-check audit clean

setup: $(STAMP)

$(STAMP): constraints.txt setup.cfg setup.py tools/install_detectron2.py
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
		|| { echo "Python 3.10, 3.11 or 3.12 is needed and '$(PYTHON)' is none: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing into .venv: some minutes and 5.5 GB the first time"
	$(PIP_INSTALL) setuptools wheel torch torchvision
	$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	$(BIN)/python tools/install_detectron2.py
	@touch $@

demo: $(STAMP)
	$(BIN)/python tools/demo.py

# One thread: on few shared cores, more threads make small tensors many times slower.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

# Every fault of tests/faults, also the slow ones: kills at random moments, several processes.
test-faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tools/probe_faults.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation with an API reference as a site: output/docs/index.html.
docs: $(STAMP)
	$(PIP_INSTALL) --no-build-isolation --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Runs the commands of README.md and docs/ on small data.
docs-check: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tools/check_docs.py $(ARGS)

# Known holes in the installed packages; needs the network. Status 2: nobody could be asked.
audit: $(STAMP)
	$(BIN)/python tools/audit.py

# Data sets and the output of runs stay.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache projects/lad.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
