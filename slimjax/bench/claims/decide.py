"""`slimjax bench claims`: which of the papers' claims hold on a task that two CPU cores can train.

Each claim compares arms (`bench.arms`) over seeds and says whether it holds beyond doubt (95 %, paired by
seed), is refuted beyond doubt, or is unclear at this scale. Numbers are those of the reference list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slimjax.bench.claims import arms
from slimjax.bench.claims.architecture import TFNAS
from slimjax.bench.claims.outcome import Claim, Measured
from slimjax.bench.claims.pruning import JST, WPC
from slimjax.bench.claims.search import AUTOSLIM, BIGNAS, JOSLIM
from slimjax.bench.claims.training import SNET, USNET
from slimjax.checks import check, integer, one_of

GROUPS: Mapping[str, Sequence[Claim]] = MappingProxyType(
    {
        "snet": SNET,
        "usnet": USNET,
        "autoslim": AUTOSLIM,
        "bignas": BIGNAS,
        "joslim": JOSLIM,
        "wpc": WPC,
        "jst": JST,
        "tfnas": TFNAS,
    }
)


def run(groups: Sequence[str], seeds: int, directory: str) -> list[dict[str, Any]]:
    """Trains what is missing, then decides the claims of the given groups.

    Args:
      groups: of `GROUPS`.
      seeds: networks per arm; from 3 on a verdict can be reached.
      directory: measurements are kept in its claims.jsonl, and a later call goes on from them.
    """
    for group in groups:
        check("groups", group, one_of(*GROUPS))
    check("seeds", seeds, integer(1))
    claims = sorted((claim for group in groups for claim in GROUPS[group]), key=lambda c: c.number)
    needed = dict.fromkeys(name for claim in claims for name in claim.arms)
    measured = arms.run(tuple(needed), seeds, Path(directory) / "claims.jsonl")
    return [_decide(claim, measured, seeds) for claim in claims]


def format_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One block of lines per claim."""
    blocks = []
    for result in results:
        head = f"{result['number']:>3}  {_WORDS[result['holds']]:<8} {result['text']}"
        compared = [
            f"       {arm['arm']:<36} {arm['mean']:.4g} +- {arm['spread'] or 0:.2g}" for arm in result["arms"]
        ]
        blocks.append("\n".join([head, f"       {result['metric']}", *compared]))
    return "\n".join(blocks)


_WORDS: Mapping[Any, str] = MappingProxyType({True: "holds", False: "refuted", "unclear": "unclear"})


def _decide(claim: Claim, measured: Measured, seeds: int) -> dict[str, Any]:
    outcome = claim.decide(measured)
    return {
        "number": claim.number,
        "text": claim.text,
        "metric": outcome.metric,
        "arms": outcome.compared,
        "seeds": seeds,
        "holds": outcome.holds,
    }
