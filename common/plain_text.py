"""Makes text from outside (pool names, answers of services, output of batches) safe for a terminal
and for a log with one record a line.

Control characters start the escape sequences of terminals (ECMA-48, section 5.3), and bidirectional
controls change the order of text (Unicode TR 9, UTS 39). Characters without a width make two names
look the same.
"""

from __future__ import annotations

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LINE_ENDS = {ord("\r"): "\\r", ord("\n"): "\\n"}

_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")}
_BIDIRECTIONAL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_LINE_SEPARATORS = {0x2028, 0x2029}
_WITHOUT_WIDTH = {
    *(0xAD, 0x180E, 0x200B, 0x200C, 0x200D, 0xFEFF),
    *range(0x2060, 0x2065),
    *range(0x206A, 0x2070),
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
}
_SURROGATES = {*range(0xD800, 0xE000)}
_REPLACED = dict.fromkeys(
    _CONTROLS | _BIDIRECTIONAL | _LINE_SEPARATORS | _WITHOUT_WIDTH | _SURROGATES, REPLACEMENT
)


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# A password may have any sign but a blank; digits and a slash behind the colon are a port. Paths
# have one slash where addresses have two.
_LOGIN_OF_URL = re.compile(
    r"(:/{1,2})(?:[^\s/@'\"]*:(?!\d+(?:[/'\"?,;)]|\s|$))\S{0,4096}@|[^\s/@'\"?#]+@)"
)
# As in connection strings, JDBC URLs, options of Java, forms, and environments
_NAMED_SECRET = re.compile(
    r"((?:[pP]assword|PASSWORD|passwd|pwd|passphrase|(?:access|refresh|id)_token|_TOKEN"
    r"|client_secret|[aA]pi_?[kK]ey|API_KEY|ACCESS_KEY|AccountKey)['\"]?(?:=|: ?(?=['\"])))"
    r"(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s&;,'\")]+)"
)
_BEARER = re.compile(r"\b(Bearer|Basic) (?=\S*[0-9A-Z])[\w.~+/=-]{8,}")


def without_credentials(text: str) -> str:
    """Replace by `(hidden)` user and password of each URL, the value of each `password=`, and the
    tokens of `Bearer` and `Basic`.
    """
    text = _LOGIN_OF_URL.sub(r"\1(hidden)@", text)
    return _BEARER.sub(r"\1 (hidden)", _NAMED_SECRET.sub(r"\1(hidden)", text))


def without_controls(text: str) -> str:
    """Replace control characters, except tab and line feed, characters without a width, and lone
    surrogates, which no stream can write.
    """
    return text.translate(_REPLACED)


def has_lone_surrogates(text: str) -> bool:
    """Return whether the text has a code point that UTF-8 cannot encode."""
    return _LONE_SURROGATE.search(text) is not None


def on_one_line(text: str) -> str:
    r"""Do the same, and write line ends as `\n` and `\r`."""
    return text.translate(_REPLACED | LINE_ENDS)
