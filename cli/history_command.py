"""`history`: opens Spark's own history server on the event logs of this machine's runs."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from cli.app import RUN, app
from cli.options import load_command_settings
from cli.terminal import say
from common.errors import EnvironmentNotReady
from common.quantities import count


@app.command(rich_help_panel=RUN)
def history(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port on 127.0.0.1.")] = 18080,
) -> None:
    """Open Spark's history server on the event logs of earlier runs.

    It shows the jobs, stages and SQL plans of each run, until Ctrl-C.

    Example: python run_spark_local.py history --port 18081
    """
    from local_runtime.history_server import HOST, history_server
    from spark.event_logs import event_log_folder, event_logs

    settings = load_command_settings()
    folder = event_log_folder(settings)
    logs = event_logs(folder)
    if not logs:
        raise EnvironmentNotReady(
            f"there are no event logs in {folder}: run a job with EXECUTOR=spark and"
            " SPARK_EVENT_LOGS of 1 or more, then try again"
        )
    # Ctrl-C is the way to end it, and no failure
    with suppress(KeyboardInterrupt), history_server(folder, port) as server:
        say(
            f"the history of {count(len(logs), 'Spark session')} is at http://{HOST}:{port};"
            " Ctrl-C ends it"
        )
        server.wait()
