"""Makes text from outside (pool names, answers of services, output of batches) safe for a terminal
and for a log with one record a line.

Control characters start the escape sequences of terminals (ECMA-48, section 5.3), and bidirectional
controls change the order of text (Unicode TR 9, UTS 39).
"""

from __future__ import annotations

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LINE_ENDS = {ord("\r"): "\\r", ord("\n"): "\\n"}

_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")}
_BIDIRECTIONAL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_LINE_SEPARATORS = {0x2028, 0x2029}
_SURROGATES = {*range(0xD800, 0xE000)}
_REPLACED = dict.fromkeys(_CONTROLS | _BIDIRECTIONAL | _LINE_SEPARATORS | _SURROGATES, REPLACEMENT)


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s/'\"]*@")


def without_credentials(text: str) -> str:
    """Replace user and password of each URL by `(hidden)`."""
    return _CREDENTIALS.sub("(hidden)@", text)


def without_controls(text: str) -> str:
    """Replace control characters, except tab and line feed, and lone surrogates, which no stream
    can write.
    """
    return text.translate(_REPLACED)


def has_lone_surrogates(text: str) -> bool:
    """Return whether the text has a code point that UTF-8 cannot encode."""
    return _LONE_SURROGATE.search(text) is not None


def on_one_line(text: str) -> str:
    r"""Do the same, and write line ends as `\n` and `\r`."""
    return text.translate(_REPLACED | LINE_ENDS)
