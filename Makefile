# make demo | test | lint | docs | dist | bench. Each makes .venv on first use and needs nothing but Python 3.11 or newer, pip and
# make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint docs dist bench clean

demo: .venv/.demo
	$(BIN)/htsr demo

test: .venv/.dev
	@echo "== tests (pytest on two workers; those marked slow, half an hour, run with: $(BIN)/pytest -m slow)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

lint: .venv/.dev
	@echo "== ruff, mypy, spelling, and the files that GitHub, pre-commit and Docker read"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --quiet .github action.yml
	$(BIN)/pre-commit validate-config
	$(BIN)/pre-commit validate-manifest
	$(BIN)/hadolint .packaging/Dockerfile

dist: .venv/.dev
	@echo "== sdist and wheel, in dist/"
	$(BIN)/python .packaging/dist.py
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

bench: .venv/.demo
	@echo "== benchmarks"
	$(BIN)/python benchmarks/audit_minilm.py
	$(BIN)/python benchmarks/audit_speed.py
	$(BIN)/python benchmarks/audit_llm.py
	$(BIN)/python benchmarks/htmuon_kernel.py
	$(BIN)/python benchmarks/update_accuracy.py
	$(BIN)/python benchmarks/htmuon_step.py
	$(BIN)/python benchmarks/tail_accuracy.py
	$(BIN)/python benchmarks/noise_calibration.py
	$(BIN)/python benchmarks/limits.py
	$(BIN)/python benchmarks/monitor_overhead.py
	$(BIN)/python benchmarks/history_opening.py
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/steps.py

docs: .venv/.docs
	@echo "== documentation: open build/docs/index.html"
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --fresh-env docs build/docs

clean:
	rm -rf .venv build dist *.egg-info htsr-demo

.venv/bin/python:
	@echo "== making .venv with $(PYTHON)"
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "== installing htsr and what the demo needs into .venv (a minute or two the first time)"
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "== installing htsr and what the tests need into .venv (a minute or two the first time)"
	$(PIP) --editable '.[demo,dev]'
	@touch $@

.venv/.docs: pyproject.toml constraints.txt | .venv/bin/python
	@echo "== installing htsr and what the documentation needs into .venv (a minute or two the first time)"
	$(PIP) --editable '.[demo,docs]'
	@touch $@
