# Two commands do everything: `make run` and `make test`. Both may be repeated.
PYTHON ?= python3
PORT   ?= 8000
VENV   := .venv
BIN    := $(VENV)/bin

# Where it is set (many images do), each process that a test starts compiles the whole package again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: run test test-all simulate check lint types floors structure collect lock sbom docs pictures bench clean replicas

run: $(VENV)/.installed
	@$(BIN)/approvals-bot dev --port $(PORT)

test: $(VENV)/.installed-dev
	@sh tests/support/install_tools.sh
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# Also everything that `make test` only samples: each planted bug of a release, on both stores (5 minutes more).
test-all:
	EVERY_BUG=1 $(MAKE) test ARGS="-o faulthandler_timeout=0 $(ARGS)"  # some of these take longer on purpose

# Play many seeds of the simulated engine on all processors, or print the timeline of one: `make simulate SEED=17`.
# STORE=postgres plays them on PostgreSQL, which takes ten times as long.
SEEDS ?= 10000
STORE ?= sqlite
simulate: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.simulation --store $(STORE) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

# Kill and stall replicas on PostgreSQL while people open requests and vote, LOSSES times; CI does one of each.
LOSSES ?= 200
replicas: $(VENV)/.installed-dev
	APPROVALS_TEST_LOSSES=$(LOSSES) $(BIN)/python -m pytest tests/reliability/test_replicas_die_and_stall.py -m "promise(n=8)"

# Everything that runs no service; `make -j2 check` uses a second processor. To collect is to import each test, and
# leaves what is compiled to the processes of `make test`.
check: lint types floors structure collect

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

floors: $(VENV)/.installed-dev
	$(BIN)/lint-imports

structure: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q tests/structure

collect: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -qq --collect-only >/dev/null || $(BIN)/python -m pytest -q --collect-only

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Another Python gets a new venv, so that `make test PYTHON=python3.13` means what it says.
$(VENV)/.python-$(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null):
	@echo "Creating $(VENV) with $$($(PYTHON) --version) …"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

PY_STAMP := $(VENV)/.python-$(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)

$(VENV)/.installed: $(PY_STAMP) pyproject.toml requirements.lock
	@echo "Installing Approvals Bot into $(VENV); the first time takes half a minute to a minute …"
	@$(INSTALL) -r requirements.lock
	@$(INSTALL) --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@echo "Installing what tests and checks need into $(VENV) …"
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

# Measure everything, side by side with other systems in a venv of their own, and write docs/performance.md.
# PARTS=cycle,paused measures only these again; OLD=v0.1.0 measures another commit in the same rounds. The machine should
# have nothing else to do; it takes about 20 minutes.
bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks.others.install
	$(BIN)/python -m benchmarks --parts "$(PARTS)" $(if $(OLD),--old "$(OLD)") $(ARGS)

# Lock what development and CI install, and servers (deploy/), for every Python we support, with the hash of each file: pip refuses any other.
lock: $(PY_STAMP)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --extra dev --extra listen --extra fast --extra postgres --extra pydantic-ai pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --all-extras --group dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --python-version 3.11 --no-header --no-annotate --extra fast --extra postgres --extra oidc --extra audit --extra scim --extra bounces --extra listen --extra otel -c requirements-dev.lock pyproject.toml -o deploy/requirements.lock

# Build the documentation's site into dist/site. A link that leads nowhere fails it.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.site dist/docs
	$(BIN)/zensical build --strict -f zensical.toml

# Write the lists of everything that is in the image and in a checkout's .venv (CycloneDX 1.6), as they are released beside
# the package. The tool has dependencies of its own, so it gets a venv of its own.
sbom:
	@$(PYTHON) -m venv dist/.sbom
	@dist/.sbom/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7.5'
	dist/.sbom/bin/cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml --output-reproducible --output-file dist/approvals-bot-image.cdx.json
	dist/.sbom/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-file dist/approvals-bot.cdx.json

# Take the pictures of docs/slack.md and docs/email.md again; this needs Chromium.
pictures: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.slack_pictures
	$(BIN)/python -m tests.support.mail_pictures

clean:
	rm -rf $(VENV) .approvals
