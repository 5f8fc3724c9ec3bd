SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV = $(shell command -v uv || echo .tools/bin/uv)
LOCK := containers/local/requirements.txt
LOCK_IMAGE = $(UV) pip compile --quiet --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
# Tests import TensorFlow in many processes: its bytecode is compiled on install, so use it.
unexport PYTHONDONTWRITEBYTECODE

PIPELINE ?= train_and_register
PARAMS ?= configs/$(PIPELINE)/flights.yaml
ARGS ?=
REGISTRY ?=
FAMILY ?=
BUILD_OPTIONS ?=

# Two files of tests at a time: many of them wait for a service or a clock.
PYTEST ?= -n 2 --dist loadfile

# What `make monitor` replays, and the port of the mail server that it starts on loopback for the alerts.
MONITOR ?= configs/predict_batch/flights.yaml configs/monitor_and_retrain/flights.yaml
MAIL_PORT ?= 8025

.DEFAULT_GOAL := help
.PHONY: help install run monitor test test-slow tfx-test lint golden docs lock images images-test bench component clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(VENV)/.installed ## install everything from the lock into .venv

$(VENV)/.installed: $(LOCK) setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v[:2] <= (3, 13))' \
	  || { echo "pipeparts needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.11 ..."; exit 1; }
	@command -v uv >/dev/null || test -x .tools/bin/uv || ($(PYTHON) -m venv .tools && .tools/bin/pip install --quiet uv) \
	  || { echo "cannot install uv: on Debian, apt-get install python3-venv (or install uv yourself)"; exit 1; }
	$(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r $(LOCK)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

run: install ## compile the training pipeline and run it here, on the flights of 2013 (PARAMS=, PIPELINE=, ARGS=)
	$(BIN)/pipeparts data flights --to .pipeparts/data/flights --if-missing
	$(BIN)/pipeparts data diamonds --to .pipeparts/data/diamonds --if-missing
	$(BIN)/pipeparts compile $(PIPELINE) -o .pipeparts/$(PIPELINE).yaml
	$(BIN)/pipeparts run .pipeparts/$(PIPELINE).yaml --params $(PARAMS) $(ARGS)

monitor: install ## after `make run`: replay August to December 2013, month by month: predict, watch, alert, retrain
	@$(BIN)/aiosmtpd --nosetuid --listen 127.0.0.1:$(MAIL_PORT) --class aiosmtpd.handlers.Mailbox .pipeparts/mail & mail=$$!; \
	  trap "kill $$mail" EXIT; \
	  PIPEPARTS_ALERT_TO="$${PIPEPARTS_ALERT_TO:-mailto://127.0.0.1:$(MAIL_PORT)/?from=pipeparts@localhost&to=team@localhost}" \
	  $(BIN)/pipeparts backfill $(MONITOR) --start 2013-08-01 --end 2014-01-01 $(ARGS)

test: install ## every test but the slow ones
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)

test-slow: install ## the slow tests: real services, whole pipelines, memory bounds
	$(BIN)/python -m pytest -m slow $(PYTEST)

tfx-test: install ## the tests of what needs TFX's libraries, in their image (ARGS= for pytest); first: make images FAMILY=tfx
	$(BIN)/python -m tests.tfx_image $(ARGS)

lint: install ## ruff, mypy, layers, that generated files are fresh, and that our pipelines run everywhere
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pipeparts.docgen --check
	$(BIN)/pipeparts lint all --strict --registry registry.example/team

golden: install ## write each pipeline's compiled.yaml anew
	$(BIN)/python -m pipeparts.docgen --golden

docs: install ## write the generated READMEs and the catalog table anew
	$(BIN)/python -m pipeparts.docgen

lock: ## resolve the locked requirements anew from setup.py: the laptop's, and each image's
	$(UV) pip compile --quiet setup.py --universal --python-version 3.11 --extra local --extra dev --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o $(LOCK)
	$(PYTHON) containers/write_requirements.py
	for family in data tensorflow monitoring; do $(LOCK_IMAGE) --config-file containers/uv.toml --universal --python-version 3.11 \
	  -c $(LOCK) containers/$$family/requirements.in -o containers/$$family/requirements.txt || exit 1; done
	$(LOCK_IMAGE) --universal --python-version 3.11 -c $(LOCK) containers/registry/requirements.in -o containers/registry/requirements.txt
	$(LOCK_IMAGE) --config-file containers/uv.toml --python-version 3.13 --python-platform x86_64-manylinux_2_40 \
	  containers/tfx/requirements.in -o containers/tfx/requirements.txt
	$(LOCK_IMAGE) --python-version 3.13 --python-platform x86_64-manylinux_2_40 -c $(LOCK) \
	  tests/images/tfx-tests.in -o tests/images/tfx-tests.txt
	@echo "now: make docs, for the hashes of what the images are made by"

images: install ## build the images and write .pipeparts/images.yaml, for `pipeparts compile --images` (REGISTRY=, FAMILY=, BUILD_OPTIONS=)
	$(BIN)/python -m pipeparts.images $(FAMILY) --registry "$(REGISTRY)" --build-options "$(BUILD_OPTIONS)"

images-test: install ## test the images of `make images`, and run pipelines in them: no network, no root, nothing to write to
	PIPEPARTS_IMAGES_TEST=1 $(BIN)/python -m pytest -q tests/images
	$(BIN)/python -m tests.tfx_image -q

ROWS ?= 1000000
STAGES ?= ingest profile validate features drift predict start
ROUNDS ?= 3
comma := ,
BENCH := .pipeparts/bench
bench: install $(BENCH)/outside/.installed ## measure each stage against what a user would pick instead (ROWS=, STAGES=, ROUNDS=)
	$(BIN)/python -m benchmarks --rows $(subst $(comma), ,$(ROWS)) --stages $(subst $(comma), ,$(STAGES)) --rounds $(ROUNDS)

$(BENCH)/outside/.installed: benchmarks/requirements.txt | $(VENV)/.installed
	$(UV) venv --quiet --clear --python $(PYTHON) $(BENCH)/outside
	$(UV) pip install --quiet --compile-bytecode --python $(BENCH)/outside/bin/python -r benchmarks/requirements.txt
	@touch $@

component: install ## make a new component: make component NAME=stage/name
	$(BIN)/python -m pipeparts.scaffold $(NAME)

clean: ## remove runs, caches and the environment
	rm -rf .pipeparts .venv .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
