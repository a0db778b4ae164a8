# Everything a developer runs. `make` alone explains the targets. Each target that needs the virtual
# environment builds .venv first, once, and again only when setup.cfg changes.
#
#   PYTHON=python3.13   the interpreter to build .venv with (default: the first found that is new enough); if
#                       .venv has another version, it is rebuilt
#   PORT=8000           where `make serve` listens
#   ARGS="-k pool -x"   more arguments for pytest in `make test`, `make test-min` and `make examples`
#   SECONDS=60          how long `make soak` lasts (default: 600)
#   ARGS="sql typed"    the parts that `make bench` is to measure (default: all)

BIN := .venv/bin
READY := .venv/.ready
BIN_MIN := .venv-min/bin
READY_MIN := .venv-min/.ready
BIN_DEMO := .venv-demo/bin
READY_DEMO := .venv-demo/.ready
PORT ?= 8000
ARGS ?=
SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help demo picture serve test test-min lint types bench soak examples docs build clean

help:  ## Explain the targets (this text)
	@echo "Usage: make TARGET"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(READY_DEMO)  ## Compare the example server without and with greendata, and draw demo.svg
	$(BIN_DEMO)/python -m examples.demo

picture: $(READY_DEMO)  ## Run the demo, and draw the picture of README.md: examples/picture.svg
	$(BIN_DEMO)/python -m examples.demo --picture examples/picture.svg

serve: $(READY_DEMO)  ## Serve the example with greendata on http://127.0.0.1:8000, until Ctrl-C (PORT=...)
	@echo "http://127.0.0.1:$(PORT)/ lists the routes; the dashboard is at http://127.0.0.1:$(PORT)/greendata/"
	FLASK_DEBUG=1 $(BIN_DEMO)/python -m gunicorn -k greendata.web.gunicorn.GreenWorker -b 127.0.0.1:$(PORT) \
		examples.flask_app:app

# Both runs in parts, five parts at once: a part often waits for servers and child processes, so two would leave the
# cores idle. What shows the same in both runs is in one of them. For one whole run: .venv/bin/python -m pytest, or
# pytest_gevent. With ARGS each run is one part: they may choose tests of a few files, and choosing none is a failure.
PARTS := $(if $(ARGS),1,1 2 3 4 5)
RUNS := $(foreach part,$(PARTS),patched-$(part) unpatched-$(part))
test: $(READY)  ## Run the whole suite twice: unpatched, and under gevent's monkey.patch_all (ARGS=...)
	@$(MAKE) --no-print-directory --jobs=5 --output-sync=target $(RUNS) PY=$(BIN)/python

test-min: $(READY_MIN)  ## Run the same with the oldest versions that setup.cfg allows, in .venv-min (ARGS=...)
	@$(MAKE) --no-print-directory --jobs=5 --output-sync=target $(RUNS) PY=$(BIN_MIN)/python

# Hundreds of tests start a Python of their own: each would compile greendata again if it could not keep the bytecode.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: $(RUNS)
$(RUNS):
	$(PY) -m $(if $(findstring un,$@),pytest,pytest_gevent) --once --part $(lastword $(subst -, ,$@))/$(words $(PARTS)) \
		-o cache_dir=.pytest_cache/$@ $(ARGS)

# The rules, in their order: pyflakes, pycodestyle, isort, naming, docstrings, pyupgrade, blind except, booleans
# by position, bugbear, comprehensions, debuggers, prints, implicit string joins, commented-out code, "to do",
# complexity, blanket ignores, pytest, returns, needless code, simplifications, performance, pylint, ruff's own.
# Left out: docstrings of magic methods (D105, D107), of every argument (D417) and their first letter where it is
# a name's (D403); booleans in calls of foreign functions (FBT003); Local for local (N812), errors whose name is
# the situation (N818); global (PLW0603); isort's order of __all__ (RUF022: tests/project/test_exports.py has ours).
RUFF := --isolated --line-length 120 --target-version py311
RULES := --select F,E,W,I,N,D,UP,BLE,FBT,B,C4,T10,T20,ISC,ERA,FIX,C90,PGH,PT,RET,PIE,SIM,PERF,PLE,PLW,RUF \
	--ignore D105,D107,D403,D417,FBT003,N812,N818,PLW0603,RUF022 \
	--config 'lint.pydocstyle.convention="google"' \
	--per-file-ignores 'setup.py:D,tests/*:D1,tests/*:T20,examples/*:D1,examples/*:T20,greendata/__main__.py:T20' \
	--per-file-ignores 'greendata/*:PT'
