"""TF-NAS on scikit-learn's 8x8 digits: operators, depths and widths of seven blocks, at half of the MACs.

Paper: Hu, Wu and He, TF-NAS: Rethinking Three Search Freedoms of Latency-Constrained Differentiable Neural
  Architecture Search, ECCV 2020 (method only; the paper does not use this data).
Command: slimjax train --config configs/digits_tfnas.py --workdir runs/digits_tfnas
Hardware: any.
Expected: a network of 495 k MACs, 38.0 % of the test images right with the supernet's weights, 98.6 % once trained from
  scratch. The processor's rounding decides between operators that are as good: another machine finds another network.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes

WARM_UP, SEARCH = 4, 12


def get_config() -> ConfigDict:
    config = recipes.tfnas(recipes.embedded("digits"), warmup=WARM_UP, search=SEARCH, budget="macs<=0.5")
    # Ninety updates of the structure parameters, where the paper's search has 128,000.
    config.algorithm.arch_rate = 0.05
    config.model.options.update(
        stages=((2, 12, 1, "relu"), (3, 16, 2, "swish"), (2, 24, 2, "swish")),
        operators=("k3e3", "k3e6", "k5e3", "k5e6"),
        stem=8,
        first=8,
        tail=64,
        stem_stride=1,
    )
    config.data.holdout = 300
    return config
