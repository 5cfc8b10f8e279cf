"""The product's errors for what a driver raises, by SQLSTATE (PostgreSQL manual, appendix A) and
fields of the protocol's error message; never by words, which are in the server's language.

In: a driver's error and where it was. Out: an error of `product_errors` that says what to do.
"""

from __future__ import annotations

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from database.connection_parameters import ConnectionParameters
from database.login_probe import ask_again
from product_errors import DatabaseError, DatabaseRefused, DatabaseUnreachable, SchemaMismatch

_ROUTINE_OF_ROW_SECURITY = "check_enable_rls"
"""The server's function that refuses a query under `row_security=off`; a field of the message."""

_LIMITS = {
    "57014": "statement_timeout, or a cancel",
    "55P03": "lock_timeout",
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
    "57P05": "idle_session_timeout",
}

_CHANGED_TABLES = {"42P01", "42703", "42804", "42883"}
_ENCODING = {"22021", "22P05"}


def translate(error: DBAPIError, url: URL) -> DatabaseError:
    """The product's error for one of a statement; without a code the connection was lost."""
    host, port = (url.host or url.query.get("host")), (url.port or url.query.get("port"))
    where = f"{host}:{port}/{url.database} as {url.username}"
    diagnostics = getattr(error.orig, "diag", None)
    return by_code(
        getattr(error.orig, "pgcode", None),
        _one_line(error.orig),
        where,
        str(url.username),
        routine=getattr(diagnostics, "source_function", None),
    )


def login_error(error: Exception, parameters: ConnectionParameters) -> DatabaseError:
    """The product's error for a connection that psycopg2 or ADBC could not make. Neither tells the
    code, so the server is asked again.
    """
    cause, answer = _one_line(error), ask_again(parameters)
    if answer.needs_password:
        return _with_code(_login_refused(cause, parameters.where), "28P01")
    if answer.connected:
        return DatabaseUnreachable(
            f"PostgreSQL at {parameters.where} refused a connection ({cause}) and took the next"
            " one: it may be short of connections. Run again"
        )
    if answer.sqlstate == "08P01":
        refused = DatabaseRefused(
            f"what answers at {parameters.where} takes no session parameters at the start: {cause}."
            " Set DB_HOST and DB_PORT to the server itself, past a pooler such as PgBouncer"
        )
        return _with_code(refused, "08P01")
    return by_code(answer.sqlstate, cause, parameters.where, parameters.user)


def by_code(
    code: str | None, cause: str, where: str, role: str, *, routine: str | None = None
) -> DatabaseError:
    """The error for a SQLSTATE; it keeps the code as `sqlstate`.

    Args: cause is the driver's own text, which is shown; routine is the server's function that
    raised it.
    """
    return _with_code(_error(code or "", cause, where, role, routine), code)


def _with_code(error: DatabaseError, code: str | None) -> DatabaseError:
    error.sqlstate = code
    return error


def _login_refused(cause: str, where: str) -> DatabaseError:
    return DatabaseRefused(
        f"PostgreSQL refused the login at {where}: {cause}. Set DB_USER and DB_PASSWORD to a role"
        " that may log in"
    )


def _error(code: str, cause: str, where: str, role: str, routine: str | None) -> DatabaseError:
    if code.startswith("28"):
        return _login_refused(cause, where)
    if code == "3D000":
        return DatabaseRefused(
            f"PostgreSQL refused the connection to {where}: {cause}. Create it, or set DB_NAME and"
            " DB_USER"
        )
    if code == "42501" and routine == _ROUTINE_OF_ROW_SECURITY:
        return DatabaseRefused(
            f"row-level security would hide rows at {where}: {cause}. Let role {role}"
            " pass over its policies: give it BYPASSRLS, or membership in the table's owner"
        )
    if code == "42501":
        return DatabaseRefused(
            f"role {role} has no right to do this at {where}: {cause}. Grant it, or set DB_USER"
            " to a role that has it"
        )
    if code == "25006":
        return DatabaseRefused(
            f"the database at {where} is read-only: {cause}. Set DB_HOST to the primary server, or"
            " have default_transaction_read_only set to off for the role and the database"
        )
    if code == "53300":
        return DatabaseError(
            f"PostgreSQL at {where} has no connection left: {cause}. End other sessions, or raise"
            " max_connections or the CONNECTION LIMIT of role or database, then run again"
        )
    if code.startswith("53"):
        return DatabaseError(
            f"PostgreSQL at {where} is out of a resource: {cause}. Free disk space or memory, then"
            " run again; nothing was changed"
        )
    if code in _LIMITS:
        return DatabaseError(
            f"PostgreSQL at {where} ended the work by a limit ({_LIMITS[code]}): {cause}. The"
            " session asks for none: a pooler, a function or an administrator has set it"
        )
    if code in _ENCODING:
        return DatabaseError(
            f"the database at {where} can't hold a character: {cause}. Move it to a database whose"
            " encoding is UTF8"
        )
    if code in _CHANGED_TABLES:
        return SchemaMismatch(
            f"the tables at {where} are not what this version expects: {cause}. Compare them with"
            " database/tables.py"
        )
    if not code or code.startswith(("08", "57P")):
        return DatabaseUnreachable(
            f"no connection to PostgreSQL at {where}: {cause}. Check DB_HOST, DB_PORT, DB_SSLMODE,"
            " DB_SSLROOTCERT and that the server runs"
        )
    return DatabaseError(f"PostgreSQL at {where} said {code}: {cause}")


def _one_line(error: BaseException | None) -> str:
    if isinstance(error, UnicodeDecodeError):
        return " ".join(error.object.decode("latin-1").split())
    return " ".join(str(error).split())
