# `make` alone lists the targets.

PYTHON ?= python3
# Test processes side by side. Each loads torch and mlx, so memory sets the limit before cores do.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
TYPES := build/types
DEVICE ?= metal

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install test lint format types pytest test-fast layers-report bench calibrate docs \
  docs-networks pictures mutants digests demo verify-metal clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-13s %s\n", $$1, $$2 }'

install: $(STAMP) ## Make .venv and install mlxport in it, editable, with everything the tests need

# Again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt setuptools
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev,models]'
	touch $@

test: lint types pytest ## Everything a change has to pass: lint, types, tests

lint: $(STAMP) ## Check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Apply what lint asks for, where that can be done mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A type checker cannot follow an editable install's import hook, so it reads an installed copy.
# The old build goes first: setuptools would install modules that are gone from the source.
types: $(STAMP) ## Check types (mypy --strict)
	rm -rf build
	$(PIP) install --quiet --no-deps --no-build-isolation --target $(TYPES) .
	MYPYPATH=$(TYPES) $(BIN)/mypy -p mlxport

pytest: $(STAMP) ## Run the tests
	$(BIN)/pytest -q -ra -n $(WORKERS)

test-fast: $(STAMP) ## Run a part of each room's tests, in under three minutes (tests/conftest.py)
	$(BIN)/pytest -q -n $(WORKERS) --fast

layers-report: $(STAMP) ## Tally PyTorch's own samples of its layers: converted, right, rejected
	$(BIN)/pytest -q tests/samples -n $(WORKERS)

bench: $(STAMP) ## Measure it beside MLX's own layers and PyTorch; writes benchmarks/results.md and the README's table
	$(BIN)/python benchmarks/run.py

calibrate: $(STAMP) ## Measure how far right conversions and planted faults stray from the noise
	$(BIN)/python tests/models/calibrate.py

# Whether the tests bite: `make mutants ROOM=layers SAMPLE=40`. The same command goes on where it was.
ROOM ?= layers
SAMPLE ?= 40
mutants: $(STAMP) ## Plant faults in $(ROOM) one at a time; print which its tests notice (docs/mutants.md)
	$(BIN)/python tests/mutants/mutants.py $(ROOM) --sample $(SAMPLE)

docs: $(STAMP) ## Write the tables of layers and ops in docs/supported.md and docs/parity.schema.json
	$(BIN)/python docs/write_supported.py
	$(BIN)/python docs/write_schema.py

pictures: $(STAMP) ## Draw the README's pictures of a terminal and of a parity page; needs Chromium
	$(BIN)/python docs/write_pictures.py

docs-networks: $(STAMP) ## Convert the networks and write their table in docs/supported.md; takes minutes
	$(BIN)/python tests/models/networks_table.py

# A change that is to alter nothing: run it before and after, and compare the files.
DIGESTS ?= digests.json
digests: $(STAMP) ## Write digests of what conversions write to $(DIGESTS); takes an hour or more
	$(BIN)/python tests/models/digests.py $(DIGESTS) $(PARTS)

# DEVICE=cpu tries the recipe where there is no Apple GPU. The same command goes on where it was.
verify-metal: $(STAMP) ## On a Mac: hold examples and networks to PyTorch on the GPU, time layers; writes metal-report.html and .json
	$(BIN)/python benchmarks/proof.py --device $(DEVICE)

demo: $(STAMP) ## Convert a 3-D U-Net and show that it computes what PyTorch's does
	$(BIN)/python examples/demo.py

clean: ## Remove what was built, cached or written by the demo; the environment stays
	rm -rf .mutants build dist out out-stereo digests.json unet3d.pt stereo.pt *-report *-report.json *-report.html *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
