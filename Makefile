# Two doors: `make demo` and `make test`. Both build the environment first, once.
PYTHON ?= python3
BIN := .venv/bin

MEASURED := gram low_rank spectrum neural_collapse kernel_alignment effective_rank spectral_exponent parameter_norm tangent_kernel \
	references capture random_networks layers measure targets determinism processes metrics large_p inputs row_sample sketched inverse_root

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
	$(BIN)/python benchmarks/estimator.py 200 projection
	$(BIN)/python benchmarks/estimator.py 200 balanced
	$(BIN)/python benchmarks/references.py
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/rank_cut.py
	$(BIN)/python benchmarks/large_p.py
	$(BIN)/python benchmarks/sensitivity.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/monitor.py
	$(BIN)/python benchmarks/speed.py --threads 1 2 --out results/speed/peers.md
	$(BIN)/python benchmarks/against_the_limit.py --out results/speed/limit.md
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/processes.py

coverage: .venv/ready  ## lines and branches of what measures, by its own tests, in all their processes; each file 95 % or more
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(MEASURED:%=tests/test_%.py)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --precision=1 | awk '{ print } /^src/ && $$NF + 0 < 95 { low = 1 } END { exit low }'

.venv/ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv lazyrich-demo site
