"""Parts of a network by the role that they play in it, found in its records."""

from __future__ import annotations

from slimjax.nn.trace import LayerRecord, Records
from slimjax.nn.widths import Group


def residual_streams(records: Records) -> tuple[Group, ...]:
    """The groups that shortcuts are added in, in the order of the network."""
    return tuple(dict.fromkeys(op.group for op in records.ops if op.name == "add"))


def fixed_norms(records: Records) -> tuple[tuple[str, ...], ...]:
    """Paths of the norms whose channels are never narrowed: every switch of a network has all of them."""
    return tuple(record.path for record in records if _is_norm(record) and record.in_group.fixed)


def last_norms(records: Records) -> tuple[tuple[str, ...], ...]:
    """Paths of the norms that end a residual branch. Of two norms that are added, a shortcut's has less before it."""
    depth: list[int] = []
    found = []
    for op in records.ops:
        depth.append(1 + max((depth[i] for i in op.inputs), default=0))
        if op.name != "add":
            continue
        layers = [(depth[i], records.ops[i].layer) for i in op.inputs]
        norms = [(d, layer.path) for d, layer in layers if layer is not None and _is_norm(layer)]
        found += [path for d, path in norms if d == max(norms)[0]]
    return tuple(found)


def _is_norm(record: LayerRecord) -> bool:
    return any(array.collection == "affine" for array in record.arrays)
