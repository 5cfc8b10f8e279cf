"""Reads a workflow's YAML into plain values with line numbers. Rejects YAML that parsers read
differently: duplicate keys, anchors, aliases, and plain words such as on, off, yes, no, y, 012,
1:30 or a date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from common.errors import ConfigurationError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's C reader if available; it takes a tenth of the time."""
TEXT, NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
PLAIN = {
    "tag:yaml.org,2002:int": re.compile(r"0|-?[1-9]\d*"),
    "tag:yaml.org,2002:float": re.compile(r"-?\d+\.\d+"),
    "tag:yaml.org,2002:bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    NULL: re.compile(r"null|~|"),
}
"""Numbers, booleans and null that all parsers read alike. YAML 1.1 has more:
https://yaml.org/type/bool.html, https://yaml.org/type/int.html.
"""
SHORT_BOOLEANS = ("y", "Y", "n", "N")
"""Booleans of YAML 1.1 that PyYAML reads as text."""


class SourceMap(dict[str, Any]):
    """A map of the source and the line it begins on, from 1."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


def load_source(source: str) -> SourceMap:
    """Read a source.

    Raises:
        ConfigurationError: Every fault with its line.
    """
    workflow, faults = read_source(source)
    if faults or workflow is None:
        raise ConfigurationError(f"workflow source, {'; '.join(faults)}")
    return workflow


def read_source(source: str) -> tuple[SourceMap | None, list[str]]:
    """Read a source without raising.

    Returns:
        The map, None if there is none, and the faults, each with its line.
    """
    reader = _Reader()
    try:
        for event in yaml.parse(source, Loader=LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                reader.fault(event, "anchors and aliases are not used in a workflow")
        # nodes keep lines and the tag of plain words, which values would not
        root = yaml.compose(source, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line if error.problem_mark else 0) + 1
        return None, [f"line {line}: no YAML: {error.problem}"]
    if not isinstance(root, yaml.MappingNode):
        return None, ["line 1: a workflow is a map with `main` and its subworkflows"]
    return reader.map(root), reader.faults


class _Reader:
    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, node: Any, message: str) -> None:
        self.faults.append(f"line {_line(node)}: {message}")

    def value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.map(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        return self.scalar(node)

    def map(self, node: yaml.MappingNode) -> SourceMap:
        result = SourceMap(_line(node))
        for key_node, value_node in node.value:
            key = self.value(key_node)
            if not isinstance(key, str):
                self.fault(key_node, f"the key {key!r} is no text; write it in quotes")
            elif key in result:
                self.fault(key_node, f"duplicate key {key!r}")
            result[str(key)] = self.value(value_node)
        return result

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        # a quoted word has a style, and every parser reads it as text
        if node.tag == TEXT and not (not node.style and text in SHORT_BOOLEANS):
            return text
        if node.tag not in PLAIN or not PLAIN[node.tag].fullmatch(text):
            kind = "bool" if node.tag == TEXT else node.tag.rpartition(":")[2]
            self.fault(
                node, f"YAML 1.1 reads the plain word {text!r} as {kind}; write it in quotes"
            )
            return text
        if node.tag == NULL:
            return None
        if node.tag.endswith("bool"):
            return text[0] in "tT"
        return float(text) if "." in text else int(text)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
