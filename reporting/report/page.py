"""Renders a template and writes it as one self-contained HTML file.

The page loads nothing from the network.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import logging
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.errors import ConfigurationError
from common.files import write_atomically
from common.version import PRODUCT_VERSION
from reporting.report import formatting, labels
from reporting.report.feature_labels import feature_label

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).resolve().parent / "templates"
FORMATS = (
    "percent",
    "points",
    "signed_points",
    "usd",
    "share",
    "ratio",
    "count",
    "age",
    "duration",
)


def write_page(
    folder: Path, name: str, template: str, contents: dict[str, Any], now: dt.datetime
) -> Path:
    """Writes a page and returns its path; a reader never sees a partial file.

    Args:
        folder: made if it is missing.
        name: name of the file.
        template: name of the template.
        contents: values of the template.
        now: time that the page shows.

    Raises:
        ConfigurationError: the folder can't be written.
    """
    page = render(template, contents | {"written": now, "version": PRODUCT_VERSION})
    path = folder.resolve() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # readable for other accounts: a report has no secrets, and a web server may serve it
        write_atomically(path, page, mode=0o644)
    except OSError as error:
        raise ConfigurationError(
            f"the report can't be written to {path}: {error.strerror}. Set REPORT_DIR to a folder"
            " you may write to"
        ) from error
    log.info("report written to %s", path)
    return path


def render(template: str, contents: dict[str, Any]) -> str:
    """Returns the page as text; all values of `contents` are escaped but the plots."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        # a misspelt name is an error, not an empty cell
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        {name: getattr(formatting, name) for name in FORMATS} | {"feature": feature_label}
    )
    environment.globals["labels"] = labels
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("report.css", "report.js"))
    return environment.get_template(template).render(
        contents,
        style=Markup(style),
        script=Markup(script),
        # the page's policy allows this script and no other, in case text of the data gets unescaped
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
