"""What a Spark session on this machine needs beside Python: Java, the jars, and the variables of
this process.

Goes in: environment variables and a folder for the jars. Comes out: a `JarSet` of files that match
`local_runtime/spark_jars/jars.sha256`. It starts no session. The jars come once, by Spark's own
Ivy, from where Ivy's defaults or the user's ivysettings.xml say; no repository is named here.
"""

from __future__ import annotations

import ctypes
import fcntl
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import EnvironmentNotReady, file_problem
from config_spark import Settings
from local_runtime.java import JAVA_MAJOR, find_java, is_file, network_options

__all__ = [
    "JAVA_MAJOR",
    "JarSet",
    "check_jars",
    "ensure_jars",
    "find_java",
    "libgomp_found",
    "locked",
    "locked_checksums",
    "prepare_process",
    "pyspark_folder",
]

SOURCES = Path(__file__).with_name("spark_jars")
JDBC_PREFIX = "postgresql-"
LOCKED_JARS = 5
CHECKSUM_LINE = re.compile(r"^([0-9a-f]{64}) [ *](\S+\.jar)$", re.MULTILINE)
FETCH_SECONDS = 300
NATIVE_MACHINES = ("x86_64", "AMD64")

OTHER_SPARK = ("SPARK_", "PYSPARK_", "HADOOP_", "YARN_")
"""Prefixes of the variables that configure a user's other Spark or Hadoop, with which this one
would start on other options, other jars or another file system.
"""

FOR_ANY_SPARK = {"SPARK_LOCAL_DIRS", "SPARK_LOCAL_HOSTNAME", "SPARK_LOCAL_IP", "SPARK_SUBMIT_OPTS"}
"""The ones that say something of this machine, or of the JVM, and count here too."""

OPEN_FILES, FEWEST_OPEN_FILES = 4096, 512
"""Java opens each of Spark's 250 jars; a shell of macOS allows 256 files until it is asked."""

Announce = Callable[[str], None]


@dataclass(frozen=True)
class JarSet:
    """Files that match their checksums. An empty `synapseml` or a None `jdbc` has its sentence in
    `missing`: what is not there, why, what to do.
    """

    jdbc: Path | None
    synapseml: tuple[Path, ...]
    missing: tuple[str, ...] = ()


