"""Hook of `mkdocs.yml`: links to files outside `docs/` become plain text on the site."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Returns the page without the links that have no page on the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def text_or_link(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] if target.startswith("..") else link[0]

    return LINK.sub(text_or_link, markdown)
