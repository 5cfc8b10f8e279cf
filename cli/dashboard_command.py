"""`dashboard`: serves the pages of `reporting/dashboard/` until Ctrl-C."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import RUN, app
from cli.options import load_command_settings
from cli.terminal import err, say
from common.errors import EnvironmentNotReady

if TYPE_CHECKING:
    from config_spark import Settings


@app.command(rich_help_panel=RUN)
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the pages ask for no password.")
    ] = "127.0.0.1",
) -> None:
    """Serve pages of forecasts, pools, quality, runs and data to a browser until Ctrl-C.

    Example: python run_spark_local.py dashboard --port 8600
    """
    if importlib.util.find_spec("streamlit") is None:
        raise EnvironmentNotReady(
            "the packages of the dashboard are not installed here: `python run_spark_local.py"
            " dashboard` installs them"
        )
    from reporting.dashboard.server import is_loopback, serve

    settings = _with_database(load_command_settings())
    if not is_loopback(host):
        err.print(
            f"anyone who reaches {host} can read the dashboard: it asks for no password",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    address = host if host not in ("0.0.0.0", "::") else "localhost"
    name = f"[{address}]" if ":" in address else address
    say(f"the dashboard is at http://{name}:{port}; Ctrl-C ends it")
    # Ctrl-C is the way to end it, and no failure
    with suppress(KeyboardInterrupt):
        serve(settings, host=host, port=port)


def _with_database(settings: Settings) -> Settings:
    """Return settings of a running server; your own database may be unreachable at the start."""
    from database.connections.engine import make_engine
    from database.embedded.resolve import resolve_database
    from database.schema.migrate import prepare_tables

    resolved = resolve_database(settings)
    if not settings.db_host:
        prepare_tables(make_engine(resolved), is_embedded=True, changes=False)
    return resolved
