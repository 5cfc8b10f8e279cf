"""Settings of the public data sources."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from common.settings.addresses import Url


class SourceSettings(BaseSettings):
    """Data sources: the public APIs that `ingest` reads."""

    defillama_yields_url: Url = Field(
        "https://yields.llama.fi", description="DefiLlama's API of pools and their history"
    )
    defillama_coins_url: Url = Field(
        "https://coins.llama.fi", description="DefiLlama's API of ETH and BTC prices"
    )
