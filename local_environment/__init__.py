"""Python environment of a clone: runs commands in `.venv`, and has `creation` create or repair it.
The dashboard runs in `.venv-dashboard`, an environment on top of it.

Input: the arguments of a command and a requirements file with hashes. Uses the standard library
only, because no package is installed yet; stdout stays free for the output of the command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

COMPLETE_MARKER = "yieldspark-complete"
"""File of an environment that lists the requirements files which are installed."""
EXEC_GUARD = "YIELDSPARK_ENTERED_BY_PROCESS"
"""Variable with the id of the process that was replaced."""
PYTHON_PATH_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH")
"""Variables that change where Python looks for modules."""
CORE_REQUIREMENTS = "requirements-spark.txt"
DASHBOARD_REQUIREMENTS = "requirements-dashboard.txt"
TEST_REQUIREMENTS = "requirements-test.txt"
REQUIREMENTS_OF_COMMAND = {"test": TEST_REQUIREMENTS, "dashboard": DASHBOARD_REQUIREMENTS}
"""All other commands need CORE_REQUIREMENTS only."""


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
        script: Script to restart.
        arguments: Its command-line arguments.

    Raises:
        BootstrapError: The environment cannot be created.
    """
    core = Path(__file__).resolve().parents[1] / ".venv"
    requirements = requirements_for(core.parent, arguments)
    folder = environment_for(core, requirements)
    # an environment on top of `.venv` lacks the packages of a `.venv` that is gone
    is_usable = folder == core or is_complete(core, core.with_name(CORE_REQUIREMENTS))
    if not (is_usable and is_complete(folder, requirements)):
        if has_every_pin(requirements):
            return
        # only now: the start of every other command need not load it
        from local_environment.creation import create_environment

        create_environment(folder, requirements)
    elif is_inside(folder) and not any(name in os.environ for name in PYTHON_PATH_VARIABLES):
        return
    exec_in_venv(str(folder / "bin" / "python"), [str(script), *arguments])


def exec_in_venv(program: str, arguments: list[str]) -> None:
    """Replace this process by the environment's Python.

    Args:
        program: Path of that Python.
        arguments: Script and arguments.

    Raises:
        BootstrapError: This process has been replaced before, so it would loop.
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


def end_interrupted(message: str) -> None:
    """Write a message to stderr and end this process with 130, at once."""
    sys.stderr.write(message)
    sys.stderr.flush()
    # not sys.exit: after an interrupt inside the `exec` of a dataclass or a named tuple, `python
    # -m` ends itself by SIGINT, whatever its exit code
    os._exit(130)


def requirements_for(root: Path, arguments: list[str]) -> Path:
    """Return the requirements file that a command needs: `test` and `dashboard` have their own."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    return root / REQUIREMENTS_OF_COMMAND.get(command, CORE_REQUIREMENTS)


def environment_for(core: Path, requirements: Path) -> Path:
    """Return the folder of the environment that has the packages of a requirements file.

    The dashboard has a small environment of its own, which uses the packages of `.venv`: Streamlit
    must not come into the core install, and a second copy of the core would take 1.6 GB.

    Args:
        core: The folder `.venv`.
        requirements: Requirements file of the command.
    """
    # the packages of the tests include the dashboard's
    if requirements.name != DASHBOARD_REQUIREMENTS or is_complete(core, requirements):
        return core
    return core.with_name(".venv-dashboard")


def is_inside(folder: Path) -> bool:
    """Return whether this process runs in the environment."""
    # sys.prefix, not sys.executable: the environment's Python is a link to the system's
    return Path(sys.prefix).resolve() == folder.resolve()


def is_complete(folder: Path, requirements: Path) -> bool:
    """Return whether every package of this requirements file is installed for this Python."""
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
    """Return whether this interpreter has every package in its pinned version, as in a container
    image.
    """
    # the cheap test first: a plain Python has no pyspark
    import importlib.util

    if importlib.util.find_spec("pyspark") is None:
        return False
    from importlib.metadata import PackageNotFoundError, version

    try:
        return all(version(name) == pinned for name, pinned in pins(requirements))
    except PackageNotFoundError:
        return False


def pins(requirements: Path) -> list[tuple[str, str]]:
    """Return (name, version) of each requirement that applies to all platforms."""
    # a line with `;` has a marker; continuation lines, with hashes, are indented
    lines = [line.rstrip(" \\") for line in requirements.read_text(encoding="utf-8").splitlines()]
    pairs = [
        line.split("==")
        for line in lines
        if "==" in line and line[:1].isalnum() and ";" not in line
    ]
    return [(name, version) for name, version in pairs]
