"""Prepares this process for Spark: environment variables and jars.

Spark's own Ivy downloads missing jars from the repositories of Ivy's defaults or of the user's
ivysettings.xml. All jars are compared with `local_runtime/spark_jars/jars.sha256`. Starts no
session.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import locale
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import EnvironmentNotReady, describe_file_error
from common.files import locked
from config_spark import Settings
from local_runtime.java import JAVA_MAJOR, find_java, is_file, network_options
from spark.jar_sets import JAR_SETS, JDBC, JarSet

__all__ = [
    "JAVA_MAJOR",
    "InstalledJars",
    "check_jars",
    "ensure_jars",
    "find_java",
    "has_libgomp",
    "read_checksums",
    "prepare_process",
    "pyspark_folder",
]

SOURCES = Path(__file__).with_name("spark_jars")
LOCKED_JARS = 5
CHECKSUM_LINE = re.compile(r"^([0-9a-f]{64}) [ *](\S+\.jar)$", re.MULTILINE)
FETCH_SECONDS = 300
NATIVE_MACHINES = ("x86_64", "AMD64")

OTHER_SPARK_PREFIXES = ("SPARK_", "PYSPARK_", "HADOOP_", "YARN_")
"""Prefixes of variables that configure another Spark or Hadoop of the user."""

SHARED_SPARK_VARIABLES = {
    "SPARK_LOCAL_DIRS",
    "SPARK_LOCAL_HOSTNAME",
    "SPARK_LOCAL_IP",
    "SPARK_SUBMIT_OPTS",
}
"""Variables with these prefixes that describe this machine or any JVM; they are kept."""

OPEN_FILES, MIN_OPEN_FILES = 4096, 512
"""Java opens each of Spark's 250 jars; a shell of macOS allows 256 files by default."""

Announce = Callable[[str], None]


@dataclass(frozen=True)
class InstalledJars:
    """Jar sets in the jars folder, by name.

    Attributes:
        files: jars of each complete and usable set; their checksums are right.
        missing: for each other set a message with the reason and the next step.
    """

    files: Mapping[str, tuple[Path, ...]]
    missing: Mapping[str, str]

    @property
    def loadable(self) -> tuple[JarSet, ...]:
        """Sets for a Spark session."""
        # another version of the JDBC driver, if the folder has one, works as well
        return tuple(
            jar_set
            for jar_set in JAR_SETS.values()
            if jar_set.name in self.files or jar_set is JDBC
        )


