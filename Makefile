# The two commands of the README. Each makes its own environment in .venv and needs nothing but Python 3.11 or newer.
#
#   make quickstart   fuse three tiny models on this machine and print what came of it
#   make test         run the tests
#
# and, by hand on a quiet machine: make benchmarks, make architectures, make notebook, make terminal, make slow, make
# faults.
#
# Without an NVIDIA GPU, constraints.txt names a torch release whose CPU build a package index or PIP_FIND_LINKS may offer.
# The tests run with the releases of requirements.lock (all but torch and what belongs to CUDA): make LOCK= test takes the
# newest ones instead, make lock writes the file anew.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints.txt)
LOCK ?= -c requirements.lock
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",)
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $(FIND_LINKS) $(CONSTRAINTS)
# byte code is written, even where a container says otherwise: else every process of the tests compiles torch again
BYTECODE := env -u PYTHONDONTWRITEBYTECODE
# models as small as these gain little from more; and a thread that waits for another soon lets go of its core, without which
# two are far slower than one on a machine that has other work
TWO_THREADS := OMP_NUM_THREADS=2 GOMP_SPINCOUNT=3000
TEST_ENV := $(BYTECODE) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 DS_ACCELERATOR=cpu

.PHONY: quickstart test slow faults benchmarks architectures notebook terminal lint lock clean

quickstart: $(VENV)/.core
	$(BYTECODE) $(TWO_THREADS) $(BIN)/fusion run configs/quickstart.yaml
	$(BYTECODE) $(BIN)/python -m fusion.quickstart.excess runs/quickstart

test: $(VENV)/.dev lint
	$(TEST_ENV) $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not real"

slow: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python -m pytest -m "slow or real"

faults: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python -m tests.faults $(FUSION_FAULTS)

benchmarks: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python -m tests.benchmarks --write docs/performance.md

architectures: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python -m tests.architectures --write docs/architectures.md

notebook: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python -m tests.helpers.notebook --write

# docs/images/terminal.svg: what the quickstart prints
terminal: $(VENV)/.core
	cd "$$(mktemp -d)" && PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=2 $(abspath $(BIN))/python \
		$(CURDIR)/docs/terminal.py "fusion run quickstart" $(CURDIR)/docs/images/terminal.svg \
		--tail-from "exact match"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-header --no-annotate \
		$(FIND_LINKS) -c constraints.txt pyproject.toml | grep -Ev '^(torch|triton|cuda|nvidia)' > requirements.lock

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.core: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

$(VENV)/.dev: $(BIN)/uv pyproject.toml constraints.txt requirements.lock
	$(INSTALL) $(LOCK) --editable '.[dev]'
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) dist build
