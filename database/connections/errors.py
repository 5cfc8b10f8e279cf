"""Translates driver errors to errors of `common.errors`, by SQLSTATE (PostgreSQL manual, appendix
A) and fields of the error message.

Never matches the text of a message, which is in the server's language.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from common.errors import DatabaseError, DatabaseRefused, DatabaseUnreachable, SchemaMismatch
from database.connections.login_probe import probe_login
from database.connections.session_check import ConnectionDescription

_JAVA_EXCEPTION = "org.postgresql.util.PSQLException"

_ROW_SECURITY = "check_enable_rls"
"""Function of the server that rejects a query under `row_security=off`; a field of the message."""

Template = tuple[type[DatabaseError], str]
"""Error class, and message with the fields `where`, `cause` and `role`."""

_LIMIT: Template = (
    DatabaseError,
    "PostgreSQL at {where} ended the work by a limit (LIMIT): {cause}. The session asks for none: a"
    " pooler, a function or an administrator has set it. Remove it there (such as ALTER ROLE {role}"
    " RESET ..), then run again",
)
_CHARACTER: Template = (
    DatabaseError,
    "the database at {where} can't hold a character: {cause}. Move it to a database whose encoding"
    " is UTF8",
)
_OTHER_TABLES: Template = (
    SchemaMismatch,
    "the tables at {where} differ from those of this version: {cause}. Compare them with"
    " docs/reference/tables.md",
)
_UNREACHABLE: Template = (
    DatabaseUnreachable,
    "no connection to PostgreSQL at {where}: {cause}. Check DB_HOST, DB_PORT, DB_SSLMODE,"
    " DB_SSLROOTCERT and that the server runs",
)


def _limit(name: str) -> Template:
    return _LIMIT[0], _LIMIT[1].replace("LIMIT", name)


_TEMPLATES: dict[str, Template] = {
    # a code, or the first two or three characters of a class
    "08": _UNREACHABLE,
    "22021": _CHARACTER,
    "22P05": _CHARACTER,
    "23": (
        DatabaseError,
        "a constraint of the tables at {where} refuses a row: {cause}. Have the table's owner let"
        " it pass, or correct the row, then run again",
    ),
    "25006": (
        DatabaseRefused,
        "the database at {where} is read-only: {cause}. Set DB_HOST to the primary server, or have"
        " default_transaction_read_only set to off for the role and the database",
    ),
    "25P03": _limit("idle_in_transaction_session_timeout"),
    "25P04": _limit("transaction_timeout"),
    "28": (
        DatabaseRefused,
        "PostgreSQL refused the login at {where}: {cause}. Set DB_USER and DB_PASSWORD to a role"
        " that may log in",
    ),
    "3D000": (
        DatabaseRefused,
        "PostgreSQL refused the connection to {where}: {cause}. Create it, or set DB_NAME and"
        " DB_USER",
    ),
    "42501": (
        DatabaseRefused,
        "role {role} has no right to do this at {where}: {cause}. Grant it, or set DB_USER to a"
        " role that has it",
    ),
    "42P01": _OTHER_TABLES,
    "42703": _OTHER_TABLES,
    "42804": _OTHER_TABLES,
    "42883": _OTHER_TABLES,
    "53": (
        DatabaseError,
        "PostgreSQL at {where} is out of a resource: {cause}. Free disk space or memory, then run"
        " again; nothing was changed",
    ),
    "53300": (
        DatabaseError,
        "PostgreSQL at {where} has no connection left: {cause}. End other sessions, or raise"
        " max_connections or the CONNECTION LIMIT of role or database, then run again",
    ),
    "55P03": _limit("lock_timeout"),
    "P0": (
        DatabaseError,
        "a trigger or a function of the database at {where} refuses the work: {cause}. Have its"
        " owner let YieldSpark's rows pass, then run again",
    ),
    "57014": _limit("statement_timeout, or a cancel"),
    "57P": _UNREACHABLE,
    "57P05": _limit("idle_session_timeout"),
    _ROW_SECURITY: (
        DatabaseRefused,
        "row-level security would hide rows at {where}: {cause}. Give role {role} BYPASSRLS, or let"
        " the table's owner disable it",
    ),
}


def to_product_error(error: DBAPIError, url: URL) -> DatabaseError:
    """Return the error for a failed statement; without a SQLSTATE the connection was lost."""
    return statement_error(error.orig, _where(url), str(url.username))


def statement_error(error: BaseException | None, where: str, role: str) -> DatabaseError:
    """Return the error for psycopg2's own error.

    Args:
        error: psycopg2's error.
        where: server, database and role, for the message.
        role: the role.
    """
    diagnostics = getattr(error, "diag", None)
    return error_for_sqlstate(
        getattr(error, "pgcode", None),
        driver_message(error),
        where,
        role,
        routine=getattr(diagnostics, "source_function", None),
    )


def login_error(error: Exception, parameters: ConnectionDescription) -> DatabaseError:
    """Return the error for a failed login of psycopg2 or ADBC. Neither has the SQLSTATE, so the
    login is tried again.
    """
    cause, answer = driver_message(error), probe_login(parameters.conninfo)
    if parameters.tokens and (answer.sqlstate or "").startswith("28"):
        refused = DatabaseRefused(
            f"PostgreSQL refused the IAM login at {parameters.where}: {cause}. Create the database"
            " user of this account in Cloud SQL, and grant the account"
            " roles/cloudsql.instanceUser; DB_USER is the account's address"
        )
        return _with_code(refused, answer.sqlstate)
    if answer.needs_password:
        return error_for_sqlstate("28P01", cause, parameters.where, parameters.user)
    if answer.connected:
        return DatabaseUnreachable(
            f"PostgreSQL at {parameters.where} refused a connection ({cause}) and accepted the next"
            " one: it may be short of connections. Run again"
        )
    # protocol_violation: PgBouncer's answer to the startup parameter `options`
    if answer.sqlstate == "08P01":
        error_of_pooler = DatabaseRefused(
            f"the server at {parameters.where} accepts no session parameters at the start: {cause}."
            " Set DB_HOST and DB_PORT to PostgreSQL itself, not to a pooler such as PgBouncer"
        )
        return _with_code(error_of_pooler, "08P01")
    return error_for_sqlstate(answer.sqlstate, cause, parameters.where, parameters.user)


def task_error(error: Exception, parameters: ConnectionDescription) -> DatabaseError:
    """Return the error for a failed statement of ADBC.

    Args:
        error: ADBC's error.
        parameters: description of the connection.
    """
    code = getattr(error, "sqlstate", None)
    return error_for_sqlstate(code, driver_message(error), parameters.where, parameters.user)


def driver_message(error: object) -> str:
    """Return a driver's message on one line, without a final full stop."""
    # psycopg2 cannot decode the message of a server with another encoding
    text = error.object.decode("latin-1") if isinstance(error, UnicodeDecodeError) else str(error)
    return " ".join(text.split()).rstrip(".")


