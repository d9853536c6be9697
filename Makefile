# Two commands do all the set-up: `make journal` and `make test`.
PYTHON ?= python3
DATA ?=
SEEDS ?= 3
ONLY ?=
SET ?=
BIN := .venv/bin
CORES ?= all
WORK := $(abspath $(or $(PCAM_WORK),_work))

.PHONY: journal ablation test lint unit notebooks tracking book sync clean help

help:
	@echo "make journal [DATA=DIR]   run every chapter and build the book: _build/html/index.html"
	@echo "make test                 lint, types, unit tests, notebooks, book"
	@echo "make ablation [DATA=DIR] [SEEDS=3] [ONLY=\"cnn p4m\"] [SET=\"train.epochs=15\"]   which idea bought what: hours"
	@echo "make lint | unit | notebooks | book   a part of make test"
	@echo "make tracking             the tests that need extras: a real MLflow server, ONNX"
	@echo "make sync                 bring notebooks/*.ipynb and their .py pairs together"
	@echo "make clean                remove what the journal made; .venv stays"

# A finished install leaves a stamp; a changed lock or a broken install does it again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "Installing into .venv (once, about two minutes) …"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev,slurm]'
	@touch $@

SNAKEMAKE = $(BIN)/snakemake --snakefile workflow/Snakefile --profile workflow/profiles/laptop --cores $(CORES)

journal: .venv/installed
	@$(SNAKEMAKE) --config data='$(DATA)'
	@echo "The book is ready: open _build/html/index.html"

# Chapter Q4 shows it. Hours on a few cores; it may be stopped and given again, and parts of it run beside each other.
ablation: .venv/installed
	@$(BIN)/python benchmarks/ablation.py --data '$(DATA)' --seeds $(SEEDS) $(if $(ONLY),--only $(ONLY)) $(if $(SET),--set $(SET))

test: lint unit notebooks

lint: .venv/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

# A thread each: three processes share what may be two cores. The longest files come first.
unit: .venv/installed
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder tests

# nbval executes the chapters: all they need of the journal is its sample and its runs. What else they make goes into a
# work folder of their own, so that the journal keeps the runs that its executed chapters cite.
notebooks: .venv/installed
	@$(SNAKEMAKE) runs
	@rm -rf $(WORK)/nbval && mkdir -p $(WORK)/nbval/sample
	@ln -s $(WORK)/sample/data $(WORK)/sample/runs $(WORK)/nbval/sample
	@PCAM_WORK=$(WORK)/nbval $(BIN)/pytest -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout 600 \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

# MLflow's server is a few hundred megabytes that nothing else here needs, ONNX some forty; without them these tests
# are skipped.
tracking: .venv/installed
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[track,export]'
	@$(BIN)/pytest tests/test_tracking.py tests/test_export.py

book: .venv/installed
	@rm -f _build/html/edition-*.json # what is on show is no journal's edition any more
	@$(BIN)/jupyter-book build book -W --keep-going

sync: .venv/installed
	@$(BIN)/jupytext --sync notebooks/*.py

clean:
	rm -rf _work _build book/_build
