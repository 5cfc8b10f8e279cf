"""Patterns of settings that are text, and what to write for each of them, for error messages."""

from __future__ import annotations

# a name with one colon has a port behind it; IPv6 addresses have several
HOST = r"^(/.*|[^\s/?#&@=\[\]:]+|[^\s/?#&@=\[\]:]*:[^\s/?#&@=\[\]:]*:[^\s/?#&@=\[\]]*)$"
SCHEMA = r"^[a-z_][a-z0-9_]*$"
TABLE = r"^[a-z_][a-z0-9_]{0,62}$"
SECRET_VERSION = r"^projects/[^/]+/secrets/[^/]+/versions/[^/]+$"
MEMORY = r"^\d+[mg]$"
URL = r"^https?://[^/]"
ORIGIN = r"^https?://[^/]+$"
LINEAGE_URL = r"^(https?://[^/]|file:///.)"
HOST_AND_PORT = r"^[A-Za-z0-9.-]+:[0-9]{1,5}$"

FORMS = {
    HOST: "a host name, an address or the folder of a socket (the port is DB_PORT)",
    SCHEMA: "one name of lower-case letters, digits and _",
    TABLE: "one name of at most 63 lower-case letters, digits and _",
    SECRET_VERSION: "projects/P/secrets/S/versions/V",
    MEMORY: "a whole number with m or g, such as 2g",
    URL: "a web address, such as https://example.com/path",
    ORIGIN: "a web address without a path, such as https://example.com",
    LINEAGE_URL: "a web address, or file:///PATH",
    HOST_AND_PORT: "HOST:PORT, such as 127.0.0.1:8085",
}
