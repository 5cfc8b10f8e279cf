"""Named sets of jars that a Spark session can load.

A set is one entry in JAR_SETS, one configuration of `local_runtime/spark_jars/ivy.xml` under the
same name, and one line in `jars.sha256` for each of its jars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from config_spark import Settings


@dataclass(frozen=True)
class JarSet:
    """Jars that are installed and loaded together.

    Attributes:
        name: configuration in ivy.xml.
        title: subject of messages.
        patterns: glob patterns of the file names.
        fallback: command or setting that works without the set.
        has_native_code: the jars contain libraries that exist for x86_64 only.
    """

    name: str
    title: str
    patterns: tuple[str, ...]
    fallback: str
    has_native_code: bool = False

    def has_file(self, name: str) -> bool:
        """Whether a file of this name belongs to the set."""
        return any(fnmatch(name, pattern) for pattern in self.patterns)


JDBC = JarSet(
    name="jdbc",
    title="PostgreSQL's JDBC driver",
    patterns=("postgresql-*.jar",),
    fallback="reads use READ_TRANSPORT=adbc",
)
SYNAPSEML = JarSet(
    name="synapseml",
    title="SynapseML",
    patterns=("synapseml-*.jar", "lightgbmlib-*.jar", "spray-json_*.jar"),
    fallback="forecasts run with --engine lightgbm",
    has_native_code=True,
)

JAR_SETS = {jar_set.name: jar_set for jar_set in (JDBC, SYNAPSEML)}


def jars_folder(settings: Settings) -> Path:
    """The folder that all sets are installed in."""
    return settings.jars_dir or settings.yieldspark_home / "jars"


def jar_files(settings: Settings, jar_sets: Iterable[JarSet]) -> list[Path]:
    """Return the files of the sets in the jars folder, the newest version of each jar."""
    folder = jars_folder(settings)
    paths: list[Path] = []
    for jar_set in jar_sets:
        for pattern in jar_set.patterns:
            paths += folder.glob(pattern)
    # a later version replaces an earlier one of the same name
    newest = {path.name.rpartition("-")[0]: path for path in sorted(paths, key=_version_of)}
    return sorted(newest.values())


def _version_of(jar: Path) -> list[int]:
    """Return the numbers after the last dash: an earlier release leaves its jars in the folder."""
    return [int(number) for number in re.findall(r"\d+", jar.stem.rpartition("-")[2])]


def has_jdbc_jar(settings: Settings) -> bool:
    """Whether the jars folder has a JDBC driver."""
    return bool(jar_files(settings, [JDBC]))
