"""Starts the dashboard's web server: Streamlit with the pages of `app.py`, behind the Host rule.

Runs in the process of the command until a signal ends it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from streamlit.starlette import App

from common.errors import ConfigurationError, is_expected, summarize_error
from config_spark import Settings
from reporting.dashboard import app, connection
from reporting.dashboard.host_rule import HostRule
from reporting.dashboard.index_page import IndexPage
from reporting.dashboard.page_parts import escaped
from reporting.dashboard.preparation import prepare_figures
from reporting.dashboard.scoring import end_processes

log = logging.getLogger(__name__)

# Streamlit runs the file; the import loads its packages, of 2 seconds, before the first visit
SCRIPT = Path(app.__file__)

# the report's colours; text has a contrast of 4.5:1 and more (WCAG 2.2, AA)
LIGHT = {
    "primaryColor": "#0b7a6b",
    "backgroundColor": "#ffffff",
    "secondaryBackgroundColor": "#f1f4f2",
    "textColor": "#1c2530",
    "linkColor": "#0b6a5d",
    "borderColor": "#cfd6d3",
    "dataframeHeaderTextColor": "#4d5864",
}
DARK = {
    "primaryColor": "#4fd0b8",
    "backgroundColor": "#11161a",
    "secondaryBackgroundColor": "#1e272d",
    "textColor": "#e6ebef",
    "linkColor": "#4fd0b8",
    "borderColor": "#3a464f",
    "dataframeHeaderTextColor": "#b4bfc9",
}

SIZES = {
    "headingFontSizes": ["2rem", "1.4rem", "1.15rem", "1rem", "1rem", "1rem"],
    "metricValueFontSize": "1.6rem",
    "paddingTop": "1rem",
    "paddingBottom": "2rem",
}


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve the pages until SIGINT or SIGTERM.

    Args:
        settings: with DB_* of a server; it need not answer yet.
        host: address to listen at.
        port: TCP port.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    _require_free(host, port)
    connection.use(settings)
    middleware = [Middleware(HostRule, host=host), Middleware(IndexPage)]
    application = App(SCRIPT, middleware=middleware, on_script_error=_show_error)
    stop = threading.Event()
    threading.Thread(target=prepare_figures, args=(stop,), name="figures", daemon=True).start()
    try:
        application.run(config=_options(host, port))
    finally:
        stop.set()
        end_processes()


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_free(host: str, port: int) -> None:
    # Streamlit would end the process with a log line
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"the dashboard can't listen at {host}, port {port}: {error.strerror or error};"
            " --port and --host choose others"
        ) from error


def _options(host: str, port: int) -> dict[str, Any]:
    """Return Streamlit's options; they override those of a config.toml of the user."""
    options: dict[str, Any] = {
        "browser.gatherUsageStats": False,
        "browser.serverAddress": "localhost",
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.showEmailPrompt": False,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        # HostRule is stricter; Streamlit's own rule asks another host for the public address
        "server.enableCORS": False,
        "server.enableXsrfProtection": False,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.maxUploadSize": 1,
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "runner.magicEnabled": False,
        "logger.hideWelcomeMessage": True,
        "logger.level": "error",
    }
    options |= {f"theme.{name}": value for name, value in SIZES.items()}
    for theme, colours in (("light", LIGHT), ("dark", DARK)):
        options |= {f"theme.{theme}.{name}": colour for name, colour in colours.items()}
    return options


def _show_error(error: Exception) -> bool:
    """Show the page's own sentence for an error, and log one that nobody expects."""
    if not is_expected(error):
        log.error("a page of the dashboard failed", exc_info=error)
    st.error(
        f"This page can't be shown: {escaped(summarize_error(error))}", icon=":material/error:"
    )
    return True
