"""Finds the SQLSTATE of a failed login, by trying the login again through libpq.

psycopg2 and ADBC return only the message, which is in the server's language; libpq has an error
verbosity that returns the code.
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
"""Values of PGVerbosity and PostgresPollingStatusType (libpq-fe.h)."""

# at this verbosity a message ends with the code and nothing else
_CODE = re.compile(r": +([0-9A-Z]{5})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class LoginAnswer:
    """Result of a login.

    Attributes:
        sqlstate: code of the server; None if no server answered or libpq itself gave up.
        needs_password: the server asked for a password and there was none.
        connected: the login succeeded this time.
    """

    sqlstate: str | None = None
    needs_password: bool = False
    connected: bool = False


def probe_login(conninfo: str) -> LoginAnswer:
    """Try a login for PROBE_SECONDS at most.

    Args:
        conninfo: libpq's connection string.

    Returns:
        The answer; an empty one if psycopg2's libpq cannot be called.
    """
    libpq = _libpq()
    if libpq is None:
        return LoginAnswer()
    connection = libpq.PQconnectStart(conninfo.encode())
    if not connection:
        return LoginAnswer()
    try:
        libpq.PQsetErrorVerbosity(connection, _VERBOSITY_SQLSTATE)
        connected = _poll_login(libpq, connection)
        message = libpq.PQerrorMessage(connection).decode(errors="replace")
        # with sslmode=prefer libpq tries twice: the last answer counts
        codes = _CODE.findall(message)
        return LoginAnswer(
            codes[-1] if codes and not connected else None,
            bool(libpq.PQconnectionNeedsPassword(connection)),
            connected,
        )
    finally:
        libpq.PQfinish(connection)


def _poll_login(libpq: ctypes.CDLL, connection: int) -> bool:
    """Whether the login succeeds in time."""
    deadline, state = time.monotonic() + PROBE_SECONDS, _WRITING
    while state in (_READING, _WRITING) and (left := deadline - time.monotonic()) > 0:
        descriptor = libpq.PQsocket(connection)
        # libpq has closed the socket: the login is over
        if descriptor < 0:
            return False
        ready = select.poll()
        ready.register(descriptor, select.POLLIN if state == _READING else select.POLLOUT)
        if ready.poll(1000 * left):
            state = libpq.PQconnectPoll(connection)
    return bool(state == _CONNECTED)


@cache
def _libpq() -> ctypes.CDLL | None:
    """Return psycopg2's own libpq: symbols of dependencies are visible through a library."""
    from psycopg2 import _psycopg

    try:
        library = ctypes.CDLL(_psycopg.__file__)
        library.PQconnectStart.argtypes = [ctypes.c_char_p]
        # the default, an int, would cut a 64-bit pointer
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
