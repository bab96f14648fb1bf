"""README and the docs as tests read them: their commands, snippets, links and the files that they name."""

import dataclasses
import re
import shlex
from pathlib import Path

from helpers.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def title(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def snippets(page: Path) -> list[str]:
    """The blocks of Python code."""
    return [code for language, code in FENCED.findall(page.read_text()) if language == "python"]


def prose(page: Path) -> str:
    """What is outside of blocks of code."""
    return re.sub(r"^    .*$", "", FENCED.sub("", page.read_text()), flags=re.MULTILINE)


def spans(page: Path) -> list[str]:
    """What stands between single back-ticks outside of blocks of code."""
    return SPAN.findall(prose(page))


def commands(page: Path) -> list[list[str]]:
    """The words of every `slimjax ...` in indented blocks, without what stands before it."""
    lines = re.findall(r"^    (.*)$", FENCED.sub("", page.read_text()).replace("\\\n", ""), re.MULTILINE)
    found = [re.search(r"(?:^|\s)(slimjax .*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def mentions(page: Path) -> list[list[str]]:
    """The words of every `slimjax ...` between back-ticks: often only a verb, and the option that is spoken of."""
    return [shlex.split(span) for span in spans(page) if span.startswith("slimjax ")]


@dataclasses.dataclass(frozen=True)
class Link:
    """Of a page to another place of the repository."""

    page: Path
    target: str

    @property
    def path(self) -> Path:
        name = self.target.partition("#")[0]
        return (self.page.parent / name).resolve() if name else self.page

    @property
    def anchor(self) -> str:
        return self.target.partition("#")[2]


def links(page: Path) -> list[Link]:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [Link(page, target) for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Of the headings, as the site names them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()) for text in headings}
