"""Hook of mkdocs: the site's files are the repository's pages, where they are, and pages made from the code.

A page keeps its path from the repository's root, so a link that works on GitHub works here.
"""

import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gates import catalogue
from gates.cli import COMMANDS, parser
from gates.decision.policy_file import schema

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")
WORDS = {"object": "mapping", "integer": "whole number", "array": "list"}
"""What a reader of YAML calls the types of JSON Schema."""
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")
"""A link to a file of the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, the repository's pages with what they link to, and what is made here."""
    for file in files.documentation_pages() + files.media_files():
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in sorted(linked()):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for name, text in {"commands": commands(), "policy": policy(), "checks": checks()}.items():
        files.append(File.generated(config, f"docs/reference/{name}.md", content=text))
    return files


def linked() -> set[Path]:
    """The first pages, and every file that a page of the site links to."""
    firsts = [ROOT / name for name in FIRST]
    waiting = [path for first in firsts for path in (first.rglob("*.*") if first.is_dir() else [first])]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file() or not path.is_relative_to(ROOT):
            continue
        found.add(path)
        if path.suffix == ".md":
            targets = LINK.findall(path.read_text(encoding="utf-8"))
            waiting += [(path.parent / target).resolve() for target in targets]
    return found


def commands() -> str:
    """Every command with its help, by what a user wants."""
    lines = ["# Commands", ""]
    (choices,) = (action.choices for action in parser(*COMMANDS)._actions if action.choices)  # noqa: SLF001  -- no other way
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += [f"## {group[0].upper()}{group[1:]}", ""]
        for name in (name for name, command in COMMANDS.items() if command.group == group):
            lines += [f"### gate {name}", "", "```text", choices[name].format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def policy() -> str:
    """Every setting of gate.yaml, from its schema."""
    lines = ["# gate.yaml", ""]
    for name, node in json.loads(schema())["properties"].items():
        lines += [f"## {name}", "", f"{_cell(node.get('description', ''))} ({_allowed(node)})", ""]
        if rows := list(_settings(node, "")):
            lines += ["| setting | allowed | means |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _settings(node: dict[str, Any], place: str) -> Iterator[str]:
    patterns = [("*", inner) for inner in node.get("patternProperties", {}).values()]
    for name, inner in [*node.get("properties", {}).items(), *patterns]:
        path = f"{place}.{name}".lstrip(".")
        yield f"| `{path}` | {_allowed(inner)} | {_cell(inner.get('description', ''))} |"
        yield from _settings(inner, path)
    if "items" in node:
        yield from _settings(node["items"], f"{place}[]")


def _allowed(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{_cell(json.dumps(one))}`" for one in node["enum"])
    if "items" in node:
        return f"a list; of each: {_allowed(node['items'])}"
    bounds = [f"{node[name]:g}" for name in ("minimum", "maximum") if name in node]
    given = node.get("type", "object")
    kinds = given if isinstance(given, list) else [given]
    kind = " or ".join(WORDS.get(one, one) for one in kinds)
    return f"{kind} {' to '.join(bounds)}".strip()


def checks() -> str:
    """Every check of the catalogue with its claim, by promise."""
    lines = ["# Checks", "", "`gate explain ID` has the whole of each.", ""]
    specs = sorted(catalogue.load(), key=lambda spec: spec.id)
    for promise, listed in groupby(specs, key=lambda spec: spec.id.rpartition("/")[0]):
        lines += [f"## {promise}", "", "| check | claim | a failure |", "|---|---|---|"]
        lines += [f"| `{s.id.rpartition('/')[2]}` | {_cell(s.claim)} | {s.severity.value} |" for s in listed]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
