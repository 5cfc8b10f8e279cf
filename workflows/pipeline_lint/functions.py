"""Functions of Cloud Workflows' standard library that pipeline.yaml may use
(https://cloud.google.com/workflows/docs/reference/stdlib/overview).
"""

from __future__ import annotations

FUNCTIONS = frozenset(
    {
        "default",
        "int",
        "json.decode",
        "json.encode_to_string",
        "keys",
        "len",
        "list.concat",
        "map.get",
        "math.min",
        "string",
        "sys.get_env",
        "sys.now",
        "text.match_regex",
        "text.replace_all",
        "text.split",
        "text.url_encode",
        "time.format",
    }
)
"""Functions inside `${}`."""

CALLS = frozenset({"http.delete", "http.get", "http.post", "sys.log", "sys.sleep"})
"""Functions of a `call` step."""
