"""Tests the bootstrap offline: a small clone with a package of the test, and environments that venv
and pip create in subprocesses.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import local_environment
from local_environment import creation
from tests.support.fault_runs import TOKEN, processes_with, until

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(getattr(sys, "_base_executable", sys.executable))
MAIN = (
    "import sys\n\n\ndef main():\n    import probe\n    print(probe.VALUE, sys.prefix,"
    " *sys.argv[1:])\n"
)


class Clone:
    """A folder like a fresh clone.

    `pin` makes the wheels that it requires; pip sees these wheels and no index.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "clone"
        self.wheels = root / "wheels"
        self.root.mkdir()
        self.wheels.mkdir()
        shutil.copy(ROOT / "run_spark_local.py", self.root)
        shutil.copytree(ROOT / "local_environment", self.root / "local_environment")
        (self.root / "cli").mkdir()
        (self.root / "cli" / "__init__.py").touch()
        (self.root / "cli" / "main.py").write_text(MAIN)
        self.pin("requirements-spark.txt", probe="1.0")
        self.pin("requirements-dashboard.txt", probe="1.0", pages="1.0")
        self.pin("requirements-test.txt", probe="1.0", extra="1.0", pages="1.0")

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def pin(self, requirements: str, **versions: str) -> None:
        lines = [
            f"{name}=={version} \\\n    --hash=sha256:{self.wheel(name, version)}\n"
            for name, version in versions.items()
        ]
        (self.root / requirements).write_text("# made by the test\n" + "".join(lines))

    def wheel(self, name: str, version: str) -> str:
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(f"{name}.py"), f"VALUE = '{name} {version}'\n")
            info = f"{name}-{version}.dist-info"
            archive.writestr(
                zipfile.ZipInfo(f"{info}/METADATA"),
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            )
            archive.writestr(
                zipfile.ZipInfo(f"{info}/WHEEL"),
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            archive.writestr(
                zipfile.ZipInfo(f"{info}/RECORD"),
                f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
            )
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def start(
        self,
        *arguments: str,
        python: str = PYTHON,
        **variables: str,
    ) -> subprocess.Popen[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PIP_")
        }
        environment |= {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
        } | variables
        command = [python, str(self.root / "run_spark_local.py"), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.wheels,
            env=environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, python: str = PYTHON, **variables: str) -> tuple[int, str, str]:
        process = self.start(*arguments, python=python, **variables)
        output, errors = process.communicate(timeout=180)
        return process.returncode, output, errors


@pytest.fixture
def clone(processes: None, tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture(scope="module")
def first_run(
    processes: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Clone, tuple[int, str, str]]:
    """A clone, and the result of its first run."""
    new_clone = Clone(tmp_path_factory.mktemp("first_run"))
    return new_clone, new_clone.run()


@pytest.fixture
def ready(clone: Clone, first_run: tuple[Clone, tuple[int, str, str]]) -> Clone:
    """A clone after its first run.

    An environment also works as a copy, which takes a tenth of the time.
    """
    shutil.copytree(first_run[0].venv, clone.venv, symlinks=True)
    return clone


@pytest.fixture
def outdated(ready: Clone) -> Clone:
    """A clone whose requirements differ from those of its environment."""
    ready.pin("requirements-spark.txt", probe="2.0")
    return ready


def test_the_first_run_makes_the_environment_and_the_second_enters_it(
    first_run: tuple[Clone, tuple[int, str, str]],
) -> None:
    clone, (code, output, errors) = first_run
    assert (code, output) == (0, f"probe 1.0 {clone.venv} demo\n"), errors
    steps = errors.splitlines()
    assert [step.rpartition(" ... ")[0] for step in steps] == [
        "environment: making .venv",
        "environment: adding pip",
        "environment: installing 1 packages into .venv",
    ]
    assert all(step.endswith(" s") for step in steps)
    assert clone.run("status", "--json") == (0, f"probe 1.0 {clone.venv} status --json\n", "")
    inside = str(clone.venv / "bin" / "python")
    assert clone.run("--help", python=inside) == (0, f"probe 1.0 {clone.venv} --help\n", "")


def test_the_command_test_adds_its_packages_once(ready: Clone) -> None:
    code, output, errors = ready.run("test", "-k", "name")
    assert (code, output) == (0, f"probe 1.0 {ready.venv} test -k name\n")
    assert errors.startswith("environment: installing 3 packages into .venv ...")
    assert ready.run("test")[2] == ""
    assert ready.run("demo")[2] == "", "the test requirements hold all of the others"


def test_the_dashboard_has_a_small_environment_on_top(ready: Clone) -> None:
    before = sorted(path.name for path in ready.venv.rglob("*.dist-info"))
    folder = ready.root / ".venv-dashboard"
    code, output, errors = ready.run("dashboard", "--port", "9")
    assert (code, output) == (0, f"probe 1.0 {folder} dashboard --port 9\n"), errors
    steps = [step.rpartition(" ... ")[0] for step in errors.splitlines()]
    assert steps[-1] == "environment: installing 1 packages into .venv-dashboard"
    assert not list(folder.rglob("probe.py")), "the packages of .venv are not installed again"
    assert sorted(path.name for path in ready.venv.rglob("*.dist-info")) == before
    assert ready.run("dashboard")[2] == ""
    # other commands do not enter it
    assert ready.run("status") == (0, f"probe 1.0 {ready.venv} status\n", "")
    shutil.rmtree(ready.venv)
    code, output, errors = ready.run("dashboard")
    assert (code, output) == (0, f"probe 1.0 {folder} dashboard\n"), errors
    assert "installing 1 packages into .venv ..." in errors


def test_the_dashboard_runs_in_the_environment_of_the_tests(ready: Clone) -> None:
    ready.run("test")
    assert ready.run("dashboard") == (0, f"probe 1.0 {ready.venv} dashboard\n", "")


def test_changed_requirements_are_installed(outdated: Clone) -> None:
    code, output, errors = outdated.run()
    assert (code, output) == (0, f"probe 2.0 {outdated.venv} demo\n")
    assert "making .venv" not in errors


def test_an_interrupted_bootstrap_goes_on(clone: Clone) -> None:
    """Killed, then interrupted, each time after the folder is created and before pip is in it."""
    mark, before = clone.venv / creation.CREATED_MARKER, None
    for signal_number, expected in (signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130):
        process = clone.start()
        deadline = time.monotonic() + 60
        while _modified(mark) in (None, before) and time.monotonic() < deadline:
            time.sleep(0.01)
        before = _modified(mark)
        os.killpg(process.pid, signal_number)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (expected, ""), errors
        assert not (clone.venv / local_environment.COMPLETE_MARKER).exists()
    assert clone.run()[:2] == (0, f"probe 1.0 {clone.venv} demo\n")


STEPS: dict[str, Callable[[Path], bool]] = {
    "the folder is there": lambda venv: venv.exists(),
    "pip is unpacked": lambda venv: any(venv.glob("lib/python*/site-packages/pip")),
}
"""Moments of the bootstrap, by what is in `.venv` then."""


@pytest.mark.parametrize(
    ("step", "name_of_signal"),
    [
        ("the folder is there", "SIGTERM"),
        pytest.param("pip is unpacked", "SIGINT", marks=pytest.mark.long),
        ("pip is unpacked", "SIGHUP"),
    ],
)
def test_a_signal_leaves_no_process_and_no_environment_that_stops_the_next_run(
    clone: Clone, step: str, name_of_signal: str
) -> None:
    """The command alone gets the signal. pip, which ensurepip starts, is a process of a process."""
    token = secrets.token_hex(8)
    # nohup or a background job of a shell may ignore the signal, which processes inherit
    before = signal.signal(signal.Signals[name_of_signal], signal.SIG_DFL)
    try:
        process = clone.start(**{TOKEN: token})
    finally:
        signal.signal(signal.Signals[name_of_signal], before)
    until(lambda: STEPS[step](clone.venv), step)
    process.send_signal(signal.Signals[name_of_signal])
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, ""), errors
    assert (
        errors.splitlines()[-1]
        == "environment: interrupted; the next run continues the installation"
    )
    assert "Traceback" not in errors
    until(lambda: not processes_with(token), "every process has ended", 10)
    assert clone.run()[:2] == (0, f"probe 1.0 {clone.venv} demo\n")


def test_a_signal_inside_generated_code_ends_with_130_too(ready: Clone) -> None:
    """The signal comes while `python -m` loads the commands, which includes the `exec` of
    dataclasses.
    """
    inside = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nfor _ in range(1000): pass\n"
    (ready.root / "cli" / "main.py").write_text(f"exec({inside!r})\n")
    finished = subprocess.run(
        [ready.venv / "bin" / "python", "-m", "run_spark_local"],
        cwd=ready.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (
        130,
        "interrupted before the command started\n",
    )


def test_a_hang_up_that_a_shell_ignores_stays_ignored(outdated: Clone) -> None:
    """As with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = outdated.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    until((outdated.venv / creation.UNFINISHED).exists, "pip is at work")
    process.send_signal(signal.SIGHUP)
    output, errors = process.communicate(timeout=180)
    assert (process.returncode, output) == (0, f"probe 2.0 {outdated.venv} demo\n"), errors


def test_a_package_that_pip_left_half_unpacked_in_a_venv_of_the_users_is_unpacked_again(
    ready: Clone,
) -> None:
    """As a kill during the installation leaves it: some of the modules and metadata, no list of
    files.
    """
    for name in (
        creation.CREATED_MARKER,
        local_environment.COMPLETE_MARKER,
        creation.LOG,
    ):
        (ready.venv / name).unlink()
    (ready.venv / creation.UNFINISHED).touch()
    (packages,) = ready.venv.glob("lib/python*/site-packages")
    (packages / "probe.py").write_text("")
    (packages / "probe-1.0.dist-info" / "RECORD").unlink()
    assert ready.run()[:2] == (0, f"probe 1.0 {ready.venv} demo\n")
    assert not (ready.venv / creation.UNFINISHED).exists()


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_two_first_runs_at_once_make_one_environment(outdated: Clone) -> None:
    both = [outdated.start("one"), outdated.start("two")]
    answers = [process.communicate(timeout=180) for process in both]
    assert [output for output, _ in answers] == [
        f"probe 2.0 {outdated.venv} {name}\n" for name in ("one", "two")
    ], answers
    assert sum(errors.count("installing") for _, errors in answers) == 1


def test_a_blocked_download_names_the_settings_and_a_partial_environment_is_not_used(
    outdated: Clone,
) -> None:
    blocked = {
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }
    code, output, errors = outdated.run(**blocked)
    assert (code, output) == (2, "")
    for fragment in (
        "installing 1 packages into .venv failed",
        "Connection refused",
        "HTTPS_PROXY",
        "PIP_INDEX_URL",
        "PIP_CERT",
        "SSL_CERT_FILE",
    ):
        assert fragment in errors
    assert "Connection refused" in (outdated.venv / creation.LOG).read_text()
    outdated.pin("requirements-spark.txt", probe="1.0")
    (unpacked,) = outdated.venv.glob("lib/python*/site-packages/probe.py")
    unpacked.write_text("")  # half unpacked: pip regards it as installed
    code, output, errors = outdated.run()
    assert (code, output) == (0, f"probe 1.0 {outdated.venv} demo\n")
    assert "making .venv" in errors


def test_a_package_with_another_hash_is_refused(outdated: Clone) -> None:
    path = outdated.root / "requirements-spark.txt"
    path.write_text(path.read_text().replace("sha256:", "sha256:" + "0" * 64 + "\n#"))
    code, output, errors = outdated.run()
    assert (code, output) == (2, "")
    assert "DO NOT MATCH THE HASHES" in errors


def test_a_python_without_venv_names_the_package(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['ensurepip'] = None\n"
    )  # as in Debian
    code, output, errors = clone.run(PYTHONPATH=str(tmp_path))
    assert (code, output) == (2, "")
    assert "apt install python3-venv" in errors
    assert not clone.venv.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("has_venv", [False, True])
def test_a_clone_of_another_user_names_the_next_step(has_venv: bool, tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    if has_venv:
        folder.mkdir()
    # pytest's folders are closed to other users
    for place in (tmp_path, *tmp_path.parents[:3]):
        place.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(
            local_environment.BootstrapError, match=r"you may not write .*a folder of"
        ):
            creation.create_environment(folder, tmp_path / "requirements-spark.txt")
    finally:
        os.seteuid(0)
    assert folder.exists() is has_venv


def test_a_python_outside_the_range_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "OLDEST", (3, 98))
    monkeypatch.setattr(creation, "NEWEST", (3, 99))
    with pytest.raises(
        local_environment.BootstrapError,
        match=r"Python 3\.11 or 3\.12 is needed.*`python3\.11 run_spark_local\.py`",
    ):
        creation.check_python()


def test_an_environment_of_the_users_that_has_everything_is_used_as_it_is(clone: Clone) -> None:
    from importlib.metadata import version

    pinned = f"pyspark=={version('pyspark')} \\\n    --hash=sha256:{'0' * 64}\n"
    (clone.root / "requirements-spark.txt").write_text(pinned)
    (clone.root / "probe.py").write_text("VALUE = 'no package'\n")
    assert clone.run(python=sys.executable) == (0, f"no package {sys.prefix} demo\n", "")
    assert not clone.venv.exists()


def test_a_venv_of_the_users_is_installed_into_and_never_cleared(outdated: Clone) -> None:
    for name in (
        creation.CREATED_MARKER,
        local_environment.COMPLETE_MARKER,
        creation.LOG,
    ):
        (outdated.venv / name).unlink()
    (outdated.venv / "notes.txt").write_text("mine")
    assert outdated.run()[:2] == (0, f"probe 2.0 {outdated.venv} demo\n")
    assert (outdated.venv / "notes.txt").read_text() == "mine"


def test_a_venv_of_the_users_with_another_python_is_left_alone(clone: Clone) -> None:
    venv.EnvBuilder(with_pip=False).create(clone.venv)
    code, output, errors = clone.run()
    assert (code, output) == (2, "")
    assert "was not created by YieldSpark" in errors
    assert "Move it away" in errors


def test_an_active_conda_environment_does_not_replace_the_running_python(
    clone: Clone, tmp_path: Path
) -> None:
    """The variables of `conda activate`, whose environment puts another `python` first on PATH."""
    conda = tmp_path / "conda"
    (conda / "bin").mkdir(parents=True)
    for name in ("python", "python3", "pip"):
        (conda / "bin" / name).write_text("#!/bin/sh\nexit 3\n")
        (conda / "bin" / name).chmod(0o755)
    active = {
        "CONDA_PREFIX": str(conda),
        "CONDA_DEFAULT_ENV": "base",
        "CONDA_SHLVL": "1",
        "CONDA_PYTHON_EXE": str(conda / "bin" / "python"),
        "CONDA_EXE": str(conda / "bin" / "conda"),
        "PATH": f"{conda / 'bin'}:{os.environ['PATH']}",
    }
    code, output, errors = clone.run(**active)
    assert (code, output) == (0, f"probe 1.0 {clone.venv} demo\n"), errors
    assert clone.run("status", **active) == (0, f"probe 1.0 {clone.venv} status\n", "")
    configuration = (clone.venv / "pyvenv.cfg").read_text()
    assert str(Path(PYTHON).parent) in configuration
    assert str(conda) not in configuration


def test_python_variables_of_the_users_do_not_lead_out_of_the_environment(
    outdated: Clone, tmp_path: Path
) -> None:
    expected = f"probe 2.0 {outdated.venv} demo\n"
    other = tmp_path / "other"
    other.mkdir()
    (other / "probe.py").write_text("VALUE = 'another probe'\n")
    leading = {
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": str(other),
        "PYTHONSAFEPATH": "1",
    }
    assert outdated.run(**leading)[:2] == (0, expected)
    assert outdated.run(**leading) == (0, expected, "")
    inside = str(outdated.venv / "bin" / "python")
    assert outdated.run(python=inside, PYTHONPATH=str(other)) == (0, expected, "")


def test_settings_of_pip_apply_to_downloads_and_not_to_the_target(
    outdated: Clone, tmp_path: Path
) -> None:
    """The index and the links come from this file, as with a company's mirror."""
    elsewhere, configuration = tmp_path / "elsewhere", tmp_path / "pip.conf"
    configuration.write_text(
        f"[global]\nno-index = true\nfind-links = {outdated.wheels}\ndry-run = true\n"
        f"[install]\ntarget = {elsewhere}\nno-binary = :all:\n"
    )
    code, output, errors = outdated.run(
        PIP_CONFIG_FILE=str(configuration),
        PIP_NO_INDEX="",
        PIP_FIND_LINKS="",
        PIP_PREFIX=str(elsewhere),
        PIP_ROOT=str(elsewhere),
        PIP_REQUIRE_VIRTUALENV="1",
    )
    assert (code, output) == (0, f"probe 2.0 {outdated.venv} demo\n"), errors
    assert not elsewhere.exists()


def test_a_pip_that_installs_nothing_leaves_no_stamp(clone: Clone) -> None:
    venv.EnvBuilder(with_pip=False).create(clone.venv)
    (packages,) = clone.venv.glob("lib/*/site-packages")
    (packages / "pip").mkdir()
    (packages / "pip" / "__init__.py").touch()
    (packages / "pip" / "__main__.py").touch()
    code, output, errors = clone.run()
    assert (code, output) == (2, "")
    assert "pip succeeded, but probe==1.0 is not installed" in errors
    assert not (clone.venv / local_environment.COMPLETE_MARKER).exists()


def test_a_configuration_that_pip_cannot_read_is_named(outdated: Clone, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("no section\n")
    code, output, errors = outdated.run(PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert (code, output) == (2, "")
    assert "`pip config list` failed" in errors
    assert str(tmp_path / "pip.conf") in errors


def test_an_environment_that_cannot_be_entered_ends_with_a_sentence(ready: Clone) -> None:
    python = ready.venv / "bin" / "python"
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec "{PYTHON}" "$@"\n')
    python.chmod(0o755)
    code, output, errors = ready.run()
    assert (code, output) == (2, "")
    assert "Delete .venv, then run again" in errors
