# make audit: published advisories of what is pinned, and why the ones that remain are accepted

PYTHON ?= .venv/bin/python
PIP_AUDIT := .audit/bin/pip-audit

.PHONY: audit
audit: $(PIP_AUDIT)
	$(PYTHON) -m docs.audit $(PIP_AUDIT)

$(PIP_AUDIT):
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit==2.10.1
