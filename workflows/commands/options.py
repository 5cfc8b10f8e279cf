"""Options that several commands of `python -m workflows` share."""

from __future__ import annotations

from typing import Annotated

import typer

BatchId = Annotated[
    str,
    typer.Argument(metavar="BATCH", help="Id or full resource name of the batch."),
]
DryRunRequest = Annotated[
    bool, typer.Option("--dry-run", help="Print the request as JSON without sending it.")
]
FullRefresh = Annotated[
    bool, typer.Option("--full-refresh", help="Recompute every day of every pool.")
]
OnPlatform = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="[JOB=]PLATFORM",
        help=(
            "dataproc or cloud_run, for both jobs or one; repeatable. Default: "
            "PLATFORM of the release."
        ),
    ),
]
Version = Annotated[str | None, typer.Option(help="Published version; default: the latest.")]
