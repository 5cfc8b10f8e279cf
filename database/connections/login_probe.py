"""Why a server did not let us in, as libpq knows it: the SQLSTATE of the server's answer.

psycopg2 and ADBC tell of a failed login in the words of libpq or of the server, which are in the
server's language. libpq has the code and gives it away in the error verbosity SQLSTATE. Goes in:
libpq's connection string. Comes out: a `LoginAnswer`. The login is tried once more.
"""

from __future__ import annotations

import ctypes
import re
import select
import time
from dataclasses import dataclass
from functools import cache

PROBE_SECONDS = 5.0

_VERBOSITY_SQLSTATE = 3
_READING, _WRITING, _CONNECTED = 1, 2, 3
"""PGVerbosity and PostgresPollingStatusType of libpq-fe.h."""

_CODE = re.compile(r": +([0-9A-Z]{5})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class LoginAnswer:
    """`sqlstate` is None where no server answered or libpq gave up by itself; `needs_password` says
    that the server wanted one and there was none; `connected` that this time it worked.
    """

    sqlstate: str | None = None
    needs_password: bool = False
    connected: bool = False


def probe_login(conninfo: str) -> LoginAnswer:
    """Try the login, for PROBE_SECONDS at most. An answer without facts where this psycopg2's libpq
    can't be called.
    """
    libpq = _libpq()
    if libpq is None:
        return LoginAnswer()
    connection = libpq.PQconnectStart(conninfo.encode())
    if not connection:
        return LoginAnswer()
    try:
        libpq.PQsetErrorVerbosity(connection, _VERBOSITY_SQLSTATE)
        connected = _polled(libpq, connection)
        said = libpq.PQerrorMessage(connection).decode(errors="replace")
        # with sslmode=prefer libpq tries twice: the last answer counts
        codes = _CODE.findall(said)
        return LoginAnswer(
            codes[-1] if codes and not connected else None,
            bool(libpq.PQconnectionNeedsPassword(connection)),
            connected,
        )
    finally:
        libpq.PQfinish(connection)


def _polled(libpq: ctypes.CDLL, connection: int) -> bool:
    """Whether the login came to its good end in time."""
    deadline, state = time.monotonic() + PROBE_SECONDS, _WRITING
    while state in (_READING, _WRITING) and (left := deadline - time.monotonic()) > 0:
        descriptor = libpq.PQsocket(connection)
        if descriptor < 0:
            return False
        ready = select.poll()
        ready.register(descriptor, select.POLLIN if state == _READING else select.POLLOUT)
        if ready.poll(1000 * left):
            state = libpq.PQconnectPoll(connection)
    return bool(state == _CONNECTED)


@cache
def _libpq() -> ctypes.CDLL | None:
    """The libpq that psycopg2 has loaded: a library gives its dependencies' symbols too."""
    from psycopg2 import _psycopg

    try:
        library = ctypes.CDLL(_psycopg.__file__)
        library.PQconnectStart.argtypes = [ctypes.c_char_p]
        library.PQconnectStart.restype = ctypes.c_void_p
        for name in ("PQconnectPoll", "PQsocket", "PQconnectionNeedsPassword", "PQfinish"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.PQfinish.restype = None
        library.PQerrorMessage.argtypes = [ctypes.c_void_p]
        library.PQerrorMessage.restype = ctypes.c_char_p
        library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    except (AttributeError, OSError):
        return None
    return library
