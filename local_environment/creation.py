"""Creates and repairs the `.venv` of a clone: venv, pip, and the packages of a requirements file.

Uses the standard library only. Output of the programs goes to a log file, progress to stderr.
"""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from local_environment import (
    COMPLETE_MARKER,
    CORE_REQUIREMENTS,
    DASHBOARD_REQUIREMENTS,
    PYTHON_PATH_VARIABLES,
    TEST_REQUIREMENTS,
    BootstrapError,
    is_complete,
    pins,
    python_version,
    sha256,
)

OLDEST, NEWEST = (3, 11), (3, 12)
CREATED_MARKER = "yieldspark-made-this"
"""File of an environment that was created here, so it may be cleared."""
UNFINISHED = "yieldspark-installing"
"""File of an environment in which an installation has started and not ended."""
LOG = "yieldspark-install.log"
CORE_PATH_FILE = "yieldspark-core.pth"
"""File of an environment on top of `.venv` that names the packages of `.venv`."""
PIP_NETWORK_OPTIONS = {
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy"),
    *("cert", "client-cert", "keyring-provider", "timeout", "retries"),
    *("cache-dir", "no-cache-dir", "use-deprecated"),
}
"""Options of a user's pip that configure the network. All others choose packages or folders, which
the requirements file and `.venv` determine.
"""
ADVICE = (
    "If the network blocks downloads, set HTTPS_PROXY for a proxy, PIP_INDEX_URL for a mirror,"
    " PIP_CERT and SSL_CERT_FILE for a private certificate authority (pip's own configuration is"
    " read too). Run again to continue the installation."
)


def create_environment(folder: Path, requirements: Path) -> None:
    """Create or repair the environment; one on top of `.venv` also creates `.venv`.

    Raises:
        BootstrapError: Python is not supported, the venv module is missing, the folder cannot be
            written, or pip fails.
    """
    _check_rights(folder)
    check_python()
    _treat_hang_up_as_interrupt()
    core = folder.with_name(".venv")
    with locked(folder.parent):
        try:
            if folder != core:
                _complete(core, requirements.with_name(CORE_REQUIREMENTS))
            _complete(folder, requirements, core)
        except OSError as error:
            raise BootstrapError(
                f"environment: {error.filename or folder}: {error.strerror or error}. Make it"
                " writable and free 2 GB of disk."
            ) from error


def _complete(folder: Path, requirements: Path, core: Path | None = None) -> None:
    """Create the environment, unless it is complete; on top of `core` if that is another one."""
    if is_complete(folder, requirements):
        return
    _make_venv(folder)
    if core is not None and core != folder:
        # pip finds the packages of `.venv` by this path and installs only the others
        (_packages(folder) / CORE_PATH_FILE).write_text(f"{_packages(core)}\n", encoding="utf-8")
    _install(folder, requirements)
    _write_complete_marker(folder, requirements)


def _packages(folder: Path) -> Path:
    """Return the folder of an environment that has its packages."""
    version = "{}.{}".format(*sys.version_info)
    return folder / "lib" / f"python{version}" / "site-packages"


def check_python() -> None:
    """Check version and modules of this Python.

    Raises:
        BootstrapError: Python is not supported; the message has the command to use instead.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise BootstrapError(
            f"environment: this is Python {python_version()} and Python 3.11 or 3.12 is needed"
            " (Spark 3.5 supports no newer): install one and type `python3.11 run_spark_local.py`."
        )
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise BootstrapError(
            "environment: this Python has no venv module. On Debian and Ubuntu: `apt install"
            " python3-venv`, then run again."
        )


def _treat_hang_up_as_interrupt() -> None:
    """Raise KeyboardInterrupt on SIGHUP, which ends the current program too."""
    # the programs have sessions of their own, so a terminal that closes does not reach them;
    # `nohup` ignores SIGHUP, and that stays
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def _check_rights(folder: Path) -> None:
    """Raise BootstrapError if the clone belongs to another user."""
    target = folder if folder.exists() else folder.parent
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BootstrapError(
            f"environment: you may not write {target}, where packages are installed. Clone the"
            " repository into a folder of your own, or have the owner of this one run `python"
            " run_spark_local.py --help` once: then all accounts that may read .venv can use it."
        )


def _make_venv(folder: Path) -> None:
    """Create `.venv`, unless a complete one or the user's own exists."""
    may_be_cleared = (folder / CREATED_MARKER).exists() or (
        folder.is_dir() and not any(folder.iterdir())
    )
    has_all_packages = (folder / COMPLETE_MARKER).exists() and _runs_this_python(folder)
    # packages are installed into an environment of the user, which is never cleared
    if has_all_packages or (folder.exists() and not may_be_cleared and _runs_this_python(folder)):
        return
    if folder.exists() and not may_be_cleared:
        raise BootstrapError(
            f"environment: {folder} was not created by YieldSpark and its Python is not"
            f" {python_version()}. Move it away, then run again."
        )
    _clear(folder)
    make = [_base_python(), "-m", "venv", "--without-pip", str(folder)]
    _run(f"making {folder.name}", folder, make)
    _run("adding pip", folder, [str(folder / "bin" / "python"), "-m", "ensurepip", "--default-pip"])


def _clear(folder: Path) -> None:
    """Empty the folder, except for CREATED_MARKER."""
    # in this order: whenever it is interrupted, the folder is marked as created here, or empty,
    # and not as complete
    folder.mkdir(exist_ok=True)
    (folder / CREATED_MARKER).touch()
    (folder / COMPLETE_MARKER).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != CREATED_MARKER:
            path.unlink()


