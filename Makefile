# `make demo` shows the whole chain on made-up radiographs; `make test` is what CI runs.
PYTHON ?= python3
VENV   ?= .venv
OUTPUT ?= demo_output
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
NEURAL := $(VENV)/.neural
DOCS   := $(VENV)/.docs

.PHONY: model demo story docs test test-all lint types tests fix clean

demo: $(READY)
	$(BIN)/histcxr demo --output "$(OUTPUT)"

# The commands of docs/new_hospital.md, in a folder of their own.
story: $(READY)
	rm -rf "$(OUTPUT)/story" && mkdir -p "$(OUTPUT)/story"
	sed -n '/^```sh$$/,/^```$$/{/^```/d;p}' docs/new_hospital.md > "$(OUTPUT)/story/commands.sh"
	cd "$(OUTPUT)/story" && PATH="$(abspath $(BIN)):$$PATH" bash -ex commands.sh

# The site in docs/_build/html. Gallery scripts run, names and links are checked, and a warning is an error.
docs: $(DOCS)
	rm -rf docs/_generated
	$(BIN)/python -m sphinx -W --keep-going -q -j 2 docs docs/_build/html
	@echo "Look at docs/_build/html/index.html"

test: lint types tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

tests: $(READY) $(NEURAL)
	$(BIN)/python -m pytest -n 2

# The architectures, too, that differ from those of `make test` in their size alone.
test-all: lint types $(NEURAL)
	$(BIN)/python -m pytest -n 2 -m "all_networks or not all_networks"
	$(MAKE) story docs

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "histcxr needs Python 3.11, 3.12 or 3.13, and this is %d.%d: name another with make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Networks are trained in tests only: the demo does without these packages.
$(NEURAL): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[neural-cpu]'
	@touch $@

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# Rebuilds the model in the box from DATA, a folder with radiography, covid_full and chest_xray.
model: $(READY)
	@test -n "$(DATA)" || { echo "name the data: make model DATA=FOLDER"; exit 2; }
	$(BIN)/python tools/box_model.py --data "$(DATA)" --output histcxr/store/boxed.histcxr

clean:
	rm -rf $(VENV) $(OUTPUT) docs/_build docs/_generated docs/auto_gallery docs/sg_execution_times.rst
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
