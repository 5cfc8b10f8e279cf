"""Types of settings that hold a URL."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from common.settings.text_forms import ORIGIN, URL


def _without_login(url: str) -> str:
    if "@" in url:
        raise ValueError("it holds credentials, and a URL is shown in messages: leave them out")
    return url


Url = Annotated[str, Field(pattern=URL), AfterValidator(_without_login)]
# A URL without a path
Origin = Annotated[str, Field(pattern=ORIGIN), AfterValidator(_without_login)]
