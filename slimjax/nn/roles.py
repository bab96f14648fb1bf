"""What a network consists of, found in its records: its space, and parts by the role that they play in it."""

from __future__ import annotations

from collections.abc import Iterator

from slimjax.nn.choices import Choice, Under
from slimjax.nn.space import Space
from slimjax.nn.trace import LayerRecord, Records
from slimjax.nn.widths import Group, Rounding


def space(
    records: Records,
    rounding: Rounding,
    min_width: float,
    max_width: float = 1.0,
    resolution: Choice | None = None,
) -> Space:
    """The space of all subnets of a traced network: its slimmable groups, then its choices, as they first appear, then
    the images' resolution, if that is one."""
    groups = dict.fromkeys(group.base for record in records for group in (record.in_group, record.out_group))
    choices = dict.fromkeys(choice for choice, _ in _choices(records))
    under: dict[str, set[Under]] = {}
    for record in records:
        for group in (record.in_group, record.out_group):
            under.setdefault(group.name, set()).add(record.under)
    for choice, above in _choices(records):
        under.setdefault(choice.name, set()).add(above)
    there = {group.name for group in groups if not group.fixed} | {choice.name for choice in choices}
    sometimes = {name: tuple(sorted(found, key=repr)) for name, found in under.items() if () not in found}
    sometimes = {name: found for name, found in sometimes.items() if name in there}
    everything = (*choices, *([] if resolution is None else [resolution]))
    return Space(tuple(groups), rounding, min_width, max_width, everything, sometimes)


def _choices(records: Records) -> Iterator[tuple[Choice, Under]]:
    """The choices that layers depend on, each with the conditions under which it is there."""
    for record in records:
        for depth, (choice, _) in enumerate(record.under):
            yield choice, record.under[:depth]
        for choice in record.choices:
            if choice not in (above for above, _ in record.under):
                yield choice, record.under


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
