"""Errors that YieldSpark raises.

Each message has the wrong value, the allowed values and the next step. The command line prints it
and exits with `exit_code`.

    YieldSparkError                exit 1: the job failed
     |-- ConfigurationError        exit 2: wrong use or a wrong setting
     |-- EnvironmentNotReady       exit 2: Java, a jar, a native library or disk space is missing
     |-- InputError                exit 2: a file or an answer has another format than expected
     |-- DatabaseError             exit 1
     |    |-- DatabaseUnreachable  no server answers, or the connection was lost (transient)
     |    |-- DatabaseRefused      wrong password, missing rights, or a session with other
     |    |                         parameters than described (terminal)
     |    |-- CheckUnfinished      a check of severity `warn` took too long; reported as a warning
     |    `-- SchemaMismatch       a table is missing or has another type (terminal)
     |-- SparkLost                 Spark's JVM ended during the work: killed, or out of memory
     |-- ProcessLost               a process of a run without Spark was killed, or out of memory
     |-- SourceUnavailable         a web service does not answer, or keeps refusing (transient)
     |-- RunInProgress             another run of the same job holds the lock
     |-- CheckFailed               a check on staging prevented the commit: the run is `blocked`
     |-- RegistryUnreachable       the model registry does not answer (transient); forecasts do
     |                             without it
     |-- ModelRefused              a model version is unknown, damaged, or has other features than
     |                             the code
     |-- CloudRefused              Google Cloud rejects a request: rights, quota, form (terminal)
     |-- CloudUnavailable          Google Cloud does not answer, or keeps failing (transient)
     |-- BatchFailed               a batch, a Cloud Run job or the workflow failed
     |-- DeploymentFailed          a step of the deployment build failed (terminal)
     |-- ReleaseConflict           a release with this name has other content, or another one was
     |                             published first
     |-- Interrupted               exit 130: Ctrl-C or SIGTERM
     `-- NotEnoughHistory          no pool has enough days to be forecast or measured
"""

from __future__ import annotations

import errno
import os
import pwd
import queue
import re
from contextlib import suppress
from pathlib import Path

from common.plain_text import without_controls, without_credentials

MAX_MESSAGE_CHARACTERS = 500
# Length of the end that a shortened message keeps: it has the next step
TAIL_CHARACTERS = 240


class YieldSparkError(Exception):
    """Base class. `str()` has at most MAX_MESSAGE_CHARACTERS; `args` has the full message."""

    exit_code = 1

    def __str__(self) -> str:
        return shorten_message(super().__str__())


class ConfigurationError(YieldSparkError):
    exit_code = 2


class EnvironmentNotReady(YieldSparkError):
    exit_code = 2


class InputError(YieldSparkError):
    exit_code = 2


class DatabaseError(YieldSparkError):
    sqlstate: str | None = None
    """SQLSTATE (PostgreSQL manual, appendix A), if the server sent one."""


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


class ProcessLost(YieldSparkError):
    pass


class RunLost(YieldSparkError):
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


def shorten_message(text: str) -> str:
    """Shorten a message for display and storage, and hide the passwords of URLs in it.

    Returns:
        The text, without its middle if it is longer than MAX_MESSAGE_CHARACTERS.
    """
    text = without_credentials(text)
    if len(text) <= MAX_MESSAGE_CHARACTERS:
        return text
    # the middle is cut: the start names the problem and the end the next step
    head_length = MAX_MESSAGE_CHARACTERS - TAIL_CHARACTERS - len(" ... ")
    return f"{text[:head_length].rstrip()} ... {text[-TAIL_CHARACTERS:].lstrip()}"


def full_message(error: BaseException) -> str:
    """Return the message of an error on one line and in full, for the log file."""
    error = first_failure(error)
    is_ours = isinstance(error, YieldSparkError) and error.args
    message = error.args[0] if is_ours else _text_of(error)
    return without_credentials(" ".join(str(message).split()))


_NEXT_STEPS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free disk space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    **dict.fromkeys((errno.EAGAIN, errno.ENOMEM), "free memory, or raise ulimit -u and -v"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files, ulimit -n"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), "move it away"),
}


def describe_file_error(error: OSError) -> str:
    """Return the system's message for a file or folder, with a next step."""
    next_step = _NEXT_STEPS.get(error.errno or 0, "make it writable and free disk space")
    owner = _other_owner(Path(error.filename)) if _is_of_rights(error) else None
    return f"{error.strerror or error}; {f'{owner}: ' if owner else ''}{next_step}"


def _is_of_rights(error: OSError) -> bool:
    return isinstance(error, PermissionError) and isinstance(error.filename, str)


def _other_owner(path: Path) -> str | None:
    """Whose the file or folder is, or the lowest folder above it that can be seen; None for this
    account's own.
    """
    # a folder without the right to enter hides what is in it
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


_PRODUCT_ERROR = re.compile(r"common\.errors\.\w+: (.+)")


def exit_code(error: BaseException) -> int:
    """Return the exit code of a process that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code
    return error.exit_code if isinstance(error, YieldSparkError) else 1


def is_expected(error: BaseException) -> bool:
    """Return whether the message of an error says what to do, so that nobody needs a traceback."""
    is_of_file = isinstance(error, OSError) and error.errno in _NEXT_STEPS
    return is_of_file or isinstance(error, YieldSparkError | KeyboardInterrupt)


_NO_FAILURES = (AttributeError, ImportError, LookupError, StopIteration, queue.Empty)
"""Errors that code handles in its normal course, as a look-up that finds nothing."""


def first_failure(error: BaseException) -> BaseException:
    """Return the failure that a refused connection followed, else the error itself.

    The end of a JVM or a server fails the work, and then each step of the clean-up, which raises
    "Connection refused" in place of the first error.
    """
    if not _is_refused_connection(error):
        return error
    link: BaseException | None = error
    while link is not None:
        earlier = None if link.__suppress_context__ else link.__context__
        if isinstance(earlier, Exception) and not isinstance(earlier, _NO_FAILURES):
            first = first_failure(earlier)
            # the libraries of a connection wrap one refusal in several errors
            return error if _is_refused_connection(first) else first
        link = link.__cause__
    return error


def _is_refused_connection(error: BaseException) -> bool:
    return (
        isinstance(error, ConnectionRefusedError) or "connection refused" in _text_of(error).lower()
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as reason:
        # Py4J asks the JVM for the text of a Java exception, and the JVM may have ended
        return str(reason)


def summarize_error(error: BaseException) -> str:
    """Return the cause of an error on one line.

    Spark wraps the cause in pages of text: the innermost `Caused by`, or the last line of a
    worker's traceback, is the cause.
    """
    return shorten_message(without_controls(_cause(first_failure(error))))


def _cause(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: uncommitted changes were rolled back, and the next run continues"
    if isinstance(error, YieldSparkError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _NEXT_STEPS:
        file = error.filename or "a file"
        return f"{file} can't be used: {describe_file_error(error)}, then run again"
    # Py4J puts a colon before Java's exception
    lines = [line.lstrip(": ").rstrip() for line in _text_of(error).splitlines() if line.strip()]
    # an error of ours that a Python worker raised: Spark passes its traceback on
    messages = [match[1] for line in lines if (match := _PRODUCT_ERROR.match(line))]
    if messages:
        return messages[-1]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    exceptions = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
    line = (causes or exceptions[-1:] or lines[:1] or [""])[-1]
    if os.strerror(errno.ENOSPC) in line:
        line += "; free disk space, also in TMPDIR and SPARK_LOCAL_DIRS, then run again"
    return f"{type(error).__name__}: {line}"