def error_for_sqlstate(
    code: str | None, cause: str, where: str, role: str, *, routine: str | None = None
) -> DatabaseError:
    """Return the error for a SQLSTATE.

    Args:
        code: the SQLSTATE; None if no server answered.
        cause: the driver's message, which is part of the result.
        where: server, database and role.
        role: the role.
        routine: function of the server that raised the error.

    Returns:
        An error whose `sqlstate` is the code.
    """
    if code is None:
        template = _UNREACHABLE
    else:
        key = _ROW_SECURITY if (code, routine) == ("42501", _ROW_SECURITY) else code
        unknown = (
            DatabaseError,
            f"PostgreSQL at {{where}} reports {code}: {{cause}}. Nothing was changed; its manual's"
            " appendix A explains the code",
        )
        # a full code, or a class of codes
        keys = (key, key[:3], key[:2])
        template = next((_TEMPLATES[key] for key in keys if key in _TEMPLATES), unknown)
    error_class, message = template
    return _with_code(error_class(message.format(where=where, cause=cause, role=role)), code)


@contextmanager
def translate_jdbc_errors(url: URL) -> Iterator[None]:
    """Translate errors of the JDBC driver, which Spark raises inside the block."""
    try:
        yield
    except Exception as error:
        if database_error := _jdbc_error(error, url):
            raise database_error from error
        raise


def _jdbc_error(error: Exception, url: URL) -> DatabaseError | None:
    """Return the error, or None if the cause is no exception of the JDBC driver."""
    cause = getattr(error, "java_exception", None)
    if cause is None:
        return None
    # loaded by now, because the error comes from Py4J; other commands do without it
    from py4j.protocol import Py4JError

    try:
        # Spark wraps the driver's exception several times
        while cause is not None and cause.getClass().getName() != _JAVA_EXCEPTION:
            cause = cause.getCause()
        if cause is None:
            return None
        message = driver_message(cause.getMessage())
        return error_for_sqlstate(cause.getSQLState(), message, _where(url), str(url.username))
    except (Py4JError, OSError):  # the JVM has ended, and its error is reported elsewhere
        return None


def _where(url: URL) -> str:
    host, port = (url.host or url.query.get("host")), (url.port or url.query.get("port"))
    return f"{host}:{port}/{url.database} as {url.username}"


def _with_code(error: DatabaseError, code: str | None) -> DatabaseError:
    error.sqlstate = code
    return error
