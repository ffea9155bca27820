# The Python that the environment is made from; any from 3.11 on.
export PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup run stack tools test lint check package fuzz bench bench-detection bench-scenarios bench-sidecar bench-triggers dashboards pictures docs lock clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

setup: ## make .venv with everything that is pinned, and poisonwatch itself
	@.ci/bootstrap

run: setup ## watch a poisoned model on the demo log; Ctrl-C ends it
	.venv/bin/poisonwatch demo

stack: setup ## the same with Prometheus and Alertmanager beside it: prints the pages that come; Ctrl-C ends it
	@.ci/debian-tools
	.venv/bin/python -m tests.system.stack

tools: setup ## fetch the programs that the tests start
	@.ci/debian-tools
	@.ci/inference-servers
	@.ci/image-tools

test: tools ## run all tests
	.venv/bin/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: setup ## format, lint and type checks
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

check: ## all that has to hold before a commit lands
	@$(MAKE) --no-print-directory --jobs=2 lint tools
	@$(MAKE) --no-print-directory test

package: setup ## build the wheel and the source archive into dist, and check them
	rm -rf dist
	.venv/bin/python -m build --no-isolation --outdir dist
	.venv/bin/twine check --strict dist/*

fuzz: setup ## run every fuzzer for FUZZ_SECONDS (60) each; what breaks one is left in .fuzz
	.venv/bin/python -m tests.fuzz

bench: setup ## measure speed and memory, beside peers
	.venv/bin/python -m benchmarks

bench-detection: setup ## measure false pages and delays, beside peers
	.venv/bin/python -m benchmarks.detection
	.venv/bin/python -m benchmarks.step

bench-scenarios: setup ## replay attacks and honest changes on real data; a quarter of an hour and more
	.venv/bin/python -m benchmarks.scenarios
	.venv/bin/python -m benchmarks.scenarios.streams

bench-sidecar: setup ## measure what the agent costs the server beside it, and what it takes by traffic; half an hour
	@.ci/inference-servers
	.venv/bin/python -m benchmarks.overhead
	.venv/bin/python -m benchmarks.sizing

bench-triggers: setup ## play triggers, and what looks like one, on real data; hours, and goes on where it was stopped
	.venv/bin/python -m benchmarks.triggers
	.venv/bin/python -m benchmarks.triggers.strip

dashboards: setup ## write the dashboards' JSON anew from their code, and the chart's copies of what it ships
	.venv/bin/python -m dashboards.build
	.venv/bin/python -m tests.deploy.chart_copies

pictures: setup ## draw the dashboards with Grafana's own code; wants node, npm and chromium
	@.ci/debian-tools
	@.ci/panels
	.venv/bin/python -m tests.dashboards.pictures

docs: setup ## build the site of the pages into build/site
	.venv/bin/sphinx-build -W -n --keep-going --quiet -d build/doctrees -c docs . build/site

lock: setup ## pin the environments of development, of the tests' servers and of the image again, at the newest versions that fit
	.venv/bin/uv pip compile --quiet --upgrade --no-config --universal --python-version 3.11 --generate-hashes \
		--all-extras --group dev --custom-compile-command "make lock" \
		--output-file requirements-dev.lock pyproject.toml
	for server in mlserver kserve bentoml azure; do \
		.venv/bin/uv pip compile --quiet --upgrade --no-config --universal --python-version 3.11 --generate-hashes \
			--custom-compile-command "make lock" --output-file .ci/$$server.lock .ci/$$server.in || exit 1; \
	done
	for extras in kafka all; do \
		.venv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
			--constraint requirements-dev.lock --custom-compile-command "make lock" --extra $$extras \
			--output-file deploy/docker/$$extras.lock pyproject.toml || exit 1; \
	done
	.venv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
		--constraint requirements-dev.lock --custom-compile-command "make lock" \
		--output-file deploy/docker/build.lock deploy/docker/build.in

clean: ## remove the environment, fetched tools, caches and builds
	rm -rf .venv .tools .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
