"""Numbers that several settings take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, 0.1 for 10 %."""
