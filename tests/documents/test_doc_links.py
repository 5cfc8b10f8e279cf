"""Relative links and anchors of the documentation resolve, and its entry links to every page.

In: the Markdown pages of the repository. Anchors are made from headings as GitHub makes them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "SECURITY.md",
    PROJECT / "benchmarks" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]
MARKDOWN = MarkdownIt("commonmark").enable("table")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def links(page: str) -> list[str]:
    """Targets of the links and images, without those in code."""
    attributes = {"link_open": "href", "image": "src"}
    return [
        str(token.attrs[attributes[token.type]])
        for token in flat(MARKDOWN.parse(page))
        if token.type in attributes
    ]


def anchors(page: str) -> set[str]:
    """Fragments of the headings: lower case, no punctuation, hyphens for blanks, and a number on
    each repetition.
    """
    tokens = MARKDOWN.parse(page)
    names: set[str] = set()
    repetitions: Counter[str] = Counter()
    for opening, inline in pairwise(tokens):
        if opening.type != "heading_open":
            continue
        parts = [part for part in flat([inline]) if part.type in {"text", "code_inline"}]
        text = "".join(part.content for part in parts).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names.add(f"{name}-{repetitions[name]}" if repetitions[name] else name)
        repetitions[name] += 1
    return names


def broken_links(path: Path) -> list[str]:
    """Relative links of the page to no file of the repository, or to no heading of a page."""
    broken = []
    for link in links(path.read_text(encoding="utf-8")):
        if SCHEME.match(link):
            continue
        name, _, fragment = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        exists = target.exists() and target.is_relative_to(PROJECT)
        if not exists or (fragment and fragment not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_relative_link_resolves(page: Path) -> None:
    assert broken_links(page) == []


def test_the_entry_of_the_documentation_links_to_every_page() -> None:
    entry = DOCS / "README.md"
    linked = {
        (DOCS / link.partition("#")[0]).resolve()
        for link in links(entry.read_text(encoding="utf-8"))
    }
    records = {path for path in PAGES if path.parent == DOCS / "adr" and path.name != "README.md"}
    assert set(PAGES) - linked - records - {entry, PROJECT / "README.md"} == set()


def test_links_and_anchors_are_read_as_github_reads_them() -> None:
    page = """# A `b` & [c](c.md)!
## Twice
## Twice
```
# not [one](x.md)
```
| cell |
|---|
| ![picture](d.png) [e](<e f.md#g> "title") `[not](one.md)` |
"""
    assert anchors(page) == {"a-b--c", "twice", "twice-1"}
    assert links(page) == ["c.md", "d.png", "e%20f.md#g"]


def test_a_link_to_nothing_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.documents.test_doc_links.PROJECT", tmp_path)
    good = "[a](#top) [b](other.md#top) [c](https://example.com/none)"
    bad = ["#none", "none.md", "other.md#none", "../outside.md"]
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# Top\n")
    page.write_text(f"# Top\n{good}\n" + " ".join(f"[x]({link})" for link in bad))
    assert broken_links(page) == bad
