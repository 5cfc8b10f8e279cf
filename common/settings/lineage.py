"""Settings of lineage events."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from common.settings.addresses import without_login
from common.settings.text_forms import LINEAGE_URL


class LineageSettings(BaseSettings):
    """OpenLineage: the events that a run sends when it starts and when it ends."""

    openlineage_url: Annotated[
        str | None, Field(pattern=LINEAGE_URL), AfterValidator(without_login)
    ] = Field(
        None,
        description=(
            "receiver of OpenLineage events: the address of a server, to which /api/v1/lineage is"
            " added, or file:///PATH, to which each event is appended as a line; unset: none"
        ),
    )
    openlineage_namespace: str = Field("yieldspark", description="namespace of the jobs in events")
    openlineage_api_key: SecretStr | None = Field(
        None, description="bearer token for the server of OPENLINEAGE_URL; never logged"
    )
