# Shortcuts for people who work on YieldSpark; `make` lists them.

PYTHON ?= python3
REPORT ?= reports/yieldspark-report.html
VENV := .venv/bin
MERMAID := 11.4.1

.DEFAULT_GOAL := help
.PHONY: help setup lint format test test-fast demo images docs audit sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## create .venv with the packages of the product and the tests
	$(PYTHON) run_spark_local.py test --version

lint: ## run ruff, mypy, the import rules, and check the generated pages
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy .
	$(VENV)/lint-imports --no-cache
	$(VENV)/python -m docs.generate --check

format: ## format the code
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

test: ## run the whole test suite, as CI does
	$(PYTHON) run_spark_local.py test

test-fast: ## run the tests that start no other program
	$(PYTHON) run_spark_local.py test --fast

demo: ## run the demo
	$(PYTHON) run_spark_local.py

images: ## make the pictures of the documentation from the demo (requires chromium)
	$(VENV)/python -m docs.make_images $(REPORT)

docs: .docs/stamp docs/assets/mermaid.min.js ## build the documentation as a site in site/
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build

audit: .audit/stamp .docs/stamp ## check licences and published advisories of all pins
	@$(VENV)/python -m docs.licences .venv .docs .audit; licences=$$?; \
	$(VENV)/python -m docs.audit .audit/bin/pip-audit && exit $$licences

sbom: .audit/stamp ## write sbom.cdx.json, and print the licences of all dependencies
	$(VENV)/python -m docs.sbom .audit/bin/cyclonedx-py sbom.cdx.json

clean: ## delete what these targets have made, but not .venv
	rm -rf .docs .audit site sbom.cdx.json docs/assets/mermaid.min.js

.docs/stamp: requirements-docs.txt
	$(PYTHON) -m venv .docs
	.docs/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	touch $@

.audit/stamp: requirements-audit.txt
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	touch $@

# the site must not load the diagrams' code from another host
docs/assets/mermaid.min.js:
	mkdir -p docs/assets
	npm pack --silent --pack-destination docs/assets mermaid@$(MERMAID)
	tar -xOf docs/assets/mermaid-$(MERMAID).tgz package/dist/mermaid.min.js > $@
	rm docs/assets/mermaid-$(MERMAID).tgz
