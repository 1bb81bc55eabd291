PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
KINDS := excel sql kafka delta iceberg images  # extras that the tests need

.PHONY: demo test test-slow check bench clean install lock

demo: $(STAMP)  ## real flights -> a served, watched model; KEEP=1 leaves the service up
	$(BIN)/python configs/flights_driver.py $(if $(KEEP),--keep)

test: $(STAMP)  ## the whole suite but the slow fault tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)  ## kill -9 in every stage, soak
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: $(STAMP)  ## all benchmarks, or one: make bench NAME=serving
	@for file in $(if $(NAME),benchmarks/$(NAME).py,$(wildcard benchmarks/[a-z]*.py)); do \
	  echo "== $$file"; $(BIN)/python $$file || exit 1; done

install: $(STAMP)

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lock: $(STAMP)  ## resolve pyproject.toml anew
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --no-header --no-annotate --extra demo --no-emit-index-url --no-emit-find-links \
	  --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links --constraint requirements.lock \
	  --extra demo --extra dev $(foreach kind,$(KINDS),--extra $(kind)) --output-file requirements-dev.lock pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements*.lock  # +cpu names one machine's wheel

clean:  ## what runs and tools left behind, and the environment
	rm -rf .venv .mlray .mypy_cache .ruff_cache .pytest_cache build *.egg-info
