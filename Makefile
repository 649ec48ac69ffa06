# coordreg: build the book, run the tests, train again. `make` alone lists the targets.
#
# Everything runs in a private environment, .venv, made from requirements.lock on first use; none needs to be active.
# PYTHON=/path/to/python uses that interpreter as it is and builds no environment (GPU hosts, containers, conda).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport PYTHONHOME
# kernels of this environment before the user's own; no advice about file validation or folders in the middle of a log
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

PROFILE ?= smoke
CHAPTER ?= all
ARGS ?=
BUILD ?= _build
VENV := .venv

ifeq ($(origin PYTHON),undefined)
ENV := $(VENV)/.installed
PY := $(VENV)/bin/python
else
ENV :=
PY := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON)
endif

JUPYTER_BOOK := $(PY) -c 'import sys; from jupyter_book.cli.main import main; sys.argv[0] = "jupyter-book"; main()'

## -- what one can ask for

help:  ## show this list
	@echo "coordreg: an executable textbook on coordinate regression. Targets:"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PROFILE=smoke|cpu|gpu|paper   what a rerun costs: seconds, minutes on two cores, minutes on a GPU, the paper's own"
	@echo "  CHAPTER=heatmap|dsnt|...|all   which notebook a rerun executes"
	@echo "  PYTHON=/usr/bin/python3       use this interpreter as it is instead of building .venv"

book: $(BUILD)/html/.built  ## build the site into _build/html (pages execute in seconds, from committed records)
	@echo "The book is at $(abspath $(BUILD))/html/index.html"

test: $(ENV)  ## ruff, mypy, unit tests, notebooks at the smoke profile, the book in a headless browser
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n 2 --dist loadfile $(ARGS)

notebooks: $(patsubst notebooks/%.md,$(BUILD)/notebooks/%.ipynb,$(wildcard notebooks/*.md))  ## write the chapters as .ipynb (Jupyter, Colab) into _build/notebooks
	@echo "The notebooks are in $(abspath $(BUILD))/notebooks"

rerun: $(ENV)  ## execute chapters through papermill, training what is missing: PROFILE=... CHAPTER=...
	$(PY) -m coordreg rerun --profile $(PROFILE) --chapter $(CHAPTER) $(ARGS)

bench: $(ENV)  ## speed against peers: prints a table, writes _build/bench.json
	@mkdir -p $(BUILD)
	OMP_NUM_THREADS=1 $(PY) -m benchmarks $(ARGS)

env: $(ENV)  ## build .venv and nothing else
	@echo "Ready: $(PY)"

clean:  ## remove what was built and the caches; keep results/ and .venv
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name .git -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv as well
	rm -rf $(VENV) coordreg.egg-info

## -- how

# A Python 3.11 or 3.12 that runs and can make environments. Candidates are run, not looked up: a shim may exist and fail.
VENV_PYTHON ?=
CANDIDATES = $(VENV_PYTHON) python3.12 python3.11 python3 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3
FITS = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

$(VENV)/.installed: requirements.lock pyproject.toml
	@found=; if $(VENV)/bin/python -c '$(FITS)' >/dev/null 2>&1; then found=kept; else \
	  for p in $(CANDIDATES); do if "$$p" -c '$(FITS)' >/dev/null 2>&1; then found=$$p; break; fi; done; \
	  if [ -z "$$found" ]; then \
	    echo "make: no Python 3.11 or 3.12 that can make environments among: $(strip $(CANDIDATES))" >&2; \
	    echo "      Debian/Ubuntu: apt-get install python3 python3-venv; conda: conda env create -f environment.yml;" >&2; \
	    echo "      elsewhere installed: make ... VENV_PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	  echo "Making $(VENV) with $$("$$found" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	  "$$found" -m venv --clear $(VENV); fi
	@echo "Installing the pinned packages into $(VENV) (torch is large: minutes on a first run)"
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip install -qq --retries 8 --timeout 60 -r requirements.lock
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

# The pages read the library and the records, so these are inputs of the book; the list itself is one, so that a deleted
# or added file is noticed. Pages are always executed afresh: Jupyter Book's cache looks at cells alone.
BOOK_PLACES := _config.yml _toc.yml requirements.lock Makefile book notebooks coordreg results
LIST_INPUTS = find $(wildcard $(BOOK_PLACES)) -type f ! -path '*/__pycache__/*' ! -path '*/.*' ! -name '*.ipynb' ! -name '*[ :]*' | LC_ALL=C sort
BOOK_INPUTS := $(shell $(LIST_INPUTS))

$(BUILD)/book.inputs: FORCE
	@mkdir -p $(@D)
	@$(LIST_INPUTS) > $@.new; if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# A page that failed once is skipped by the next build, hence the fresh .doctrees; -W makes a failing cell fail the build.
$(BUILD)/html/.built: $(BOOK_INPUTS) $(BUILD)/book.inputs $(ENV)
	@rm -rf $(BUILD)/.doctrees $(BUILD)/html $(BUILD)/jupyter_execute
	@echo "Building the book; every page is executed"
	@MPLBACKEND= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(JUPYTER_BOOK) build . --path-output $(patsubst %/,%,$(dir $(BUILD))) -W -n -q --keep-going
	@test -s $(BUILD)/html/index.html && test -s $(BUILD)/html/book/welcome.html || { echo "make: the build ended well but wrote no site" >&2; exit 1; }
	@touch $@

$(BUILD)/notebooks/%.ipynb: notebooks/%.md $(ENV)
	@mkdir -p $(@D)
	$(PY) -m jupytext --quiet --to ipynb --output $@ $<

FORCE:
.PHONY: help book test notebooks rerun bench env clean distclean FORCE