def prepare_process() -> None:
    """Set the variables that Spark and LightGBM read, and remove those of another Spark.

    Call it once, before either is imported.

    Raises:
        EnvironmentNotReady: there is no Java 17, another pyspark would be imported, or the limit of
            open files is too low.
    """
    _allow_open_files()
    own_names = {name.upper() for name in Settings.model_fields} | SHARED_SPARK_VARIABLES
    for name in list(os.environ):
        if name.startswith(OTHER_SPARK_PREFIXES) and name not in own_names:
            del os.environ[name]
    os.environ["JAVA_HOME"] = str(find_java())
    os.environ["SPARK_HOME"] = str(pyspark_folder())
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # the launcher is a JVM of 0.2 s that only prints the command line of the real one
    os.environ["SPARK_LAUNCHER_OPTS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    # on busy cores LightGBM's OpenMP threads would spin for minutes
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if "SPARK_LOCAL_HOSTNAME" not in os.environ:
        # Spark resolves this machine's name, which may have no address
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if locale.getencoding().lower().replace("-", "") != "utf8":
        # Java encodes file names in the locale's encoding, Python in UTF-8
        os.environ["LC_ALL"] = "C.UTF-8"


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if limit < MIN_OPEN_FILES:
        raise EnvironmentNotReady(
            f"a process may open {limit} files here, and Spark needs {MIN_OPEN_FILES}; raise it"
            f" with `ulimit -Hn {OPEN_FILES}` or in /etc/security/limits.conf, then run again"
        )
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def ensure_jars(jars_dir: Path, announce: Announce) -> InstalledJars:
    """Check the jars in the folder and fetch the missing ones.

    A set that cannot be fetched is no error; the result has the reason.

    Args:
        jars_dir: folder of the jars, created if it is missing.
        announce: called with a line of text before each download.

    Returns:
        The jars that are there now.

    Raises:
        EnvironmentNotReady: a file has a wrong checksum, the folder cannot be written, or there is
            no Java 17.
    """
    jars = check_jars(jars_dir)
    if not _sets_to_fetch(jars):
        return jars
    try:
        jars_dir.mkdir(parents=True, exist_ok=True)
        with locked(jars_dir):
            # another process may have fetched them while this one waited for the lock
            reasons = _fetch_sets(jars_dir, _sets_to_fetch(check_jars(jars_dir)), announce)
    except OSError as error:
        path = error.filename2 or error.filename or jars_dir
        raise EnvironmentNotReady(
            f"the jars can't be written to {path}: {describe_file_error(error)}, or set JARS_DIR"
        ) from error
    return check_jars(jars_dir, reasons)


def check_jars(jars_dir: Path, reasons: Mapping[str, str] | None = None) -> InstalledJars:
    """Compare the jars in the folder with the locked checksums (10 MB, some 10 ms).

    Args:
        jars_dir: folder of the jars.
        reasons: why the fetch of a set failed, by its name.

    Returns:
        The jars that are there. Nothing is downloaded.

    Raises:
        EnvironmentNotReady: a file has a wrong checksum.
    """
    checksums = read_checksums()
    paths = [jars_dir / name for name in checksums if (jars_dir / name).is_file()]
    for path in paths:
        verify(path, checksums[path.name])
    files, missing = {}, {}
    for jar_set in JAR_SETS.values():
        present = tuple(path for path in paths if jar_set.has_file(path.name))
        expected = [name for name in checksums if jar_set.has_file(name)]
        problem = native_library_problem() if jar_set.has_native_code else ""
        if not problem and len(present) < len(expected):
            problem = f"not all of its files are in {jars_dir}{_because(reasons, jar_set.name)}"
        if problem:
            missing[jar_set.name] = f"{jar_set.title} can't be used: {problem}; {jar_set.fallback}"
        else:
            files[jar_set.name] = present
    return InstalledJars(files, missing)


def verify(path: Path, expected: str, advice: str = "delete the file and run again") -> None:
    """Compare a file's SHA-256 with the expected one.

    Args:
        path: the file.
        expected: hexadecimal digest.
        advice: end of the message.

    Raises:
        EnvironmentNotReady: the digest differs.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != expected:
        raise EnvironmentNotReady(
            f"{path} is refused: its sha256 is {digest}, and"
            f" local_runtime/spark_jars/jars.sha256 expects {expected}; {advice}"
        )


def read_checksums() -> dict[str, str]:
    """Return file name -> SHA-256 of every jar, from the lock file in `sha256sum` format.

    Raises:
        EnvironmentNotReady: the lock file is damaged.
    """
    lock = SOURCES / "jars.sha256"
    lines = CHECKSUM_LINE.findall(lock.read_text(encoding="utf-8", errors="replace"))
    if len(lines) != LOCKED_JARS:
        raise EnvironmentNotReady(
            f"{lock} is damaged: {len(lines)} of its {LOCKED_JARS} lines are a checksum and a jar;"
            " restore it with `git restore` or a fresh clone"
        )
    return {name: checksum for checksum, name in lines}


def native_library_problem() -> str:
    """Return why SynapseML's native library cannot run on this machine, or an empty text."""
    if platform.machine() not in NATIVE_MACHINES:
        return (
            f"their native library exists for x86_64 only and this machine is {platform.machine()}"
        )
    if not has_libgomp():
        return "the system's libgomp1 is missing (apt install libgomp1)"
    return ""


def has_libgomp() -> bool:
    """Whether GNU's OpenMP library loads. LightGBM needs it on Linux only."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return False
    return True


def _sets_to_fetch(jars: InstalledJars) -> list[JarSet]:
    has_problem = bool(native_library_problem())
    return [
        JAR_SETS[name]
        for name in jars.missing
        if not (has_problem and JAR_SETS[name].has_native_code)
    ]


def _fetch_sets(jars_dir: Path, jar_sets: Sequence[JarSet], announce: Announce) -> dict[str, str]:
    """Fetch the sets; returns, by name, why a set could not be fetched."""
    reasons: dict[str, str] = {}
    checksums = read_checksums()
    for name in (jar_set.name for jar_set in jar_sets):
        announce(f"jars: fetching {name} into {jars_dir}")
        with tempfile.TemporaryDirectory(dir=jars_dir, prefix=".fetch-") as folder:
            error = _run_ivy(Path(folder), name)
            if error:
                reasons[name] = error
                continue
            for path in sorted((Path(folder) / "out").glob("*.jar")):
                verify(
                    path,
                    checksums.get(path.name, "no such file"),
                    "it was not kept; its source (a mirror, a proxy) serves another file",
                )
                path.replace(jars_dir / path.name)
    return reasons


def _run_ivy(folder: Path, configuration: str) -> str:
    """Download one configuration of ivy.xml; returns Ivy's error, empty on success."""
    java = find_java() / "bin" / "java"
    ivy = next((pyspark_folder() / "jars").glob("ivy-*.jar"))
    arguments = folder / "java.arguments"
    write_argument_file(arguments, network_options(folder))
    command = [
        java,
        f"@{arguments}",
        "-jar",
        ivy,
        "-cache",
        folder / "cache",
        "-ivy",
        SOURCES / "ivy.xml",
        "-confs",
        configuration,
    ]
    settings = _user_ivy_settings()
    if settings:
        command += ["-settings", settings]
    command += ["-retrieve", f"{folder}/out/[artifact]-[revision].[ext]"]
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"Ivy had no answer in {FETCH_SECONDS} s"
    return "" if done.returncode == 0 else _ivy_error(done.stdout + done.stderr)


def _user_ivy_settings() -> str | None:
    """Return the user's ivysettings.xml, which may name mirrors."""
    path = os.environ.get("YIELDSPARK_IVY_SETTINGS")
    if path and not is_file(Path(path)):
        raise EnvironmentNotReady(
            f"YIELDSPARK_IVY_SETTINGS={path} does not exist; set it to an ivysettings.xml, or"
            " unset it"
        )
    if path:
        return path
    try:
        default = Path.home() / ".ivy2" / "ivysettings.xml"
    except RuntimeError:  # an account without a home folder
        return None
    return str(default) if default.is_file() else None


def _ivy_error(output: str) -> str:
    """Return the first exception in Ivy's output, else the first missing module, else its end."""
    for word in ("exception", "not found"):
        lines = dict.fromkeys(line.strip() for line in output.splitlines() if word in line.lower())
        if lines:
            return next(iter(lines))
    return output.strip()[-300:]


def _because(reasons: Mapping[str, str] | None, name: str) -> str:
    if not reasons or name not in reasons:
        return ""
    return (
        f" and could not be fetched ({reasons[name]}): set HTTPS_PROXY for a proxy, SSL_CERT_FILE"
        " for a private certificate authority, YIELDSPARK_IVY_SETTINGS for a mirror, or copy the"
        " files named in jars.sha256 there"
    )


def write_argument_file(path: Path, options: Sequence[str]) -> None:
    """Write options to a Java argument file of mode 600, because they may have
    a proxy's password.
    """
    path.touch(mode=0o600)
    quoted = (option.replace("\\", "\\\\").replace('"', '\\"') for option in options)
    path.write_text("".join(f'"{option}"\n' for option in quoted), encoding="utf-8")


def pyspark_folder() -> Path:
    """Return the folder of the installed pyspark package.

    Raises:
        EnvironmentNotReady: it is not installed, or another one would be imported.
    """
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise EnvironmentNotReady(
            "pyspark is not installed here; start with `python run_spark_local.py`, which"
            " installs it"
        )
    folder = Path(spec.origin).parent
    try:
        installed = importlib.metadata.distribution("pyspark").locate_file("pyspark")
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if installed is None or not folder.samefile(str(installed)):
        raise EnvironmentNotReady(
            f"pyspark would be imported from {folder}, and the pinned one is"
            f" {installed or 'not installed'}; take that folder out of PYTHONPATH, and run again"
        )
    return folder
