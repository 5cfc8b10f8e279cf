"""Folders and files that a setting names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from common.errors import ConfigurationError
from common.private_files import whole_path


def default_home() -> Path:
    """The data folder of the user, by the XDG base directory specification."""
    folder = os.environ.get("XDG_DATA_HOME")
    try:
        return Path(folder or Path.home() / ".local" / "share") / "yieldspark"
    except RuntimeError:
        raise ConfigurationError(
            "this account has no home folder: set YIELDSPARK_HOME to a folder it may write into"
        ) from None


AbsolutePath = Annotated[Path, AfterValidator(whole_path)]
"""A path from a setting: `~` is the home folder, the working folder completes a relative path."""
