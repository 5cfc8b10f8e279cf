"""Types of settings that hold a number."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

# A fraction between 0 and 1
Share = Annotated[float, Field(ge=0, le=1)]
