# make run     set up everything, audit this host's clock, or show a demonstration where no server answers
# make test    set up everything, fetch the servers that tests run against, run every test that this machine allows
# make test-trixie   run the quick part of the tests with the Python of Debian 13
# make check   format, lint, types, tests: what must hold before a commit
# make truth   measure in simulated worlds how often each statement holds, and write docs/truth.md (WORLDS=, DECADES=, SEED=)
# make fuzz    give the readers of what daemons and servers send millions of damaged replies (SECONDS= for each, TARGETS=)
# make bench   measure every claim and write docs/benchmarks.md
#
# As root, on a host that is to be audited (PREFIX=/opt/ntpaudit, DESTDIR= for packagers):
# make install, make uninstall
#
# make deb     build the Debian package in dist/
# make dist    build what is published in dist/, for the project's page: make dist URL=https://...
# make release the same, the Debian package, and a bill of materials of both (CycloneDX)
# make dashboards   rewrite Grafana's dashboards and alert rules from grafana/*.py
# make pictures    make the README's pictures from the program's output
# make docs    write the generated tables of docs/ (findings, message ids, reason codes) and the runbook

PYTHON ?= python3
VENV ?= .venv
PREFIX ?= /opt/ntpaudit
BIN := $(VENV)/bin
SERVERS := chrony ntpsec influxdb victoria-metrics prometheus nginx libfaketime iproute2 mandoc mmdebstrap openssl \
           chromium-headless-shell openntpd systemd-timesyncd monitoring-plugins-basic auditd
IN_WORKERS := -n auto --dist loadfile --no-loadscope-reorder

export NTPAUDIT_UNTESTED := $(CURDIR)/.coverage-untested
SUM_UP = $(BIN)/coverage combine --quiet; \
	$(BIN)/coverage report $(if $(NTPAUDIT_REQUIRE),,--fail-under=0) || status=1; \
	$(BIN)/python -m tests.abilities; exit $$status

.PHONY: run test test-trixie check lint types bench fuzz truth servers format dashboards docs pictures install uninstall deb dist release clean
.DEFAULT_GOAL := run

run: $(VENV)/installed
	@$(BIN)/ntpaudit check; status=$$?; echo "exit status $$status"; \
	if [ $$status -eq 3 ]; then \
		printf '\nNothing could be measured from here. What an audit looks like where servers answer:\n\n'; \
		$(BIN)/ntpaudit demo --once; echo "exit status $$?"; \
	fi

# Several workers share the files; then come, one by one, the tests that can have no other beside them (the marker
# `alone`). PYTEST= chooses some tests, and runs them in one process. What the machine lacks for is listed at the end;
# the coverage must be reached only where it may lack nothing. An interrupt (status 2) ends all.
test: $(VENV)/developer servers
	$(BIN)/coverage erase
	@rm -f $(NTPAUDIT_UNTESTED)
ifdef PYTEST
	@$(BIN)/coverage run -m pytest $(PYTEST); status=$$?; $(SUM_UP)
else
	@$(BIN)/coverage run -m pytest $(IN_WORKERS) -m 'not alone'; status=$$?; [ $$status -ne 2 ] || exit 2; \
	$(BIN)/coverage run -m pytest -m alone; alone=$$?; \
	status=$$((status | alone)); $(SUM_UP)
endif

# The quick part of the tests with the Python of Debian 13. Needs root and a network.
test-trixie: $(VENV)/developer
	$(BIN)/python -m tests.world.debian trixie

check: lint types test

lint: $(VENV)/developer
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/developer
	$(BIN)/mypy

format: $(VENV)/developer
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/developer servers
	$(BIN)/python -m tests.bench

fuzz: $(VENV)/developer
	$(BIN)/pip install --quiet 'atheris>=3'
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),20) $(TARGETS)

truth: $(VENV)/developer servers
	$(BIN)/python -m tests.truth

dashboards: $(VENV)/developer
	$(BIN)/python -m grafana

docs: $(VENV)/developer
	$(BIN)/python -m docs
	$(BIN)/python -m grafana

pictures: $(VENV)/developer servers
	$(BIN)/python -m docs.pictures

# Debian packages, unpacked into .cache and never installed: installing one would replace the machine's time daemon.
servers: $(VENV)/developer
	$(BIN)/python -m tests.world.packages $(SERVERS)
	$(BIN)/python -m tests.world.node
	$(BIN)/python -m tests.world.roughenough
	@[ "$$(id -u)" -ne 0 ] || $(BIN)/python -m tests.world.machine

install:
	@PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh packaging/install.sh

uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh packaging/uninstall.sh

deb: $(VENV)/installed
	@$(BIN)/python packaging/deb.py

release: dist deb
	@$(BIN)/python packaging/sbom.py

dist: $(VENV)/developer
	@[ -n "$(URL)" ] || { echo "name the project's page: make dist URL=https://..." >&2; exit 64; }
	@$(BIN)/python packaging/dist.py --url '$(URL)'

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ntpaudit needs Python 3.11 or newer: name one, make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "Python's venv module is missing: installing Debian's python3-venv" >&2; \
		apt-get install -y --no-install-recommends python3-venv || { \
			echo "install it by hand: sudo apt-get install python3-venv" >&2; exit 1; }; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/developer: $(VENV)/installed
	$(BIN)/pip install --quiet --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
