"""The papers' training recipes, from which config files start.

Each returns a complete config: `default_config` with the fields changed that the paper, or the data, fixes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from slimjax import models
from slimjax.errors import UserError
from slimjax.experiment.config import default_config


def algorithm(name: str, **options: Any) -> ConfigDict:
    """The algorithm's section. Options that are not given are those of its function (see `config.complete`)."""
    return ConfigDict({"name": name, **options})


def embedded(name: str) -> ConfigDict:
    """Small real images that ship inside a package (`digits`, `mnist5k`): minutes on two CPU cores."""
    config = default_config()
    config.data.name = name
    config.data.augment = "shift"
    config.model.name = "resnet8"
    config.train.batch_size = 64
    config.optimizer.learning_rate = 0.1
    return config


def cifar(model: str = "resnet20", classes: int = 10) -> ConfigDict:
    """CIFAR-10 or -100. No S-Net or US-Net recipe is published for them: this is Joslim's, which has one.

    Paper: batch 128, rate 0.05, linear decay per iteration after 5 warm-up epochs, 200 epochs, weight decay
    5e-4, no Nesterov, label smoothing 0.1, 4 pixels of padding, random crop and flip; what does not fill
    a batch at an epoch's end is dropped. Networks that are made for
    224 pixels take the strides of small images.
    Differs: images are normalised by the data set's own statistics (`data.statistics="imagenet"` is theirs),
    and calibrated with 5,120 images, where they take the whole training set.
    """
    config = default_config()
    config.data.update(name=f"cifar{classes}", augment="cifar", drop_remainder=True)
    config.model.name = model
    if "small_images" in models.lookup(model).defaults:
        config.model.options.small_images = True
    config.train.update(
        batch_size=128, epochs=200.0, label_smoothing=0.1, log_every=100, checkpoint_every=2000
    )
    config.optimizer.update(
        learning_rate=0.05,
        schedule="linear",
        warmup_epochs=5.0,
        nesterov=False,
        weight_decay=5e-4,
        decay_depthwise=True,
    )
    config.calibration.update(images=5120, batch_size=1024)
    config.evaluation.batch_size = 1024
    return config


def cifar_joslim(model: str = "resnet20", classes: int = 10) -> ConfigDict:
    """Joslim on CIFAR: `cifar`, rounds of 156 steps (the released 235 are for 300 epochs), widths of 0.42 to 1.

    Differs: 5,000 training images are held out to score the history; the released code scores it on the test
    set. The stem is 3x3, as in the paper; the refactored code's is 1x1.
    """
    config = cifar(model, classes)
    config.algorithm = algorithm("joslim", steps_per_round=156)
    config.model.min_width = 0.42
    config.data.holdout = 5000
    return config


def bignas_schedule(config: ConfigDict) -> None:
    """Sets BigNAS's decay of the rate: times 0.97 after each 2.4 epochs, but never below 0.05 of what it began with.

    Paper: section 3.1 (exponential decay with a constant ending, at 5 %).
    Differs: base rate, batch, optimiser (SGD; theirs is RMSProp) and warm-up stay the recipe's, to compare it with the
    other systems.
    """
    config.optimizer.update(schedule="exponential", factor=0.97, decay_epochs=2.4, final_fraction=0.05)


RETRAINING: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "own": {},
        "mobilenets": {
            "train": {"batch_size": 2048, "epochs": 300.0},
            "optimizer": {"learning_rate": 0.5, "schedule": "linear"},
        },
        "resnet50": {
            "train": {"batch_size": 256, "epochs": 100.0},
            "optimizer": {
                "learning_rate": 0.1,
                "schedule": "multistep",
                "factor": 0.1,
                "milestones": (30.0, 60.0, 90.0),
            },
        },
        "tfnas": {
            "data": {"augment": "tfnas"},
            "model": {"options": {"drop_connect": 0.2}},
            "train": {"batch_size": 512, "epochs": 250.0, "smoothing_form": "all"},
            "optimizer": {
                "learning_rate": 0.2,
                "schedule": "cosine",
                "warmup_epochs": 5.0,
                "nesterov": False,
                "weight_decay": 1e-5,
                "decay_all": True,
                "clip_norm": 5.0,
            },
            "algorithm": {"dropout": 0.2},
        },
    }
)
"""Settings to retrain with: the run's own, those that AutoSlim publishes for ImageNet, and TF-NAS's."""


