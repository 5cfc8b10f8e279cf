"""The Python environment of a clone: `.venv` beside this file, made once, repaired where it is not
whole, entered at once where it is.

Goes in: a command's arguments and a requirements file with hashes. Comes out: this process, running
where every pinned package is. Standard library only, and the hand-over imports next to nothing of
it. It knows no Java, no jars and no database; stdout stays free for the command's own document.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 12)
MARK = "yieldspark-made-this"
STAMP = "yieldspark-complete"
UNFINISHED = "yieldspark-installing"
"""In an environment that pip is at work in, or was when it was ended."""
LOG = "yieldspark-install.log"
ENTERED = "YIELDSPARK_ENTERED_BY_PROCESS"
MISLEADING = ("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH")
"""Variables that put other modules before those of the environment, or hide those of the clone."""
PIP_NETWORK = {
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "proxy",
} | {
    "cert",
    "client-cert",
    "keyring-provider",
    "timeout",
    "retries",
    "cache-dir",
    "no-cache-dir",
    "use-deprecated",
}
"""Options of a user's pip that say how packages are reached. Every other one says which are taken
or where they go, which the requirements file and `.venv` decide.
"""
ADVICE = (
    "Blocked by the network? Set HTTPS_PROXY for a proxy, PIP_INDEX_URL for a mirror, PIP_CERT and"
    " SSL_CERT_FILE for a private certificate authority (pip's own configuration counts too). Run"
    " again: it goes on where it stopped."
)


class NotReady(Exception):
    """The environment can't be made; the message says what to do."""


def enter(script: Path, arguments: list[str]) -> None:
    """Return when this process already runs where everything is; else make that if need be, and
    replace this process by one that runs there.

    Raises: NotReady.
    """
    folder = Path(__file__).resolve().parent / ".venv"
    requirements = requirements_for(folder.parent, arguments)
    if not is_complete(folder, requirements):
        if has_every_pin(requirements):
            return
        make(folder, requirements)
    elif is_inside(folder) and not any(name in os.environ for name in MISLEADING):
        return
    hand_over(str(folder / "bin" / "python"), [str(script), *arguments])


def hand_over(program: str, arguments: list[str]) -> None:
    """Become the environment's Python. The process id stays the same, so a second hand-over would
    be one without end.

    Raises: NotReady.
    """
    if os.environ.get(ENTERED) == str(os.getpid()):
        raise NotReady(
            f"environment: {program} runs outside its own environment (sys.prefix is {sys.prefix})."
            " Delete .venv, then run again."
        )
    os.environ[ENTERED] = str(os.getpid())
    for name in MISLEADING:
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
    """The test requirements hold all of the others and more; only the command `test` needs them."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    return root / ("requirements-test.txt" if command == "test" else "requirements-spark.txt")


def is_inside(folder: Path) -> bool:
    return Path(sys.prefix).resolve() == folder.resolve()


def is_complete(folder: Path, requirements: Path) -> bool:
    """Whether the stamp names this very requirements file, and (asked from inside) the Python that
    runs: an upgrade of the system may exchange it.
    """
    try:
        stamps = (folder / STAMP).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    digest = sha256(requirements)
    if is_inside(folder):
        return f"{digest} {python_version()}" in stamps
    return any(line.startswith(digest) for line in stamps) and os.access(
        folder / "bin" / "python", os.X_OK
    )


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_version() -> str:
    return "{}.{}".format(*sys.version_info)


def has_every_pin(requirements: Path) -> bool:
    """Whether this interpreter has every package in its pinned version already: a user's own
    environment, or a container image.
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
    """(name, version) of every line that holds on all platforms."""
    lines = [line.rstrip(" \\") for line in requirements.read_text(encoding="utf-8").splitlines()]
    pairs = [
        line.split("==")
        for line in lines
        if "==" in line and line[:1].isalnum() and ";" not in line
    ]
    return [(name, version) for name, version in pairs]