SOURCES := greendata tests examples setup.py

lint: $(READY)  ## Check style and layout with ruff (layout: the same `ruff format` without --check repairs it)
	$(BIN)/ruff check $(RUFF) $(RULES) $(SOURCES)
	$(BIN)/ruff format $(RUFF) --check $(SOURCES)

# pyright is basedpyright: its wheel has all that it runs, where the package named pyright downloads it at the first run.
SNIPPETS := build/snippets
types: $(READY)  ## Check the types with mypy --strict; those of examples and the guides' snippets with pyright too
	$(BIN)/mypy
	$(BIN)/python -m tests.project.types.snippets $(SNIPPETS)
	$(BIN)/mypy --config-file= --check-untyped-defs --disable-error-code import-untyped \
		--disable-error-code var-annotated --cache-dir .mypy_cache/snippets $(SNIPPETS)
	$(BIN)/basedpyright --project tests/project/types/pyrightconfig.json --pythonpath $(BIN)/python

bench: $(READY)  ## Measure greendata against plain Polars, pydantic, ADBC, pypeln, Scrapy and others (ARGS=...)
	$(BIN)/python -m tests.bench $(ARGS)

soak: $(READY)  ## Have hubs and threads run jobs of all kinds for ten minutes, and look for what is left (SECONDS=...)
	$(BIN)/python -m tests.soak $(SECONDS)

examples: $(READY)  ## Run every example, the demo in short, and the snippets of the pages, as tests (ARGS=...)
	$(BIN)/python -m pytest tests/project/test_examples.py tests/project/test_demo.py tests/project/test_readme.py $(ARGS)

docs: $(READY)  ## Build the documentation as a site into build/docs: guides, reference, architecture
	$(BIN)/python -m examples.site build/docs

build: $(READY)  ## Build the source archive and the wheel into dist/
	$(BIN)/python -m build

clean:  ## Remove all that these targets made: environments, build products, caches, the demo's picture and data
	rm -rf .venv .venv-demo .venv-min build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf demo.svg examples/data
	find greendata tests examples -name __pycache__ -prune -exec rm -rf {} +

# An interpreter that is new enough and can build environments (Debian packs venv by itself).
CAN_BUILD := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(CAN_BUILD)' 2>/dev/null && echo $$python && break; done)

# An environment of another version than the one asked for is out of date, as after a change of setup.cfg.
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
version_of = $(shell $(1) -c '$(VERSION)' 2>/dev/null)
ifneq (,$(filter command environment,$(origin PYTHON)))
OTHERS := $(foreach made,.venv .venv-demo .venv-min,$(and $(wildcard $(made)),$(filter-out $(call version_of,$(PYTHON)),\
	$(call version_of,$(made)/bin/python)),$(made)))
.PHONY: $(OTHERS:=/.ready)
endif

define build_environment
	@$(or $(PYTHON),false) -c '$(CAN_BUILD)' 2>/dev/null || { \
		echo "greendata needs Python 3.11 or newer with its venv module, got: $(or $(PYTHON),none in PATH)." >&2; \
		echo "Install it (Debian, Ubuntu: apt-get install python3-venv) or name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(if $(filter $(@D),$(OTHERS)),--clear) $(@D)
endef

PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USE_PEP517=1 PIP_QUIET=1
OLDEST := s/^ +([A-Za-z0-9-]+)(\[[a-z]+\])?>=([0-9.]+).*/\1==\3/p

$(READY): setup.cfg setup.py
	$(build_environment)
	$(PIP) $(BIN)/python -m pip install -e '.[dev,test,web]'
	@touch $@

# Without greendata itself, so that the plain side of the demo has nothing of it. The other side finds it by its path.
$(READY_DEMO): setup.cfg setup.py
	$(build_environment)
	$(PIP) $(BIN_DEMO)/python -m pip install -e '.[web]'
	$(PIP) $(BIN_DEMO)/python -m pip uninstall --yes greendata
	@touch $@

$(READY_MIN): setup.cfg setup.py
	$(build_environment)
	sed -nE '$(OLDEST)' setup.cfg > $(@D)/oldest.txt
	$(PIP) $(BIN_MIN)/python -m pip install -c $(@D)/oldest.txt -e '.[docs,test]'
	@touch $@