def _base_python() -> str:
    """Return the interpreter that environments are made from."""
    # not sys.executable, which may belong to the environment that is cleared
    return str(getattr(sys, "_base_executable", sys.executable))


def _runs_this_python(folder: Path) -> bool:
    code = "import sys, pip; print('{}.{}'.format(*sys.version_info))"
    try:
        process = subprocess.run(
            [str(folder / "bin" / "python"), "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return process.stdout.strip() == python_version()


def _install(folder: Path, requirements: Path) -> None:
    (folder / COMPLETE_MARKER).unlink(missing_ok=True)
    was_interrupted = (folder / UNFINISHED).exists()
    (folder / UNFINISHED).touch()
    is_on_top = (_packages(folder) / CORE_PATH_FILE).exists()
    count = len(_missing_pins(folder, requirements) if is_on_top else pins(requirements))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = ["install", "--require-hashes", "--progress-bar", "off", "-r", str(requirements)]
    if was_interrupted:
        # pip considers a partly unpacked package installed, and cannot remove it
        install.append("--ignore-installed")
    step = f"installing {count} packages into {folder.name}"
    _run(step, folder, [*pip, *install], pip_variables(pip))
    missing = _missing_pins(folder, requirements)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BootstrapError(
            f"environment: {step} failed: pip succeeded, but {', '.join(missing[:3])}{more} is not"
            " installed. `pip config debug` shows the settings of pip; delete .venv, then run"
            " again."
        )


def pip_variables(pip: list[str]) -> dict[str, str]:
    """Return the environment variables for an installation.

    Keeps only PIP_NETWORK_OPTIONS of the user's pip variables and configuration files.

    Args:
        pip: command line of pip.

    Raises:
        BootstrapError: pip cannot read its configuration.
    """
    process = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    if process.returncode != 0:
        reason = " ".join(" ".join(process.stderr.splitlines()[-4:]).split())
        raise BootstrapError(
            f"environment: `pip config list` failed: {reason}. Repair the configuration file."
        )
    options = {}
    # a later section takes precedence, as for pip
    for name in ("global", "install", ":env:"):
        for line in process.stdout.splitlines():
            key, _, value = line.partition("=")
            section, _, option = key.rpartition(".")
            if section == name and option in PIP_NETWORK_OPTIONS and ast.literal_eval(value):
                options["PIP_" + option.upper().replace("-", "_")] = str(ast.literal_eval(value))
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**others, **options, "PIP_CONFIG_FILE": os.devnull}


def _missing_pins(folder: Path, requirements: Path) -> list[str]:
    """Return pins, as name==version, that are not installed in the environment."""
    code = (
        "import importlib.metadata as m, json, sys;"
        # without the standard library: some systems install packages of their own into it
        "paths = [p for p in sys.path if p.endswith('site-packages')];"
        "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions(path=paths)]))"
    )
    process = subprocess.run(
        [str(folder / "bin" / "python"), "-I", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    installed = {(_normalized(name), version) for name, version in json.loads(process.stdout)}
    return [
        f"{name}=={version}"
        for name, version in pins(requirements)
        if (_normalized(name), version) not in installed
    ]


def _normalized(name: str) -> str:
    """Return the canonical name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _write_complete_marker(folder: Path, requirements: Path) -> None:
    """Write one line for each requirements file that the environment fulfils."""
    (folder / UNFINISHED).unlink(missing_ok=True)
    names = {requirements.name, CORE_REQUIREMENTS}
    if requirements.name == TEST_REQUIREMENTS:
        names.add(DASHBOARD_REQUIREMENTS)
    fulfilled = {requirements.with_name(name) for name in names}
    lines = [f"{sha256(path)} {python_version()}\n" for path in sorted(fulfilled) if path.exists()]
    # by a rename: other processes read the file at any time
    temporary = folder / f"{COMPLETE_MARKER}.{os.getpid()}"
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(folder / COMPLETE_MARKER)


def _run(
    step: str, folder: Path, command: list[str], environment: dict[str, str] | None = None
) -> None:
    """Run one step: output goes to the log, name and seconds to stderr."""
    started = time.monotonic()
    line = f"environment: {step} ..."
    print(line, end="", file=sys.stderr, flush=True)
    variables = dict(os.environ if environment is None else environment)
    for name in PYTHON_PATH_VARIABLES:
        variables.pop(name, None)
    variables["PYTHONNOUSERSITE"] = "1"
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=variables,
            start_new_session=True,
        ) as process:
            try:
                while process.poll() is None:
                    time.sleep(0.1)
                    if sys.stderr.isatty():
                        seconds = f"{time.monotonic() - started:.0f} s"
                        print(f"\r{line} {seconds}", end="", file=sys.stderr, flush=True)
            except KeyboardInterrupt:
                # the program has a session of its own, which no signal to us reaches, and ensurepip
                # starts a process of its own: the whole group has to end
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        prefix = f"\r{line}" if sys.stderr.isatty() else ""
        print(f"{prefix} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        output.seek(0)
        text = output.read()
    if folder.is_dir():
        (folder / LOG).write_text(text, encoding="utf-8")
    if process.returncode != 0:
        tail = "\n".join(f"  {line}" for line in text.splitlines()[-12:])
        raise BootstrapError(
            f"environment: {step} failed, {folder / LOG} ends with\n{tail}\n{ADVICE}"
        )


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock the clone's folder while the block runs. The lock ends with the process."""
    # not `common.files.locked`: nothing of the product can be imported before its packages exist
    descriptor = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "environment: waiting for another process that creates it",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
