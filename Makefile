# One command for each chore; each sets up what it needs. Nothing here needs root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The system's uv, or one in a virtual environment of its own.
UV := $(shell command -v uv 2>/dev/null || echo .venv-uv/bin/uv)
PYTHON ?= python3
SYNC = $(UV) sync --frozen --quiet --compile-bytecode
RUN = .venv/bin/

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet 'uv>=0.9'

install: | $(UV) ## set up the virtual environment for use
	$(SYNC) --inexact --extra embedded --extra demo

install-test: | $(UV)
	$(SYNC) --inexact --all-extras --group test

install-check: | $(UV)
	$(SYNC) --inexact --all-extras --group test --group check --group bench

demo: install ## two sites on this machine: load real data into the lake, check it, query it
	$(RUN)python -W ignore -m deployments.demo

up: install ## start the embedded estate, or mend it
	$(RUN)causeway up

down: install ## stop the embedded estate; its data stays
	$(RUN)causeway down

test: install-test ## run all tests; those whose servers are not on this machine are skipped with the reason
	$(RUN)python -m pytest $(ARGS)

check: install-check ## format, lint, types, import direction
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports

bench: install-check ## measure against peers and limits in one run
	$(RUN)python -m benchmarks $(ARGS)
	$(RUN)python -m benchmarks.depth

bench-lake: install-check ## measure the lake alone: queries, small files, commits, checks
	$(RUN)python -m benchmarks.depth $(ARGS)

.PHONY: help install install-test install-check demo up down test check bench bench-lake
