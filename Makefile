# The two commands are `make demo` and `make test`. Each first builds the environment in .venv, if it is missing or out of date.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

MEASURED := tests/gram tests/functional tests/model tests/support/test_processes.py tests/measurement/test_measure.py tests/test_metrics.py

.PHONY: demo test lint docs pytest benchmark coverage clean

demo: .venv/ready  ## train and measure two networks on scikit-learn's digits, one rich and one lazy
	$(BIN)/lazyrich demo --out lazyrich-demo --overwrite

test: .venv/ready  ## everything that must pass: style, types, imports, spelling, documentation, tests
	$(MAKE) --jobs=3 lint docs pytest  # at once, because many tests wait for others

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: .venv/ready
	$(BIN)/mkdocs build --strict  # without --quiet, which hides warnings, so that they would not fail the build

pytest: .venv/ready
	# three processes of one thread each; programs that tests start share compiled modules
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 3 --dist loadfile

benchmark: .venv/ready  ## print the tables of the documentation; takes about an hour
	$(BIN)/python benchmarks/accuracy/estimator.py 200 projection
	$(BIN)/python benchmarks/accuracy/estimator.py 200 balanced
	$(BIN)/python benchmarks/accuracy/coverage.py
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

coverage: .venv/ready  ## line and branch coverage of the code that measures, by its own tests; fails if a file is below 95 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(MEASURED)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --precision=1 | awk '{ print } /^src/ && $$NF + 0 < 95 { low = 1 } END { exit low }'

.venv/ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements/dev.txt
	-$(BIN)/python -m compileall -q -j 0 .venv > /dev/null  # some packages hold templates that are no Python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv lazyrich-demo site