def make(folder: Path, requirements: Path) -> None:
    """Make the environment, or repair it, while no other process does.

    Raises: NotReady for a Python outside the range, no venv module, a folder that can't be written,
    and what pip refuses.
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
            raise NotReady(
                f"environment: {error.filename or folder}: {error.strerror or error}. Make it"
                " writable and free 2 GB of disk."
            ) from error


def check_python() -> None:
    """Raises: NotReady with the command to type instead."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise NotReady(
            f"environment: this is Python {python_version()} and Python 3.11 or 3.12 is needed"
            " (Spark 3.5 knows no newer): install one and type `python3.11 run_spark_local.py`."
        )
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise NotReady(
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
    """Raises: NotReady for a clone of another user, with the ways to use it."""
    place = folder if folder.exists() else folder.parent
    if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise NotReady(
            f"environment: you may not write {place}, where the packages go. Clone the repository"
            " into a folder of your own, or have the owner of this one run `python"
            " run_spark_local.py --help` once: everybody who may read .venv can use it then."
        )


def _make_venv(folder: Path) -> None:
    """A whole environment is kept and brought up to date. A half made one of ours is made anew, for
    pip takes a half unpacked package as installed.

    A `.venv` that the user made is installed into and never cleared.
    """
    ours = (folder / MARK).exists() or (folder.is_dir() and not any(folder.iterdir()))
    whole = (folder / STAMP).exists() and _runs_this_python(folder)
    if whole or (folder.exists() and not ours and _runs_this_python(folder)):
        return
    if folder.exists() and not ours:
        raise NotReady(
            f"environment: {folder} was made by something else and its Python is not"
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
    (folder / MARK).touch()
    (folder / STAMP).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()


def _base_python() -> str:
    """Not the environment's own: it may be the one that is cleared."""
    return str(getattr(sys, "_base_executable", sys.executable))


def _runs_this_python(folder: Path) -> bool:
    import subprocess

    question = "import sys, pip; print('{}.{}'.format(*sys.version_info))"
    try:
        answer = subprocess.run(
            [str(folder / "bin" / "python"), "-c", question],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return answer.stdout.strip() == python_version()


def _install(folder: Path, requirements: Path) -> None:
    (folder / STAMP).unlink(missing_ok=True)
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
    absent = _absent_pins(folder, requirements)
    if absent:
        raise NotReady(
            f"environment: {step} failed: pip ended well, and {', '.join(absent[:3])}"
            f"{f' and {len(absent) - 3} more' if len(absent) > 3 else ''} is not there. `pip config"
            " debug` shows the settings of pip; delete .venv, then run again."
        )


def pip_variables(pip: list[str]) -> dict[str, str]:
    """The environment for an installation: of the user's variables and configuration files of pip
    only what PIP_NETWORK names.

    Args: pip is its command line. Raises: NotReady where pip can't read its configuration.
    """
    import ast
    import subprocess

    done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join(" ".join(done.stderr.splitlines()[-4:]).split())
        raise NotReady(f"environment: `pip config list` failed: {said}. Repair that file of pip.")
    options = {}
    for place in ("global", "install", ":env:"):
        for line in done.stdout.splitlines():
            key, _, value = line.partition("=")
            section, _, option = key.rpartition(".")
            if section == place and option in PIP_NETWORK and ast.literal_eval(value):
                options["PIP_" + option.upper().replace("-", "_")] = str(ast.literal_eval(value))
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**others, **options, "PIP_CONFIG_FILE": os.devnull}


def _absent_pins(folder: Path, requirements: Path) -> list[str]:
    """The pins, as name==version, that the environment does not have inside."""
    import json
    import subprocess

    question = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps([[d.metadata['Name'], d.version]"
        " for d in m.distributions(path=[p for p in sys.path if p.startswith(sys.prefix)])]))"
    )
    answer = subprocess.run(
        [str(folder / "bin" / "python"), "-I", "-c", question],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    inside = {(_normalized(name), version) for name, version in json.loads(answer.stdout)}
    return [
        f"{name}=={version}"
        for name, version in pins(requirements)
        if (_normalized(name), version) not in inside
    ]


def _normalized(name: str) -> str:
    """PyPA's rule for names that are the same package (PEP 503)."""
    import re

    return re.sub(r"[-_.]+", "-", name).lower()


def _write_stamp(folder: Path, requirements: Path) -> None:
    """One line for each requirements file the environment fulfils, moved into place whole."""
    (folder / UNFINISHED).unlink(missing_ok=True)
    fulfilled = {requirements, requirements.with_name("requirements-spark.txt")}
    partial = folder / f"{STAMP}.{os.getpid()}"
    partial.write_text(
        "".join(
            f"{sha256(path)} {python_version()}\n" for path in sorted(fulfilled) if path.exists()
        ),
        encoding="utf-8",
    )
    partial.replace(folder / STAMP)


def _run(
    step: str, folder: Path, command: list[str], environment: dict[str, str] | None = None
) -> None:
    """Run one step with its output in the log, and its name and seconds on stderr.

    Args: environment takes the place of this process's. Raises: NotReady with the end of the log.
    """
    import signal
    import subprocess
    import tempfile
    import time

    started = time.monotonic()
    line = f"environment: {step} ..."
    print(line, end="", file=sys.stderr, flush=True)
    given = os.environ if environment is None else environment
    variables = {name: value for name, value in given.items() if name not in MISLEADING}
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
                        print(
                            f"\r{line} {time.monotonic() - started:.0f} s",
                            end="",
                            file=sys.stderr,
                            flush=True,
                        )
            except KeyboardInterrupt:
                # SIGTERM comes to this process alone, and ensurepip has a process of its own
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        print(
            f"{chr(13) + line if sys.stderr.isatty() else ''} {time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        output.seek(0)
        said = output.read()
    if folder.is_dir():
        (folder / LOG).write_text(said, encoding="utf-8")
    if process.returncode != 0:
        tail = "\n".join(f"  {line}" for line in said.splitlines()[-12:])
        raise NotReady(f"environment: {step} failed, {folder / LOG} ends with\n{tail}\n{ADVICE}")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One process at a time makes the environment of a clone; the lock is on the clone's folder
    itself and ends with the process.
    """
    import fcntl

    descriptor = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "environment: waiting for another process that makes it",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
