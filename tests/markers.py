"""pytest plugin: what a test needs, as markers that follow from its fixtures.

`spark` needs a JVM, `postgres` a database server, `process` starts the product as a process of its
own; `unit` is what needs none of them. `python run_spark_local.py test --fast` runs what needs
neither JVM nor server.
"""

from __future__ import annotations

import pytest

FIXTURES = {
    "spark": {"spark", "jvm"},
    "postgres": {"server", "embedded_server"},
    "process": {"run", "process"},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        markers = [marker for marker, names in FIXTURES.items() if names & fixtures]
        for marker in markers or ["unit"]:
            item.add_marker(marker)
