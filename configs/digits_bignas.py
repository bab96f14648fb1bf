r"""BigNAS on scikit-learn's 8x8 digits: random widths of each group, searched afterwards, in minutes.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (channels only, no kernels, depths or resolutions; the other settings are those of digits_joslim.py).
Command: slimjax train --config configs/digits_bignas.py --workdir runs/digits_bignas
With Joslim's settings, as its TwoStage baseline: add --config.algorithm.dropout=0
The paper's beginning and schedule are for long runs. In these 37 epochs branches that begin at zero cost 5 to 12 points
  of top-1 (docs/fidelity.md), so both are left to configs/cifar_bignas.py.
Then: slimjax search --workdir runs/digits_bignas --budget 'macs<=0.25' 'macs<=0.5' 'macs<=0.75'
Hardware: any; a few minutes on two CPU cores.
Expected: one run on two CPU cores gave top-1 92.4, 94.0, 94.4 and 95.8 % at 22, 31, 69 and 100 % of the MACs.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("bignas", zero_last_gammas=False)
    config.data.holdout = 200
    config.model.min_width = 0.42
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"
    config.train.steps = 800
    return config
