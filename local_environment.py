"""Python environment of a clone: creates `.venv` once, repairs it, and runs commands in it.

Input: the arguments of a command and a requirements file with hashes. Uses the standard library
only, because no package is installed yet; stdout stays free for the output of the command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 12)
CREATED_MARKER = "yieldspark-made-this"  # `.venv` was created here, so it may be cleared
COMPLETE_MARKER = "yieldspark-complete"  # lists the requirements files that are installed
UNFINISHED = "yieldspark-installing"
"""In an environment that pip is at work in, or was when it was ended."""
LOG = "yieldspark-install.log"
EXEC_GUARD = "YIELDSPARK_ENTERED_BY_PROCESS"  # id of the process that was replaced
PYTHON_PATH_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH")
"""Variables that change where Python looks for modules."""
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


class BootstrapError(Exception):
    """The environment cannot be created; the message has the next step."""


def open_closed_streams() -> None:
    """Open the standard streams that the caller closed (`>&-`) on the null device.

    Python sets such a stream to None. The next file or connection that is opened would get the
    stream's number, and with it the output of every library and child process.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # the lowest free number, which is this one; the Python of `.venv` inherits it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def ensure_environment(script: Path, arguments: list[str]) -> None:
    """Return if this process has all packages; otherwise create the environment if necessary and
    restart in it.

    Args:
        script: the script to restart.
        arguments: its command-line arguments.

    Raises:
        BootstrapError: the environment cannot be created.
    """
    folder = Path(__file__).resolve().parent / ".venv"
    requirements = requirements_for(folder.parent, arguments)
    if not is_complete(folder, requirements):
        if has_every_pin(requirements):
            return
        create_environment(folder, requirements)
    elif is_inside(folder) and not any(name in os.environ for name in PYTHON_PATH_VARIABLES):
        return
    exec_in_venv(str(folder / "bin" / "python"), [str(script), *arguments])


def exec_in_venv(program: str, arguments: list[str]) -> None:
    """Replace this process by the environment's Python.

    Args:
        program: path of that Python.
        arguments: script and arguments.

    Raises:
        BootstrapError: this process has been replaced before, so it would loop.
    """
    # exec keeps the process id, so a second replacement would loop
    if os.environ.get(EXEC_GUARD) == str(os.getpid()):
        raise BootstrapError(
            f"environment: {program} runs outside its own environment (sys.prefix is {sys.prefix})."
            " Delete .venv, then run again."
        )
    os.environ[EXEC_GUARD] = str(os.getpid())
    for name in PYTHON_PATH_VARIABLES:
        os.environ.pop(name, None)
    os.execv(program, [program, *arguments])


def end_interrupted(sentence: str) -> None:
    """Say it on stderr and end this process with 130, at once: `python -m` ends itself by SIGINT,
    whatever its exit code, after an interrupt inside the `exec` of a dataclass or a named tuple.
    """
    sys.stderr.write(sentence)
    sys.stderr.flush()
    os._exit(130)


