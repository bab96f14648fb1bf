"""The house in figures: rooms, floors, imports and lengths, read off the source.

`python tests/helpers/house.py [PACKAGE]` prints them for a checkout of any version.
"""

import ast
import graphlib
import statistics
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent.parent / "slimjax"
FACE = "slimjax"
"""The public face stands outside of all rooms: it only says where names are."""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module by its dotted name, but for the public face."""
    found = {dotted(path, package): path for path in sorted(package.rglob("*.py"))}
    return {name: path for name, path in found.items() if name != FACE}


def dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, also inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The modules of the package that each of them imports. A package that is only named on the way is none."""
    known = modules(package)
    result = {}
    for name, path in known.items():
        found = imports(path) & set(known)
        on_the_way = {module for module in found if any(other.startswith(module + ".") for other in found)}
        result[name] = found - on_the_way - {name}
    return result


def room(module: str) -> str:
    """A folder of the package, or a file beside the folders."""
    return module.split(".")[1]


def between_rooms(imported: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same, between rooms."""
    result: dict[str, set[str]] = {room(module): set() for module in imported}
    for module, others in imported.items():
        result[room(module)] |= {room(other) for other in others} - {room(module)}
    return result


def circle(imported: dict[str, set[str]]) -> list[str]:
    """One circle of imports; empty: there is none."""
    try:
        graphlib.TopologicalSorter(imported).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def floors(imported: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room, from 1: one above the highest that it imports. Circles count as one room's."""
    result: dict[str, int] = dict.fromkeys(imported, 1)
    for _ in imported:  # the longest way has no more steps than there are rooms
        for name, others in imported.items():
            result[name] = max(
                [result[name], *(result[other] + 1 for other in others if name not in imported[other])]
            )
    return result


def functions(package: Path = PACKAGE) -> dict[str, int]:
    """Lines of each function, by where it is."""
    return {
        f"{module}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, path in modules(package).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def figures(package: Path) -> dict[str, object]:
    """What is printed."""
    imported, lengths = arrows(package), sorted(functions(package).values())
    rooms = between_rooms(imported)
    return {
        "modules": len(imported),
        "rooms": len(rooms),
        "floors": max(floors(rooms).values()),
        "arrows between rooms": sum(map(len, rooms.values())),
        "a circle": " > ".join(circle(imported)) or "none",
        "functions": len(lengths),
        "median lines of a function": statistics.median(lengths),
        "p90 lines of a function": lengths[int(0.9 * len(lengths))],
        "functions over 60 lines": ", ".join(n for n, lines in functions(package).items() if lines > 60)
        or "none",
        "lines of the longest file": max(
            len(path.read_text().splitlines()) for path in modules(package).values()
        ),
        "lines of README": len((package.parent / "README.md").read_text().splitlines()),
    }


if __name__ == "__main__":
    for what, figure in figures(Path(sys.argv[1]).resolve() if sys.argv[1:] else PACKAGE).items():
        print(f"{what:>27}  {figure}")
