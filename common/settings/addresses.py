"""Types of settings that hold a URL."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from common.settings.text_forms import ORIGIN, URL


def without_login(url: str | None) -> str | None:
    """Raise ValueError for a URL with credentials."""
    if url and "@" in url:
        raise ValueError("it holds credentials, and a URL is shown in messages: leave them out")
    return url


Url = Annotated[str, Field(pattern=URL), AfterValidator(without_login)]
# A URL without a path
Origin = Annotated[str, Field(pattern=ORIGIN), AfterValidator(without_login)]