def prepare_process() -> None:
    """Set the variables Spark and LightGBM read from this process, and unset those of another
    Spark; called once, before either is imported.

    Raises: EnvironmentNotReady without a Java 17, where another pyspark would be imported, and
    where a process may open too few files.
    """
    _allow_open_files()
    ours = {name.upper() for name in Settings.model_fields} | FOR_ANY_SPARK
    for name in [name for name in os.environ if name.startswith(OTHER_SPARK) and name not in ours]:
        del os.environ[name]
    os.environ["JAVA_HOME"] = str(find_java())
    os.environ["SPARK_HOME"] = str(pyspark_folder())
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # a JVM of 0.2 s that composes the other one's command line
    os.environ["SPARK_LAUNCHER_OPTS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    # on busy cores LightGBM's threads spin for minutes otherwise
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if "SPARK_LOCAL_HOSTNAME" not in os.environ:
        # Spark asks for the address of this machine's name, which may have none
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if locale.getencoding().lower().replace("-", "") != "utf8":
        # Java reads and writes names of files in the locale's encoding, Python in UTF-8
        os.environ["LC_ALL"] = "C.UTF-8"


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if most < FEWEST_OPEN_FILES:
        raise EnvironmentNotReady(
            f"a process may open {most} files here, and Spark needs {FEWEST_OPEN_FILES}; raise it"
            f" with `ulimit -Hn {OPEN_FILES}` or in /etc/security/limits.conf, then run again"
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def ensure_jars(jars_dir: Path, announce: Announce) -> JarSet:
    """Check the jars in the folder and fetch what is not there.

    A jar that can't be had is no error: it is missing in the result, with its reason, and the
    caller goes on without.
    Raises: EnvironmentNotReady for a file with a wrong checksum (naming file, expected, found, what
    to do), a folder that can't be written, no Java.
    """
    present = check_jars(jars_dir)
    wanted = _wanted_sets(present)
    if not wanted:
        return present
    try:
        jars_dir.mkdir(parents=True, exist_ok=True)
        with locked(jars_dir):
            reasons = _fetch_sets(jars_dir, _wanted_sets(check_jars(jars_dir)), announce)
    except OSError as error:
        place = error.filename2 or error.filename or jars_dir
        raise EnvironmentNotReady(
            f"the jars can't be written to {place}: {file_problem(error)}, or set JARS_DIR"
        ) from error
    return check_jars(jars_dir, reasons)


def check_jars(jars_dir: Path, reasons: Mapping[str, str] | None = None) -> JarSet:
    """What is in the folder, read and compared with the lock every time (10 MB, some 10 ms). It
    downloads nothing.

    Args: reasons says for "jdbc" and "synapseml" why a fetch failed. Raises: EnvironmentNotReady
    for a wrong checksum.
    """
    checksums = locked_checksums()
    there = [jars_dir / name for name in checksums if (jars_dir / name).is_file()]
    for path in there:
        verify(path, checksums[path.name])
    jdbc = next((path for path in there if path.name.startswith(JDBC_PREFIX)), None)
    synapseml = tuple(path for path in there if path != jdbc)
    whole = len(synapseml) == len(checksums) - 1
    missing = []
    if not jdbc:
        missing.append(
            f"PostgreSQL's JDBC driver is not in {jars_dir}{_because(reasons, 'jdbc')}; reads go on"
            " with READ_TRANSPORT=adbc"
        )
    obstacle = native_obstacle()
    if obstacle or not whole:
        because = f": {obstacle}" if obstacle else f" in {jars_dir}{_because(reasons, 'synapseml')}"
        missing.append(
            f"SynapseML's jars can't be used{because}; forecasts go on with --engine lightgbm"
        )
    return JarSet(jdbc, synapseml if whole and not obstacle else (), tuple(missing))


def verify(path: Path, expected: str, advice: str = "delete the file and run again") -> None:
    """Raises: EnvironmentNotReady when the file's sha256 is not the expected one; the message ends
    with the advice.
    """
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise EnvironmentNotReady(
            f"{path} is refused: its sha256 is {found}, and"
            f" local_runtime/spark_jars/jars.sha256 expects {expected}; {advice}"
        )


def locked_checksums() -> dict[str, str]:
    """File name -> sha256, from the lock in the repository (the format of `sha256sum`). Raises:
    EnvironmentNotReady where it is damaged.
    """
    lock = SOURCES / "jars.sha256"
    found = CHECKSUM_LINE.findall(lock.read_text(encoding="utf-8", errors="replace"))
    if len(found) != LOCKED_JARS:
        raise EnvironmentNotReady(
            f"{lock} is damaged: {len(found)} of its {LOCKED_JARS} lines are a checksum and a jar;"
            " restore it with `git restore` or a fresh clone"
        )
    return {name: checksum for checksum, name in found}


def native_obstacle() -> str:
    """Why SynapseML's native library can't run on this machine; empty where it can."""
    if platform.machine() not in NATIVE_MACHINES:
        return (
            f"their native library exists for x86_64 only and this machine is {platform.machine()}"
        )
    if not libgomp_found():
        return "the system's libgomp1 is missing (apt install libgomp1)"
    return ""


def libgomp_found() -> bool:
    """Whether GNU's OpenMP library loads; both LightGBMs need it on Linux, and none of them
    elsewhere.
    """
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return False
    return True


def _wanted_sets(present: JarSet) -> list[str]:
    wanted = [] if present.jdbc else ["jdbc"]
    return wanted if present.synapseml or native_obstacle() else [*wanted, "synapseml"]


def _fetch_sets(jars_dir: Path, wanted: Sequence[str], announce: Announce) -> dict[str, str]:
    """Fetch each set and move it in when its checksums are right; returns the reasons of those that
    could not be had.
    """
    reasons: dict[str, str] = {}
    checksums = locked_checksums()
    for name in wanted:
        announce(f"jars: fetching {name} into {jars_dir}")
        with tempfile.TemporaryDirectory(dir=jars_dir, prefix=".fetch-") as folder:
            complaint = _run_ivy(Path(folder), name)
            if complaint:
                reasons[name] = complaint
                continue
            for path in sorted((Path(folder) / "out").glob("*.jar")):
                verify(
                    path,
                    checksums.get(path.name, "no such file"),
                    "it was not kept; where it comes from (a mirror, a proxy) gives out another"
                    " file",
                )
                path.replace(jars_dir / path.name)
    return reasons


def _run_ivy(folder: Path, configuration: str) -> str:
    """Resolve and retrieve one configuration of ivy.xml; returns Ivy's complaint, empty when it
    worked.
    """
    java = find_java() / "bin" / "java"
    ivy = next((pyspark_folder() / "jars").glob("ivy-*.jar"))
    arguments = folder / "java.arguments"
    write_arguments(arguments, network_options(folder))
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
    return "" if done.returncode == 0 else _ivy_complaint(done.stdout + done.stderr)


def _user_ivy_settings() -> str | None:
    """YIELDSPARK_IVY_SETTINGS, else ~/.ivy2/ivysettings.xml where it exists: a user's mirrors."""
    named = os.environ.get("YIELDSPARK_IVY_SETTINGS")
    if named and not is_file(Path(named)):
        raise EnvironmentNotReady(
            f"YIELDSPARK_IVY_SETTINGS={named} does not exist; set it to an ivysettings.xml, or"
            " unset it"
        )
    try:
        usual = Path.home() / ".ivy2" / "ivysettings.xml"
    except RuntimeError:  # an account without a home folder
        return named
    return named or (str(usual) if usual.is_file() else None)


def _ivy_complaint(output: str) -> str:
    """The exceptions where Ivy names any, else the modules it did not find, else its last words."""
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


def write_arguments(path: Path, options: Sequence[str]) -> None:
    """An argument file (the java command's manual, "java Command-Line Argument Files") of mode 600:
    options may hold a proxy's password.
    """
    path.touch(mode=0o600)
    quoted = (option.replace("\\", "\\\\").replace('"', '\\"') for option in options)
    path.write_text("".join(f'"{option}"\n' for option in quoted), encoding="utf-8")


def pyspark_folder() -> Path:
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One fetch at a time; the lock is on the folder itself and ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
