"""Checks `.env`. python-dotenv skips a line that it cannot parse with a warning, and a run would
then use other settings than the file has.

Messages name the line and never its value, which may be a password.
"""

from __future__ import annotations

import os
from collections.abc import Set
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from common.errors import ConfigurationError

ENV_FILE = ".env"


def check_env_file(names: Set[str]) -> None:
    """Check the `.env` file of the working folder, if it exists.

    Args:
        names: names of the settings, in upper case. Other names belong to other programs.

    Raises:
        ConfigurationError: the file cannot be read or a line is malformed.
    """
    if not os.path.lexists(ENV_FILE) or Path(ENV_FILE).is_dir():
        return
    if Path(ENV_FILE).exists() and not _is_file_or_empty_device(Path(ENV_FILE)):
        # reading it could wait for a writer, or never end
        raise ConfigurationError(
            f"{ENV_FILE} is a pipe or a device: make it a file, or set the variables in the"
            " environment"
        )
    try:
        # editors on Windows begin a file with a byte order mark
        content = Path(ENV_FILE).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{ENV_FILE} can't be read: byte {error.start} is no UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{ENV_FILE} can't be read: {error.strerror}; make it readable, or move it away"
        ) from None
    for line in parse_stream(StringIO(content)):
        # python-dotenv reads `NAME` without `=` as a name without a value, and skips it
        lacks_value = line.value is None and (line.key or "").upper() in names
        if line.error or lacks_value or "\0" in line.original.string:
            raise ConfigurationError(
                f"{ENV_FILE} is wrong in line {line.original.line}: write NAME=value, a closing"
                " quotation mark where the value has an opening one, and # before a remark"
            )


def _is_file_or_empty_device(path: Path) -> bool:
    # containers mount /dev/null over a file to hide it
    return path.is_file() or path.stat().st_rdev == Path(os.devnull).stat().st_rdev
