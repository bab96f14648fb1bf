"""Shows sections of docstrings that the Google style does not know. Loaded by mkdocs.yml.

- `Paper:`, `Differs:` and `Reduces to:`, whose text follows on the same line, become paragraphs with a bold beginning,
  of which `Differs:` leads to the page of all differences;
- `Any other words:` above indented `name: text` entries become a bold line above a list.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Paper|Differs|Reduces to):")
DIFFERS = "**[Differs](../fidelity.html):**"
"""Seen from the pages of the API, where docstrings are shown."""

GOOGLE = re.compile(r"^(Args|Attributes|Examples?|Notes?|Raises( \(.*\))?|Returns|Warns|Yields):$")
LIST = re.compile(r"^([A-Z].*):$")
ENTRY = re.compile(r"^ +(\w+): ")


class Sections(griffe.Extension):
    """Rewrites docstrings before they are parsed; a name is shown in the module that defines it, and at the top."""

    def on_module(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        if "." in mod.path:
            mod.exports = None

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)


def readable(docstring: str) -> str:
    """The docstring with these sections in Markdown; lines that were indented below a paragraph join it."""
    lines, given, inside = [], docstring.splitlines(), ""
    for line, after in zip(given, [*given[1:], ""], strict=True):
        if SECTION.match(line):
            lines += ["", SECTION.sub(r"**\1:**", line).replace("**Differs:**", DIFFERS)]
            inside = "paragraph"
        elif LIST.match(line) and not GOOGLE.match(line) and ENTRY.match(after):
            lines += ["", LIST.sub(r"**\1:**", line), ""]
            inside = "list"
        elif inside == "list" and ENTRY.match(line):
            lines.append(ENTRY.sub(r"- `\1`: ", line))
        elif inside and line.startswith("  "):
            lines.append(line.lstrip() if inside == "paragraph" else line)
        else:
            inside = ""
            lines.append(line)
    return "\n".join(lines)
