# Two commands matter: `make serve` and `make test`. Each sets up what it needs.
PORT ?= 3000
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
# No usage reports to BentoML.
export BENTOML_DO_NOT_TRACK ?= true

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint format bench stress starters build clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Create .venv and install everything

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "VisionLoop needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@if command -v uv >/dev/null; then \
	  test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) .venv; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	  test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv; \
	fi
	@echo "Installing requirements (about 6 GB the first time) ..."
	@if command -v uv >/dev/null; then uv=uv; else uv=$(BIN)/uv; fi; \
	  $$uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@touch $@

serve: $(READY)  ## Serve on 127.0.0.1:3000 (PORT= for another), starter models seeded
	@echo "VisionLoop: http://127.0.0.1:$(PORT)/docs once it is ready. Try:"
	@echo "  curl -F image=@photo.jpg http://127.0.0.1:$(PORT)/infer"
	@exec $(BIN)/bentoml serve service:VisionLoop --port $(PORT)

test: $(READY)  ## Lint, type-check and run the tests
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/python -m pytest

lint: $(READY)  ## Lint and type-check
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY)  ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(READY)  ## Run the serving benchmark that the README quotes
	@$(BIN)/python -m benchmarks.serving

stress: $(READY)  ## Kill and cancel training jobs at random moments, half an hour
	@$(BIN)/python -m benchmarks.stress_jobs

starters: $(READY)  ## Draw the training pictures and train both starter models again
	@$(BIN)/python -m training.starters classifier && $(BIN)/python -m training.starters detector

build: $(READY)  ## Build the Bento
	@$(BIN)/bentoml build

clean:  ## Remove the virtual environment and caches
	@rm -rf .venv .ruff_cache .mypy_cache .pytest_cache .hypothesis
