"""YAML file → settings     a configuration as somebody wrote it: every value means what it looks like, or is refused.

PyYAML reads YAML 1.1, in which the last of two equal keys wins, 010 is eight, 1:30 is ninety and `no` is false. Here a
key stands once, numbers are decimal, and `no` is a word; tags, anchors and sets have no use in a configuration. What is
refused is named with file, line and remedy. Derived in chapter 06.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from s4d_lib.errors import Refused

LARGEST, DEEPEST = 1_000_000, 30  # bytes of a file; lists and tables inside each other
_ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|0[xXoObB][0-9a-fA-F_]+|\d[\d_]*(:[0-5]?\d)+(\.\d*)?)|[-+]?\d[\d_]*_[\d_.]*")


class Settings(dict):
    """What a file says, and in which line each of its first keys stands."""

    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """YAML without surprises: the values of YAML 1.2, keys once, no tags, no anchors."""

    yaml_implicit_resolvers: dict[str, list] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, self.depth = self.peek_event(), self.depth + 1
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Odd(line, "anchors (&, *) are not read; write the value where it belongs")
        if getattr(event, "tag", None):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _Odd(line, f"the tag {tag} is not read; write a plain value")
        if self.depth > DEEPEST:
            raise _Odd(line, f"more than {DEEPEST} lists or tables inside each other")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        elif isinstance(node, yaml.ScalarNode) and node.style is None and _ODD_NUMBER.fullmatch(node.value):
            raise _Odd(line, f"{node.value} is a number to some and none to others: write it in decimal digits alone, "
                             f"or as the word '{node.value}'")
        return node

    def _check_keys(self, table: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key, _ in table.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                said = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or table"
                raise _Odd(line, f"the key {said} is no word")
            if key.value == "<<" and key.style is None:
                raise _Odd(line, "<< is not read; write the settings where they belong")
            if key.value in seen:
                raise _Odd(line, f"{key.value!r} stands here and in line {seen[key.value]}; keep one")
            seen[key.value] = line


for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"), ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), list(_first))


class _Odd(Exception):
    """Something in a line that is not taken."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def read_settings(path: Path) -> Settings:
    """The table that a YAML file holds. Refused, with file, line and remedy, for whatever else it is."""
    text = _text(path)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        found = loader.construct_document(node) if node is not None else None
    except _Odd as error:
        raise Refused(f"{path}:{error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise Refused(f"{path}{where}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(found, dict):
        raise Refused(f"{path}: it holds no settings; it must set stage: pretrain or stage: finetune, and what belongs "
                      "to it, a line each")
    settings = Settings(found)
    settings.lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    return settings


def _text(path: Path) -> str:
    if not path.is_file():
        raise Refused(f"{path}: there is no such file")
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Refused(f"{path}: larger than {LARGEST:,} bytes; this is no configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        odd = f"0x{content[error.start]:02x}"
        raise Refused(f"{path}:{line}: byte {odd} is not UTF-8; save the file as UTF-8") from error