def requirements_for(root: Path, arguments: list[str]) -> Path:
    """Return the requirements file that a command needs; only `test` needs the test packages."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    return root / ("requirements-test.txt" if command == "test" else "requirements-spark.txt")


def is_inside(folder: Path) -> bool:
    """Whether this process runs in the environment."""
    return Path(sys.prefix).resolve() == folder.resolve()


def is_complete(folder: Path, requirements: Path) -> bool:
    """Whether every package of this requirements file is installed for the Python that runs."""
    try:
        lines = (folder / COMPLETE_MARKER).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    digest = sha256(requirements)
    if is_inside(folder):
        # an upgrade of the system may have replaced the Python of the environment
        return f"{digest} {python_version()}" in lines
    return any(line.startswith(digest) for line in lines) and os.access(
        folder / "bin" / "python", os.X_OK
    )


def sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_version() -> str:
    """Return the version of this interpreter, such as `3.11.4`."""
    return "{}.{}".format(*sys.version_info)


def has_every_pin(requirements: Path) -> bool:
    """Whether this interpreter already has every package in its pinned version, as in a container
    image.
    """
    import importlib.util

    if importlib.util.find_spec("pyspark") is None:
        return False
    from importlib.metadata import PackageNotFoundError, version

    try:
        return all(version(name) == pinned for name, pinned in pins(requirements))
    except PackageNotFoundError:
        return False


def pins(requirements: Path) -> list[tuple[str, str]]:
    """Return (name, version) of each requirement that holds on all platforms."""
    lines = [line.rstrip(" \\") for line in requirements.read_text(encoding="utf-8").splitlines()]
    pairs = [
        line.split("==")
        for line in lines
        if "==" in line and line[:1].isalnum() and ";" not in line
    ]
    return [(name, version) for name, version in pairs]


def create_environment(folder: Path, requirements: Path) -> None:
    """Create or repair the environment.

    Raises:
        BootstrapError: Python is not supported, the venv module is missing, the folder cannot be
            written, or pip fails.
    """
    _check_rights(folder)
    check_python()
    _take_hang_up_for_interrupt()
    with locked(folder.parent):
        if is_complete(folder, requirements):
            return
        try:
            _make_venv(folder)
            _install(folder, requirements)
            _write_stamp(folder, requirements)
        except OSError as error:
            raise BootstrapError(
                f"environment: {error.filename or folder}: {error.strerror or error}. Make it"
                " writable and free 2 GB of disk."
            ) from error


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
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise BootstrapError(
            "environment: this Python has no venv module. On Debian and Ubuntu: `apt install"
            " python3-venv`, then run again."
        )


def _take_hang_up_for_interrupt() -> None:
    """Until the hand-over: the programs that make the environment have a process group of their
    own, and a terminal that closes does not reach them.
    """
    import signal

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
    is_ours = (folder / CREATED_MARKER).exists() or (folder.is_dir() and not any(folder.iterdir()))
    has_all_packages = (folder / COMPLETE_MARKER).exists() and _runs_this_python(folder)
    # packages are installed into an environment of the user, which is never cleared
    if has_all_packages or (folder.exists() and not is_ours and _runs_this_python(folder)):
        return
    if folder.exists() and not is_ours:
        raise BootstrapError(
            f"environment: {folder} was not created by YieldSpark and its Python is not"
            f" {python_version()}. Move it away, then run again."
        )
    _clear(folder)
    _run("making .venv", folder, [_base_python(), "-m", "venv", "--without-pip", str(folder)])
    _run("adding pip", folder, [str(folder / "bin" / "python"), "-m", "ensurepip", "--default-pip"])


def _clear(folder: Path) -> None:
    """Leave the mark alone in it. Ended at any moment, the folder is still marked as ours, or
    empty, and no stamp says that it is whole.
    """
    import shutil

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
    import subprocess

    code = "import sys, pip; print('{}.{}'.format(*sys.version_info))"
    try:
        done = subprocess.run(
            [str(folder / "bin" / "python"), "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return done.stdout.strip() == python_version()


def _install(folder: Path, requirements: Path) -> None:
    (folder / COMPLETE_MARKER).unlink(missing_ok=True)
    was_ended = (folder / UNFINISHED).exists()
    (folder / UNFINISHED).touch()
    count = len(pins(requirements))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = ["install", "--require-hashes", "--progress-bar", "off", "-r", str(requirements)]
    if was_ended:
        # pip takes a half unpacked package for installed, and can't remove one
        install.append("--ignore-installed")
    step = f"installing {count} packages into .venv"
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
    import ast
    import subprocess

    done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = " ".join(" ".join(done.stderr.splitlines()[-4:]).split())
        raise BootstrapError(
            f"environment: `pip config list` failed: {reason}. Repair the configuration file."
        )
    options = {}
    # a later section takes precedence, as for pip
    for name in ("global", "install", ":env:"):
        for line in done.stdout.splitlines():
            key, _, value = line.partition("=")
            section, _, option = key.rpartition(".")
            if section == name and option in PIP_NETWORK_OPTIONS and ast.literal_eval(value):
                options["PIP_" + option.upper().replace("-", "_")] = str(ast.literal_eval(value))
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**others, **options, "PIP_CONFIG_FILE": os.devnull}


def _missing_pins(folder: Path, requirements: Path) -> list[str]:
    """Return pins, as name==version, that are not installed in the environment."""
    import json
    import subprocess

    code = (
        "import importlib.metadata as m, json, sys;"
        "paths = [p for p in sys.path if p.startswith(sys.prefix)];"
        "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions(path=paths)]))"
    )
    done = subprocess.run(
        [str(folder / "bin" / "python"), "-I", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    installed = {(_normalized(name), version) for name, version in json.loads(done.stdout)}
    return [
        f"{name}=={version}"
        for name, version in pins(requirements)
        if (_normalized(name), version) not in installed
    ]


def _normalized(name: str) -> str:
    """Return the canonical name of a package (PEP 503)."""
    import re

    return re.sub(r"[-_.]+", "-", name).lower()


def _write_stamp(folder: Path, requirements: Path) -> None:
    """Write one line for each requirements file that the environment fulfils, by one rename."""
    (folder / UNFINISHED).unlink(missing_ok=True)
    # the test requirements include all others
    fulfilled = {requirements, requirements.with_name("requirements-spark.txt")}
    lines = [f"{sha256(path)} {python_version()}\n" for path in sorted(fulfilled) if path.exists()]
    temporary = folder / f"{COMPLETE_MARKER}.{os.getpid()}"
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(folder / COMPLETE_MARKER)


def _run(
    step: str, folder: Path, command: list[str], environment: dict[str, str] | None = None
) -> None:
    """Run one step: output goes to the log, name and seconds to stderr."""
    import signal
    import subprocess
    import tempfile
    import time

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
                # SIGTERM comes to this process alone, and ensurepip has a process of its own
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
    """Hold the lock of the clone's folder inside the block; it ends with the process."""
    import fcntl

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
