"""Settings of the public data sources."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings


class SourceSettings(BaseSettings):
    """Data sources: the public APIs that `ingest` reads."""

    defillama_yields_url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(
        "https://yields.llama.fi", description="DefiLlama's API of pools and their history"
    )
    defillama_coins_url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(
        "https://coins.llama.fi", description="DefiLlama's API of ETH and BTC prices"
    )
