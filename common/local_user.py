"""The operating-system user of this process, whom records of decisions name."""

from __future__ import annotations

import getpass
import os
import socket


def user_at_host() -> str:
    """Return `user@host`; not the role in PostgreSQL, which several people may share."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user id of a container may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
