"""Environment variables of libpq (PostgreSQL manual, "Environment Variables") and the rule about
them.

The DB_* settings describe a connection. JDBC ignores libpq's variables, so one of them could lead
the drivers to different servers: with DB_HOST, a variable that differs from its setting is refused.
They are removed from the process for the embedded server.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from pydantic import SecretStr

# Variables and the settings that replace them
SETTINGS = {
    "PGHOST": "DB_HOST",
    "PGPORT": "DB_PORT",
    "PGDATABASE": "DB_NAME",
    "PGUSER": "DB_USER",
    "PGPASSWORD": "DB_PASSWORD",
    "PGSSLMODE": "DB_SSLMODE",
    "PGSSLROOTCERT": "DB_SSLROOTCERT",
}

# Every connection sets its own value, which takes precedence
WITHOUT_EFFECT = ("PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT")

REFUSED = (
    *("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGPASSFILE", "PGOPTIONS"),
    *("PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGREQUIREAUTH", "PGCHANNELBINDING"),
    *("PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT", "PGSSLKEY"),
    *("PGSSLCERTMODE", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI", "PGSSLKEYLOGFILE"),
    *("PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGREQUIREPEER", "PGGSSENCMODE"),
    *("PGGSSLIB", "PGGSSDELEGATION", "PGKRBSRVNAME", "PGMINPROTOCOLVERSION"),
    *("PGMAXPROTOCOLVERSION", "PGTZ", "PGDATESTYLE", "PGGEQO", "PGLOCALEDIR"),
    "PGOAUTHDEBUG",
)

ALL = (*SETTINGS, *WITHOUT_EFFECT, *REFUSED)


def refusal(environment: Mapping[str, str], settings: Mapping[str, object]) -> str | None:
    """Return a message that names each variable in conflict with a setting, or None. It has no
    values.

    Args:
        environment: environment variables.
        settings: value that the connection uses, by DB_* name; None if it is not set.
    """
    conflicts = [
        f"{name} (set {setting} in its place)"
        for name, setting in SETTINGS.items()
        if environment.get(name) and environment[name] != _text(settings[setting])
    ]
    conflicts += [name for name in REFUSED if environment.get(name)]
    if not conflicts:
        return None
    return (
        f"the environment has {', '.join(conflicts)}: with DB_HOST the settings DB_* describe the"
        " connection for every driver, and libpq's variables would change it for some of them."
        " Unset them"
    )


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value)


def remove(environment: MutableMapping[str, str]) -> None:
    """Remove all of libpq's variables from an environment."""
    for name in ALL:
        environment.pop(name, None)
