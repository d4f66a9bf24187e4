# Two doors: `make demo` and `make test`. Both build the environment first, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs benchmark clean

demo: .venv/ready  ## two networks on scikit-learn's digits, rich beside lazy
	$(BIN)/lazyrich demo --out lazyrich-demo

test: lint docs  ## everything that must hold: style, types, documentation, tests
	$(BIN)/python -m pytest -q

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: .venv/ready
	$(BIN)/mkdocs build --strict  # --quiet would hide the warnings, and then they are no failures

benchmark: .venv/ready  ## the tables of the documentation, about an hour
	$(BIN)/python benchmarks/estimator.py 200 projection
	$(BIN)/python benchmarks/estimator.py 200 balanced
	$(BIN)/python benchmarks/references.py
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/rank_cut.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/monitor.py

.venv/ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv lazyrich-demo site
