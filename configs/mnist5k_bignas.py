r"""BigNAS on 5,000 MNIST images: a small Once-for-All space of kernels, expansions, depths and resolutions.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020; its space is
  that of Cai et al., Once-for-All, ICLR 2020, for images of 28 pixels.
Command: slimjax train --config configs/mnist5k_bignas.py --workdir runs/mnist5k_bignas
Then: slimjax search --workdir runs/mnist5k_bignas --method evolution --budget 'macs<=0.2' 'macs<=0.4'
Hardware: any; minutes on two CPU cores.
Expected: 98.0 % of the test images right at full size (1.74 M MACs); with the found subnets 96.6 % at 327 k MACs and
  97.0 % at 598 k.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("mnist5k")
    config.algorithm = recipes.algorithm("bignas", zero_last_gammas=False)
    config.data.holdout = 500
    config.model.name = "ofa_mobilenet_v3"
    config.model.resolutions = (20, 24, 28)
    config.model.options.update(
        stages=((16, 2, False, False), (24, 2, True, True)),
        depths=(1, 2, 3),
        stem=8,
        tail=96,
        head=96,
    )
    config.engine.max_programs = 7
    config.evaluation.widths = (0.5, 0.75, 1.0)
    config.train.steps = 800
    return config