def retrain(run: str, architectures: Sequence[str], settings: str = "own") -> ConfigDict:
    """The config of a finished run, for training architectures from scratch as one S-Net, with label smoothing of
    epsilon / (K - 1) on the other classes.

    Gammas and betas are trained, whatever the supernet had.

    Paper: AutoSlim, section 3.4. On ImageNet: rate 0.5, linear to 0 per iteration, 300 epochs of batches of 2048
    (MobileNets and MNasNet); rate 0.1, times 0.1 after 30, 60 and 90 of 100 epochs of batches of 256 (ResNet-50);
    label smoothing 0.1, weight decay 1e-4, SGD 0.9 with Nesterov and the crops of `imagenet`.
    TF-NAS, section 4.1: rate 0.2, cosine after 5 epochs of warm-up, 250 epochs of batches of 512, weight decay 1e-5 on
    everything, label smoothing over all classes, dropout and drop-connect of 0.2.
    Differs: with "own" the run's settings stay, its held-out images too, so that both can be compared.

    Args:
      run: path of the config that the run wrote down.
      architectures: files that `slimjax search` wrote.
      settings: of `RETRAINING`. The published ones hold no images out: nothing is searched any more.
    """
    if settings not in RETRAINING:
        raise UserError(f"settings: expected one of {', '.join(RETRAINING)}, got {settings!r}.")
    config = default_config()
    config.update(ConfigDict(json.loads(epath.Path(run).read_text())))
    if settings != "own":
        published = imagenet()
        config.data.update(augment=published.data.augment, holdout=0)
        config.train.update(steps=None, label_smoothing=0.1)
        config.optimizer = published.optimizer
    config.train.smoothing_form = "others"
    wanted = {key: dict(value) for key, value in RETRAINING[settings].items()}
    options = wanted.pop("algorithm", {})
    config.update(wanted)
    config.algorithm = algorithm("snet", widths=(), architectures=tuple(architectures), **options)
    config.batch_norm.affine = True
    config.evaluation.widths = ()
    return config


def retraining(config: ConfigDict) -> str:
    """Which of `RETRAINING` suits the subnets of a run: the published ones if it was trained on the data that they are
    for, ImageNet, and in TF-NAS's search on 100 classes of it."""
    if config.model.name == "tfnas" and config.data.name.startswith("imagenet"):
        return "tfnas"
    if config.data.name != "imagenet2012":
        return "own"
    return "resnet50" if "resnet" in config.model.name else "mobilenets"


def imagenet() -> ConfigDict:
    """What the slimmable networks' papers share: SGD 0.9 with Nesterov, weight decay 1e-4, no label smoothing;
    crops of 0.25 to 1 of the image (their MobileNets).

    Differs: bfloat16 convolutions (`model.dtype="float32"` is theirs).
    """
    config = default_config()
    config.data.update(name="imagenet2012", image_size=224, augment="mobile")
    config.model.dtype = "bfloat16"
    config.train.update(log_every=100, checkpoint_every=2500)
    config.optimizer.update(nesterov=True, weight_decay=1e-4)
    config.calibration.update(images=5120, batch_size=1024)
    config.evaluation.batch_size = 1024
    return config


def imagenet_resnet(model: str) -> ConfigDict:
    """ResNets on ImageNet, for systems whose papers publish no settings: batches of 256, rate 0.1, linear to 0, crops
    of 0.08 to 1 of the image, and no warm-up, so that every phase of a run has a rate from its first update.
    """
    config = imagenet()
    config.model.name = model
    config.data.augment = "basic"
    config.train.batch_size = 256
    config.optimizer.update(learning_rate=0.1, schedule="linear", warmup_epochs=0.0)
    return config


def tfnas(config: ConfigDict, *, warmup: int, search: int, budget: str, arch_every: int = 2) -> ConfigDict:
    """The recipe of some data, with TF-NAS's network, algorithm and optimiser: norms without gammas and betas, SGD
    without Nesterov, weight decay 1e-5 on everything, a cosine, gradients clipped at a norm of 5.

    Args:
      warmup, search, budget, arch_every: of the algorithm, which has the length of the run from them.
    """
    config.model.name = "tfnas"
    config.algorithm = algorithm("tfnas", budget=budget, warmup=warmup, search=search, arch_every=arch_every)
    config.batch_norm.affine = False
    config.train.epochs = warmup + search * (1 + 1 / arch_every)
    config.optimizer.update(
        schedule="cosine", warmup_epochs=0.0, nesterov=False, weight_decay=1e-5, decay_all=True, clip_norm=5.0
    )
    return config


def imagenet100_tfnas() -> ConfigDict:
    """TF-NAS's search on ImageNet-100: rate 0.025, batches of 32, 10 epochs of warm-up and 80 of search, with an
    architecture step on held-out images after every second one of the weights.

    Paper: section 4.1. A fifth of the images, 25,550, is held out.
    Differs: they are drawn at random, where the authors take a fifth of each class; the 100 classes are what the lists
    say.
    """
    config = imagenet()
    config.data.update(name="imagenet100", augment="tfnas", holdout=25_550)
    config = tfnas(config, warmup=10, search=80, budget="macs<=457e6")
    config.optimizer.learning_rate = 0.025
    config.train.batch_size = 32
    return config


