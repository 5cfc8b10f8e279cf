"""Limits of a role or a database that can end a session before its first query sets them to 0.

An older server refuses a connection that names such a parameter in `options`. The server ends the
session, and libpq then reports a lost connection without a SQLSTATE: the version of the server,
known since the login, tells what to set.
"""

from __future__ import annotations

SINCE_VERSION = {"idle_session_timeout": 140_000, "transaction_timeout": 170_000}
"""First version of PostgreSQL that has the parameter, as libpq writes it."""

LIMIT_OF_CODE = {"57P05": "idle_session_timeout", "25P04": "transaction_timeout"}
"""Parameter by SQLSTATE, for a login that it has ended."""


def disabled_limits(server_version: int) -> dict[str, str]:
    """Return the limits that a server has, set to 0.

    Args:
        server_version: as libpq writes it: 180002 for 18.2.
    """
    return {name: "0" for name, version in SINCE_VERSION.items() if server_version >= version}
