# Everything runs in an environment of its own; nothing is needed beforehand but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help env demo test chaos chaos-corum parity lint docs pictures clean

help:
	@echo "make demo     fold and score the demo database on the CPU (a few minutes)"
	@echo "make test     run the tests"
	@echo "make chaos    runs that 100 schedules of faults hit, in about 10 minutes on two idle cores; SEED=17, SEEDS=100-200, N=1000"
	@echo "make parity   compare every module with boltz 2.2.1, and scores with their programs"
	@echo "make lint     ruff and pyright"
	@echo "make docs     write docs/outputs.md and docs/settings.md from the code"
	@echo "make pictures take the pictures of the report, with Chromium"
	@echo "make clean    remove the environments and the demo's results"

env: $(VENV)/.installed

# torch first and alone: the pin in constraints.txt takes a CPU build where one is at hand.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

demo: env
	$(BIN)/foldcp score datasets/demo/complexes.tsv --sequences datasets/demo/sequences.fasta \
		--out demo-run --checkpoint demo --set msa.missing=single-sequence

# Two processes; tests/conftest.py says which of them runs what.
test: env
	$(BIN)/python -m pytest -n 2

# make chaos SEED=17, SEEDS=100-200, N=1000
N ?= 100
SEEDS ?= $(or $(SEED),0-$(shell expr $(N) - 1))
chaos: env
	$(BIN)/python -m tests.chaos --seeds $(SEEDS)

# CORUM and a FASTA file of human proteins, which are not part of the project
chaos-corum: env
	$(BIN)/python -m tests.chaos.corum $(CORUM) $(SEQUENCES)

parity: env
	bash tests/parity/run.sh
	bash tests/parity/programs/run.sh

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: env
	$(BIN)/python docs/scripts/generate.py

pictures: env
	FOLDCP_PICTURES=docs/images $(BIN)/python -m pytest -q tests/reporting/test_report_in_browser.py

clean:
	rm -rf $(VENV) .venv-parity .venv-programs .parity demo-run build dist *.egg-info
