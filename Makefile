# Two doors: `make demo` and `make test`. Both build the environment first, once.
PYTHON ?= python3
BIN := .venv/bin

MEASURED := tests/gram tests/functional tests/model tests/support/test_processes.py tests/measurement/test_measure.py tests/test_metrics.py

.PHONY: demo test lint docs benchmark coverage clean

demo: .venv/ready  ## two networks on scikit-learn's digits, rich beside lazy
	$(BIN)/lazyrich demo --out lazyrich-demo

test: lint docs  ## everything that must hold: style, types, documentation, tests
	$(BIN)/python -m pytest -q

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: .venv/ready
	$(BIN)/mkdocs build --strict  # --quiet would hide the warnings, and then they are no failures

benchmark: .venv/ready  ## the tables of the documentation, about an hour
	$(BIN)/python benchmarks/accuracy/estimator.py 200 projection
	$(BIN)/python benchmarks/accuracy/estimator.py 200 balanced
	$(BIN)/python benchmarks/accuracy/references.py
	$(BIN)/python benchmarks/accuracy/measures.py
	$(BIN)/python benchmarks/accuracy/rank_cut.py
	$(BIN)/python benchmarks/accuracy/large_p.py
	$(BIN)/python benchmarks/accuracy/sensitivity.py
	$(BIN)/python benchmarks/speed/report.py
	$(BIN)/python benchmarks/speed/monitor.py
	$(BIN)/python benchmarks/speed/speed.py --threads 1 2 --out results/speed/peers.md
	$(BIN)/python benchmarks/speed/against_the_limit.py --out results/speed/limit.md
	$(BIN)/python benchmarks/speed/cost.py
	$(BIN)/python benchmarks/speed/processes.py

coverage: .venv/ready  ## lines and branches of what measures, by its own tests, in all their processes; each file 95 % or more
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(MEASURED)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --precision=1 | awk '{ print } /^src/ && $$NF + 0 < 95 { low = 1 } END { exit low }'

.venv/ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv lazyrich-demo site
