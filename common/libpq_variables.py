"""libpq's environment variables, and the rule about them (PostgreSQL manual, libpq, "Environment
Variables").

DB_* describe the connection. JDBC reads none of libpq's variables, so one that counted would lead
the drivers to different places: with DB_HOST, a variable that says something else than its setting
is refused. The embedded server sees none: they are taken out of the process. In: an environment.
Out: a sentence, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from pydantic import SecretStr

SETTINGS = {
    "PGHOST": "DB_HOST",
    "PGPORT": "DB_PORT",
    "PGDATABASE": "DB_NAME",
    "PGUSER": "DB_USER",
    "PGPASSWORD": "DB_PASSWORD",
    "PGSSLMODE": "DB_SSLMODE",
    "PGSSLROOTCERT": "DB_SSLROOTCERT",
}
"""Variables that have a setting in their place."""

WITHOUT_EFFECT = ("PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT")
"""Every connection names its own value, which wins."""

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
    """One sentence that names each variable with another value than its setting; no value is shown.

    Args: settings maps DB_* to what the connection will use, None where it is not set.
    """
    wrong = [
        f"{name} (set {setting} in its place)"
        for name, setting in SETTINGS.items()
        if environment.get(name) and environment[name] != _text(settings[setting])
    ]
    wrong += [name for name in REFUSED if environment.get(name)]
    if not wrong:
        return None
    return (
        f"the environment has {', '.join(wrong)}: with DB_HOST the connection is what DB_* say, for"
        " every driver, and libpq's variables would change it for some of them. Unset them"
    )


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value)


def remove(environment: MutableMapping[str, str]) -> None:
    """Take all of them out of an environment."""
    for name in ALL:
        environment.pop(name, None)