def imagenet_tfnas() -> ConfigDict:
    """A published network of TF-NAS, trained on ImageNet with its settings (`RETRAINING`)."""
    config = imagenet()
    config.model.name = "tfnas"
    settings = {key: dict(value) for key, value in RETRAINING["tfnas"].items()}
    config.algorithm = algorithm("snet", widths=(), variants=("A",), **settings.pop("algorithm"))
    config.update(settings)
    config.train.label_smoothing = 0.1
    return config


def imagenet_snet() -> ConfigDict:
    """S-MobileNets on ImageNet: rate 0.045, times 0.98 after each of 480 epochs of batches of 160."""
    config = imagenet()
    config.algorithm = algorithm("snet")
    config.train.update(batch_size=160, epochs=480.0)
    config.optimizer.update(learning_rate=0.045, schedule="exponential", factor=0.98)
    return config


def imagenet_usnet() -> ConfigDict:
    """US-MobileNets on ImageNet: rate 0.5, linear to 0 per iteration, 250 epochs of batches of 1024."""
    config = imagenet()
    config.algorithm = algorithm("usnet")
    config.train.update(batch_size=1024, epochs=250.0)
    config.optimizer.update(learning_rate=0.5, schedule="linear", warmup_epochs=0.0)
    return config


def at_batch(config: ConfigDict, size: int) -> ConfigDict:
    """A recipe in batches of another size: the rate follows the batch, and rises for five epochs at least.

    Paper: Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017, sections 2.1 and 2.2.
    """
    config.optimizer.learning_rate *= size / config.train.batch_size
    config.optimizer.warmup_epochs = max(5.0, config.optimizer.warmup_epochs)
    config.train.batch_size = size
    return config


def imagenet_autoslim() -> ConfigDict:
    """The supernets that AutoSlim slims: trained as US-Nets for 50 epochs, on all but 50,000 images.

    Differs: the range of widths is that of the model's width space; the paper's is not known. Nor is the size of its
    one large batch that decides: here it is 8,192 of the images held out, as in the reproduction in MMRazor.
    """
    config = imagenet_usnet()
    config.data.holdout = 50_000
    config.scoring.images = 8192
    config.train.epochs = 50.0
    return config


_RESNET: Mapping[str, Any] = MappingProxyType({"train": {"epochs": 100.0}})
_MOBILENET_V3: Mapping[str, Any] = MappingProxyType(
    {"train": {"epochs": 250.0}, "data": {"augment": "basic"}, "model": {"convention": "joslim"}}
)
JOSLIM_ON_IMAGENET: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "us_mobilenet_v2": {
            "train": {"epochs": 250.0},
            "model": {"min_width": 0.42, "rounding": "truncate", "convention": "joslim"},
        },
        "mobilenet_v3_large": _MOBILENET_V3,
        "mobilenet_v3_small": _MOBILENET_V3,
        "ofa_mobilenet_v3": {
            "train": {"epochs": 250.0},
            "data": {"augment": "basic"},
            "model": {"resolutions": (128, 160, 192, 224)},
            "evaluation": {"widths": (0.5, 0.75, 1.0)},  # all options that are first, in the middle, and last
        },
        "resnet18": _RESNET,
        "resnet50": _RESNET,
    }
)
"""What of Joslim's settings differs between networks; the "basic" crops are of 0.08 to 1 of the image."""


def imagenet_joslim(model: str) -> ConfigDict:
    """Joslim's ImageNet settings, with US-Net's section for the algorithm: rate 0.5, linear to 0 per iteration after
    5 warm-up epochs, batches of 1024, weight decay 4e-5 on depthwise kernels too, no Nesterov, label smoothing 0.1.
    An epoch's remainder is dropped. Convolutions alone count as MACs.

    Differs: gammas do not decay (in Joslim's code most do, by their names); calibration takes 5,120 images, not
    2,048; 10,000 training images are held out to score histories, for US-Nets too, so that they can be compared.
    MobileNet V3 Small, ResNet-50 and Once-for-All's network, which the paper has not, are trained as Large and
    ResNet-18 are.
    The released code's networks are not the papers', and their slips are not copied: classifiers ignore their bias;
    MobileNet V2 has no activation after stem and tail, a dropout of .5 and kernels initialised by fan-in; V3's
    depthwise kernels are all 3x3, its activations ReLU6 where the paper has ReLU, its squeeze-excites stand before the
    activation and have a quarter of the channels, rounded down; the CIFAR stem is 1x1.

    Args:
      model: of `JOSLIM_ON_IMAGENET`.
    """
    config = imagenet_usnet()
    config.train.label_smoothing = 0.1
    config.optimizer.update(warmup_epochs=5.0, nesterov=False, weight_decay=4e-5, decay_depthwise=True)
    config.data.update(holdout=10_000, drop_remainder=True)
    config.scoring.images = 1024
    config.model.name = model
    config.update(JOSLIM_ON_IMAGENET[model])
    return config
