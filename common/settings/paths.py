"""Types of settings that hold a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from common.errors import ConfigurationError
from common.private_files import absolute_path


def default_home() -> Path:
    """Return the user's data folder (XDG base directory specification).

    Raises:
        ConfigurationError: the account has no home folder.
    """
    folder = os.environ.get("XDG_DATA_HOME")
    try:
        return Path(folder or Path.home() / ".local" / "share") / "yieldspark"
    except RuntimeError:
        raise ConfigurationError(
            "this account has no home folder: set YIELDSPARK_HOME to a folder it may write into"
        ) from None


# A path; `~` is the home folder, and a relative path is completed by the working folder
AbsolutePath = Annotated[Path, AfterValidator(absolute_path)]
