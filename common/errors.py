"""Every error YieldSpark raises on purpose.

Each message names the value, what was allowed and the next step; the command line prints it as one
sentence and exits with `exit_code`.

    YieldSparkError                      exit 1: the job failed
     |-- ConfigurationError              exit 2: wrong use or a wrong setting
     |-- EnvironmentNotReady             exit 2: Java, a jar, a native library or the disk is
     missing
     |-- InputError                      exit 2: a file or an answer that can't be read as what it
     claims to be
     |-- DatabaseError                   exit 1
     |    |-- DatabaseUnreachable        nothing answers, or the connection was lost (transient)
     |    |-- DatabaseRefused            wrong password, missing rights, another session than the
     |    |                               one described (terminal)
     |    |-- CheckUnfinished          a check that only warns took too long; it is a warning itself
     |    `-- SchemaMismatch             a table is missing or has another type (terminal)
     |-- SparkLost                       Spark's JVM ended in the middle of the work: killed, or out
     of memory
     |-- SourceUnavailable               a web service that does not answer, or keeps refusing
     (transient)
     |-- RunInProgress                   another run of the same job holds the lock
     |-- CheckFailed                     a check on staging stopped the commit: the run is `blocked`
     |-- RegistryUnreachable             the model registry does not answer; forecasts go on without
     it (transient)
     |-- ModelRefused                    a model version that is unknown, damaged, or of other
     features than the code's
     |-- CloudRefused                    Google Cloud said no: rights, quota, a request it does not
     take (terminal)
     |-- CloudUnavailable                Google Cloud does not answer, or keeps failing (transient)
     |-- BatchFailed                     a batch, a Cloud Run job or the workflow ended otherwise
     than well
     |-- DeploymentFailed                a step of a merge's build can't go on (terminal)
     |-- ReleaseConflict                 a released version holds other bytes, or another release
     was faster
     |-- Interrupted                     exit 130: Ctrl-C or SIGTERM
     `-- NotEnoughHistory                no pool can be forecast or measured in the interval
"""

from __future__ import annotations

import errno
import os
import pwd
import re
from contextlib import suppress
from pathlib import Path

from common.plain_text import without_controls, without_credentials

MAX_MESSAGE_LETTERS = 500
SHOWN_END = 240
"""A message ends with the next step: what is left out of a long one is its middle."""


class YieldSparkError(Exception):
    """Base of the tree above. Its text has at most MAX_MESSAGE_LETTERS; `args` have all of it."""

    exit_code = 1

    def __str__(self) -> str:
        return shortened(super().__str__())


class ConfigurationError(YieldSparkError):
    exit_code = 2


class EnvironmentNotReady(YieldSparkError):
    exit_code = 2


class InputError(YieldSparkError):
    exit_code = 2


class DatabaseError(YieldSparkError):
    sqlstate: str | None = None
    """The server's code (PostgreSQL manual, appendix A), where it gave one."""


class DatabaseUnreachable(DatabaseError):
    pass


class DatabaseRefused(DatabaseError):
    pass


class CheckUnfinished(DatabaseError):
    pass


class SchemaMismatch(DatabaseError):
    pass


class SparkLost(YieldSparkError):
    pass


class SourceUnavailable(YieldSparkError):
    pass


class RunInProgress(YieldSparkError):
    pass


class CheckFailed(YieldSparkError):
    pass


class RegistryUnreachable(YieldSparkError):
    pass


class ModelRefused(YieldSparkError):
    pass


class CloudRefused(YieldSparkError):
    pass


class CloudUnavailable(YieldSparkError):
    pass


class BatchFailed(YieldSparkError):
    pass


class DeploymentFailed(YieldSparkError):
    pass


class ReleaseConflict(YieldSparkError):
    pass


class Interrupted(YieldSparkError):
    exit_code = 130


class NotEnoughHistory(YieldSparkError):
    pass


def shortened(text: str) -> str:
    """A message as it is shown and stored: the one place that limits its length and hides the
    passwords of addresses in it.
    """
    text = without_credentials(text)
    if len(text) <= MAX_MESSAGE_LETTERS:
        return text
    begin = MAX_MESSAGE_LETTERS - SHOWN_END - len(" ... ")
    return f"{text[:begin].rstrip()} ... {text[-SHOWN_END:].lstrip()}"


def whole_message(error: BaseException) -> str:
    """What `one_sentence` has of an error, with nothing left out: for the log file."""
    words = error.args[0] if isinstance(error, YieldSparkError) and error.args else str(error)
    return without_credentials(" ".join(str(words).split()))


_USABLE_AGAIN = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free disk space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), "move what is there away"
    ),
}


def file_problem(error: OSError) -> str:
    """What the system says of a file or folder, and what makes it usable again."""
    next_step = _USABLE_AGAIN.get(error.errno or 0, "make it writable and free disk space")
    owner = _other_owner(Path(error.filename)) if _is_of_rights(error) else None
    return f"{error.strerror or error}; {f'{owner}: ' if owner else ''}{next_step}"


def _is_of_rights(error: OSError) -> bool:
    return isinstance(error, PermissionError) and isinstance(error.filename, str)


def _other_owner(path: Path) -> str | None:
    """Whose the file or folder is, or the lowest folder above it that can be seen; None for this
    account's own.
    """
    for place in (path, *path.parents):
        with suppress(OSError):
            owner = place.stat().st_uid
            return (
                f"{place} belongs to {_account(owner)} and you are {_account(os.geteuid())}"
                if owner != os.geteuid()
                else None
            )
    return None


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


_OURS = re.compile(r"common\.errors\.\w+: (.+)")


def exit_code(error: BaseException) -> int:
    """What a process ends with after this error."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code
    return error.exit_code if isinstance(error, YieldSparkError) else 1


def one_sentence(error: BaseException) -> str:
    """The cause in one line. Spark wraps it in pages: the innermost `Caused by` is what happened,
    or the last line of a worker's traceback.
    """
    return shortened(without_controls(_cause(error)))


def _cause(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: what was not committed is undone, and the next run goes on"
    if isinstance(error, YieldSparkError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _USABLE_AGAIN:
        return f"{error.filename or 'a file'} can't be used: {file_problem(error)}, then run again"
    # Py4J has a colon before Java's exception
    lines = [line.lstrip(": ").rstrip() for line in str(error).splitlines() if line.strip()]
    caused = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    # raised in a Python worker, whose traceback Spark passes on
    if ours := [found[1] for line in lines if (found := _OURS.match(line))]:
        return ours[-1]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
    line = (caused or raised[-1:] or lines[:1] or [""])[-1]
    if os.strerror(errno.ENOSPC) in line:
        line += "; free disk space, also in TMPDIR and SPARK_LOCAL_DIRS, then run again"
    return f"{type(error).__name__}: {line}"
