"""Shows the sections `Paper:`, `Differs:` and `Reduces to:` of docstrings as paragraphs with a bold beginning.

The Google style knows nothing of them, and their text follows on the same line. Loaded by mkdocs.yml.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(?P<indent> *)(?P<name>Paper|Differs|Reduces to):", re.MULTILINE)


class Sections(griffe.Extension):
    """Rewrites docstrings before they are parsed; a name is shown in the module that defines it, and at the top."""

    def on_module(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        if "." in mod.path:
            mod.exports = None

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)


def readable(docstring: str) -> str:
    """Each section a paragraph of its own; lines that were indented below it join it."""
    lines: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if SECTION.match(line):
            lines += ["", SECTION.sub(r"**\g<name>:**", line)]
            inside = True
        elif inside and line.startswith("  "):
            lines.append(line.lstrip())
        else:
            inside = False
            lines.append(line)
    return "\n".join(lines)
