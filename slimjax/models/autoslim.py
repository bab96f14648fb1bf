"""AutoSlim's published networks, as subnets of the supernets that they were slimmed from.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019; the channels are
those of the released configurations, in input order, without the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from slimjax.models.imagenet_resnet import BOTTLENECK
from slimjax.models.inverted_residual import MNASNET, MOBILENET_V2, Stage
from slimjax.models.mobilenet_v1 import BLOCKS

Variants = Mapping[str, Mapping[str, int | str]]
"""Name, which is the published number of MACs, to channels by group, and options by choice."""


def parse(channels: str, groups: Sequence[str]) -> Mapping[str, int]:
    """Channels by group, from a list with one number for each of `groups`; "|" only parts it for the eye.

    Raises:
      ValueError: the list is too long or too short, or tied layers differ.
    """
    found: dict[str, int] = {}
    for group, number in zip(groups, channels.replace("|", " ").split(), strict=True):
        if found.setdefault(group, int(number)) != int(number):
            raise ValueError(f"group {group!r}: expected {found[group]} again, got {number}.")
    return MappingProxyType(found)


def _variants(lists: Mapping[str, str], groups: Sequence[str]) -> Variants:
    return MappingProxyType({name: parse(channels, groups) for name, channels in lists.items()})


def _inverted_residual_groups(stages: Sequence[Stage]) -> list[str]:
    """Stem; expanded and output width of each block (the first one does not expand); tail."""
    groups = ["stem"]
    for number, (expansion, _, blocks, *_) in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            groups += [f"stage{number}/block{block}"] * (expansion > 1) + [f"stage{number}"]
    return [*groups, "tail"]


def _bottleneck_groups(counts: Sequence[int]) -> list[str]:
    """Stem; by stage the shortcut, then the two inner widths and the output of each block."""
    groups = ["stem"]
    for number, blocks in enumerate(counts, 1):
        groups.append(f"stage{number}")
        for block in range(1, blocks + 1):
            name = f"stage{number}/block{block}"
            groups += [f"{name}/1", f"{name}/2", f"stage{number}"]
    return groups


MOBILENET_V1_VARIANTS = _variants(
    {
        "150M": "16 32 48 48 88 88 224 176 224 368 320 224 744 744",
        "325M": "16 32 48 64 112 184 320 368 320 416 464 560 1128 1128",
        "572M": "24 64 128 144 232 232 560 464 512 464 560 560 1128 1128",
    },
    ["stem", *(f"block{number}" for number in range(1, len(BLOCKS) + 1))],
)
MOBILENET_V2_VARIANTS = _variants(
    {
        "207M": "8 | 8 | 96 16 96 16 | 96 24 144 24 144 24 | 144 48 288 48 288 48 288 48 |"
        "288 64 432 64 432 64 | 648 176 720 176 720 176 | 1440 280 | 1920",
        "305M": "8 | 8 | 96 16 96 16 | 96 24 144 24 144 24 | 144 56 288 56 288 56 288 56 |"
        "288 96 432 96 432 96 | 864 240 1440 240 960 240 | 1440 480 | 1920",
        "505M": "32 | 16 | 144 24 176 24 | 192 48 240 48 144 48 | 264 88 288 88 336 88 432 88 |"
        "576 144 576 144 648 144 | 864 240 1440 240 1440 240 | 1440 480 | 1920",
    },
    _inverted_residual_groups(MOBILENET_V2),
)
MNASNET_VARIANTS = _variants(
    {
        "217M": "16 | 8 | 24 16 48 16 24 16 | 48 32 48 32 48 32 | 192 56 400 56 400 56 |"
        "400 80 432 80 | 648 192 864 192 864 192 864 192 | 1728 280 | 1280",
        "315M": "16 | 8 | 40 24 48 24 40 24 | 48 40 80 40 48 40 | 352 64 400 64 400 64 |"
        "464 80 432 80 | 792 288 864 288 864 288 1008 288 | 1728 360 | 1920",
        "532M": "16 | 8 | 64 32 56 32 72 32 | 104 64 128 64 96 64 | 384 104 528 104 464 104 |"
        "720 128 576 128 | 864 288 1584 288 1728 288 1728 288 | 1728 480 | 1920",
    },
    _inverted_residual_groups(MNASNET),
)
RESNET50_VARIANTS = _variants(
    {
        "570M": "24 | 72  8 16 72  16 16 72  8 8 72 | 240  16 24 240  16 24 240  16 16 240  16 24 240 |"
        "704  72 72 704  48 72 704  48 72 704  72 72 704  48 48 704  48 48 704 |"
        "1680  280 240 1680  120 200 1680  280 280 1680",
        "1.0G": "32 | 72  16 16 72  16 16 72  8 8 72 | 280  24 40 280  16 24 280  16 24 280  24 40 280 |"
        "880  72 72 880  72 96 880  72 72 880  72 72 880  48 72 880  168 96 880 |"
        "2016  360 280 2016  320 360 2016  480 440 2016",
        "2.0G": "40 | 120  16 16 120  24 24 120  16 24 120 | 440  48 72 440  32 48 440  40 56 440  64 72 440 |"
        "1024  168 168 1024  96 144 1024  120 168 1024  120 144 1024  120 144 1024  256 256 1024 |"
        "2016  512 512 2016  480 480 2016  512 512 2016",
        "3.0G": "48 | 192  16 16 192  56 56 192  24 40 192 |"
        "512  88 112 512  64 104 512  104 112 512  80 128 512 |"
        "1024  240 216 1024  144 216 1024  192 192 1024  144 240 1024  240 256 1024  256 256 1024 |"
        "2016  512 512 2016  480 512 2016  512 512 2016",
    },
    _bottleneck_groups(BOTTLENECK[50]),
)
