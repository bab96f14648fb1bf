r"""BigNAS on scikit-learn's 8x8 digits: random widths of each group, searched afterwards, in minutes.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (channels only, no kernels, depths or resolutions; the other settings are those of digits_joslim.py).
Command: slimjax train --config configs/digits_bignas.py --workdir runs/digits_bignas
With Joslim's settings, as its TwoStage baseline: add --config.optimizer.schedule=linear \
  --config.optimizer.factor=0.98 --config.optimizer.decay_epochs=1 --config.optimizer.final_fraction=0 \
  --config.algorithm.dropout=0 --config.algorithm.zero_last_gammas=false
Then: slimjax search --workdir runs/digits_bignas --budget 'macs<=0.25' 'macs<=0.5' 'macs<=0.75'
Hardware: any; a few minutes on two CPU cores.
Expected: one run on two CPU cores gave top-1 92.0, 93.4, 95.2 and 95.4 % at 20, 44, 74 and 100 % of the MACs.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("bignas")
    recipes.bignas_schedule(config)
    config.data.holdout = 200
    config.model.min_width = 0.42
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"
    config.train.steps = 800
    return config
