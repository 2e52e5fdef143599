# Each target makes the virtual environment it needs. Long suites take their length as a variable.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: demo test test-ray demo-ray test-sb3 lint sim sim-planted chaos bench bench-peers docs clean

$(STAMP): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,envs,pettingzoo,dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/environment_hosts.py

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p actorlib

# Simulated clusters under faults for SECONDS: new seeds, or those from FIRST on.
SECONDS ?= 180
sim: $(STAMP)
	$(BIN)/python tests/sim/swarm.py --seconds $(SECONDS) $(if $(FIRST),--first $(FIRST))

# Faults planted in the protocols, one at a time: how soon the swarm finds each.
sim-planted: $(STAMP)
	$(BIN)/python tests/sim/planted.py

# Stable-Baselines3 on environment hosts; it brings PyTorch, so it is not part of `make test`.
test-sb3: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[sb3]"
	$(BIN)/python -m pytest tests/envs/test_sb3.py

# kill -9 of each kind of process of a cluster under a mixed workload, each for SECONDS.
chaos: $(STAMP)
	ACTORLIB_CHAOS_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q --timeout 0 tests/cluster/test_kills.py

bench: $(STAMP)
	$(BIN)/python bench/run.py

# The same work on Ray, in an environment of its own.
bench-peers: setup.cfg
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	.venv-peers/bin/python -m pip install --quiet --no-build-isolation --editable ".[envs,testing]" ray
	.venv-peers/bin/python bench/run.py --peers

# The engine on Ray, in an environment of its own: the same conformance suite, then what only Ray can show. Another
# release of Ray has an environment of its own: make test-ray RAY_VERSION=2.49.2. What Ray's own code writes before it
# ends a process goes past Python, so only sys.stdout and sys.stderr are captured.
RAY_VERSION ?=
RAY_VENV = .venv-ray$(if $(RAY_VERSION),-$(RAY_VERSION))
RAY = $(RAY_VENV)/bin/python
RAY_STAMP = $(RAY_VENV)/.installed
$(RAY_STAMP): setup.cfg pyproject.toml
	test -x $(RAY) || $(PYTHON) -m venv $(RAY_VENV)
	$(RAY) -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(RAY) -m pip install --quiet --no-build-isolation --editable ".[ray,test,envs]" $(if $(RAY_VERSION),ray==$(RAY_VERSION))
	touch $@

test-ray: $(RAY_STAMP)
	ACTORLIB_CONFORMANCE_ENGINES=ray $(RAY) -m pytest -p no:warnings --capture=sys tests/conformance tests/on_ray $(PYTEST_ARGS)

demo-ray: $(RAY_STAMP)
	$(RAY) examples/environment_hosts.py --engine ray

docs: $(STAMP)
	$(BIN)/python -m pytest -q tests/tidy/test_docs.py

clean:
	rm -rf $(VENV) .venv-peers .venv-ray* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
