"""docs/reference/settings.md, from the fields of `config_spark.Settings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from config_spark import SECTIONS
from docs.generate.marked_table import markdown_table

INTRODUCTION = """# Settings

Settings come from environment variables, or from a file `.env` in the working folder. The
environment takes precedence over the file, and an option of a command over both. An empty variable
counts as unset. `python run_spark_local.py doctor` checks the settings and what they refer to.

A value that is not allowed stops every command with exit code 2 and one sentence that names the
variable, the value and what is allowed.
"""

COMPUTED_DEFAULTS = {
    "yieldspark_home": "`~/.local/share/yieldspark`",
    "model_threads": "number of cores",
}
"""Defaults that depend on the machine."""


def settings_page() -> str:
    """The page, one section for each class of `SECTIONS`."""
    return "\n".join([INTRODUCTION, *(_section(section) for section in SECTIONS)])


def _section(section: type[BaseSettings]) -> str:
    title, _, contents = str(section.__doc__).rstrip(".").partition(": ")
    properties = section.model_json_schema(by_alias=False)["properties"]
    rows = [
        (
            f"`{name.upper()}`",
            _default(name, field),
            _allowed(properties[name]),
            str(field.description),
        )
        for name, field in section.model_fields.items()
    ]
    table = markdown_table(("variable", "default", "allowed", "meaning"), rows)
    introduction = f"{contents[0].upper()}{contents[1:]}." if contents else ""
    return f"## {title}\n\n{introduction}\n\n{table}\n".replace("\n\n\n\n", "\n\n")


def _default(name: str, field: FieldInfo) -> str:
    if name in COMPUTED_DEFAULTS:
        return COMPUTED_DEFAULTS[name]
    if field.default is None or field.default == "":
        return "unset"
    if isinstance(field.default, tuple):
        return f"`{','.join(map(str, field.default))}`"
    return f"`{_number(field.default)}`"


def _number(value: object) -> str:
    """Numbers as people write them: `1000000` for 1e6, and `5` for 5.0."""
    return f"{value:.15g}" if isinstance(value, float) and value < 1e15 else str(value).lower()


def _allowed(schema: Mapping[str, Any]) -> str:
    """The limits that JSON Schema states, which are those that pydantic checks."""
    options = schema.get("anyOf", [schema])
    limits: list[str] = []
    for option in options:
        limits += _limits(option)
    return "; ".join(limits)


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield ", ".join(f"`{choice}`" for choice in schema["enum"])
    if schema.get("type") == "boolean":
        yield "`true`, `false`"
    lower = schema.get("minimum", schema.get("exclusiveMinimum"))
    upper = schema.get("maximum", schema.get("exclusiveMaximum"))
    above = "more than " if "exclusiveMinimum" in schema else ""
    below = "less than " if "exclusiveMaximum" in schema else ""
    if lower is not None and upper is not None:
        yield f"{above}{_number(lower)} to {below}{_number(upper)}"
    elif lower is not None:
        yield f"{above}{_number(lower)}" if above else f"{_number(lower)} or more"
