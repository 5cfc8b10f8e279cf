"""The workflow's YAML as plain values that know their line.

In: the source. Out: maps (`SourceMap`), lists, strings, numbers, booleans, null. Refused, because readers of YAML do not agree on them: a key given
twice, anchors and aliases, tags, and plain words that YAML 1.1 reads as something else than text, such as on, off, yes, no, 012, 1:30 or a date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from workflows.local.interpreter.errors import refused

SAME_IN_ALL = {"tag:yaml.org,2002:bool": ("true", "True", "TRUE", "false", "False", "FALSE"), "tag:yaml.org,2002:null": ("null", "~", "")}
"""What Google's documentation knows as booleans and null; YAML 1.1 knows more (https://yaml.org/type/bool.html)."""
TEXT = "tag:yaml.org,2002:str"


class SourceMap(dict[str, Any]):
    """A map of the source with the line it begins on, counted from 1."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


def load_source(source: str) -> SourceMap:
    """Raises: ConfigurationError with the line."""
    try:
        aliased = next((event for event in yaml.parse(source) if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)), None)
        if aliased is not None:
            raise refused(_line(aliased), "anchors and aliases are not used in a workflow")
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise refused((error.problem_mark.line if error.problem_mark else 0) + 1, f"is no YAML: {error.problem}") from None
    if not isinstance(root, yaml.MappingNode):
        raise refused(1, "a workflow is a map with `main` and its subworkflows")
    found = _value(root)
    assert isinstance(found, SourceMap)
    return found


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _map(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node)


def _map(node: yaml.MappingNode) -> SourceMap:
    found = SourceMap(_line(node))
    for key_node, value_node in node.value:
        key = _value(key_node)
        if not isinstance(key, str):
            raise refused(_line(key_node), f"the key {key!r} is no text; write it in quotes")
        if key in found:
            raise refused(_line(key_node), f"the key {key!r} stands here twice")
        found[key] = _value(value_node)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.tag == TEXT:
        return text
    if node.tag == "tag:yaml.org,2002:int" and re.fullmatch(r"0|-?[1-9]\d*", text):
        return int(text)
    if node.tag == "tag:yaml.org,2002:float" and re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    if text in SAME_IN_ALL.get(node.tag, ()):
        return {"t": True, "f": False}.get(text[:1].lower())
    raise refused(_line(node), f"YAML 1.1 reads the plain word {text!r} as {node.tag.rpartition(':')[2]}; write it in quotes")
