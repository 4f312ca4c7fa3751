# Two commands for a new user: `make demo` and `make test`. Both make .venv when it is missing or stale.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Seconds that `make fuzz` gives every reader, and `make test`; CI may take a minute: FUZZ_SECONDS=60.
SECONDS ?= 60
FUZZ_SECONDS ?= 1

.PHONY: demo test test-arm lint typecheck pytest wheel fuzz clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

# Side by side: what checks types or builds the wheel has one thread, and the tests end unevenly.
test: $(STAMP)
	$(MAKE) --jobs=2 lint pytest typecheck wheel fuzz SECONDS=$(FUZZ_SECONDS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What ships is checked, under the names it ships with.
typecheck: $(STAMP)
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --target build/typecheck .
	$(BIN)/basedpyright

# Two workers with a thread each: more threads than cores wait for one another. Who is done takes
# tests over from the other. Modules and tests stay compiled, whatever the environment says: hundreds
# of processes would compile them again.
pytest: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

# Exported files on an emulated Raspberry Pi 4 processor, which is made in .arm-root when missing.
test-arm: $(STAMP)
	$(BIN)/python tests/arm/build_root.py .arm-root
	SHRINKC_ARM=.arm-root OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/arm

# Hostile inputs for every reader, by a seed that is printed. What is read wrong is kept in
# fuzz-findings, where `tests/fuzz/run.py --replay FOLDER` reads it again.
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

# The wheel must work where only its own dependencies are. It is built in the folder that typecheck
# makes anew.
wheel: $(STAMP) | typecheck
	$(BIN)/python tests/check_wheel.py

clean:
	rm -rf $(VENV) .arm-root build dist fuzz-findings *.egg-info
