"""Costs of the published networks, to the digit: tables computed from the authors' code, or by arithmetic."""

import functools

import numpy as np
import pytest

from slimjax import costs, models
from slimjax.build import make_supernet
from slimjax.supernet import Supernet

# (network, its options, width, MACs, parameters of convolutions and dense layers, gammas and betas)
PUBLISHED = [
    ("us_mobilenet_v1", {}, 1.0, 568_790_528, 4_210_088, 21_888),
    ("us_mobilenet_v1", {}, 0.95, 517_602_600, 3_867_576, 20_832),
    ("us_mobilenet_v1", {}, 0.9, 466_231_840, 3_520_008, 19_760),
    ("us_mobilenet_v1", {}, 0.875, 443_300_928, 3_340_928, 19_168),
    ("us_mobilenet_v1", {}, 0.825, 389_353_320, 3_035_120, 18_080),
    ("us_mobilenet_v1", {}, 0.8, 366_302_296, 2_851_112, 17_472),
    ("us_mobilenet_v1", {}, 0.75, 325_438_080, 2_569_144, 16_416),
    ("us_mobilenet_v1", {}, 0.725, 306_439_712, 2_416_560, 15_824),
    ("us_mobilenet_v1", {}, 0.675, 267_255_448, 2_140_672, 14_752),
    ("us_mobilenet_v1", {}, 0.65, 249_422_496, 2_031_960, 14_288),
    ("us_mobilenet_v1", {}, 0.6, 217_051_744, 1_765_192, 13_104),
    ("us_mobilenet_v1", {}, 0.575, 201_094_120, 1_665_952, 12_640),
    ("us_mobilenet_v1", {}, 0.525, 162_894_560, 1_434_832, 11_536),
    ("us_mobilenet_v1", {}, 0.5, 149_522_176, 1_320_648, 10_944),
    ("us_mobilenet_v1", {}, 0.45, 124_225_064, 1_127_896, 9_888),
    ("us_mobilenet_v1", {}, 0.425, 114_545_944, 1_014_104, 9_312),
    ("us_mobilenet_v1", {}, 0.375, 89_863_488, 843_808, 8_224),
    ("us_mobilenet_v1", {}, 0.35, 80_423_648, 756_120, 7_632),
    ("us_mobilenet_v1", {}, 0.3, 64_069_464, 597_744, 6_592),
    ("us_mobilenet_v1", {}, 0.25, 41_042_816, 464_600, 5_472),
    ("us_mobilenet_v2", {}, 1.0, 300_836_992, 3_470_760, 34_112),
    ("us_mobilenet_v2", {}, 0.975, 299_958_912, 3_452_840, 34_096),
    ("us_mobilenet_v2", {}, 0.95, 284_601_920, 3_283_720, 32_832),
    ("us_mobilenet_v2", {}, 0.9, 269_084_208, 3_110_456, 31_344),
    ("us_mobilenet_v2", {}, 0.875, 268_243_760, 3_093_304, 31_328),
    ("us_mobilenet_v2", {}, 0.825, 235_491_376, 2_903_784, 29_392),
    ("us_mobilenet_v2", {}, 0.8, 222_545_184, 2_764_568, 27_920),
    ("us_mobilenet_v2", {}, 0.75, 209_132_512, 2_609_784, 26_640),
    ("us_mobilenet_v2", {}, 0.725, 185_280_096, 2_585_240, 26_208),
    ("us_mobilenet_v2", {}, 0.675, 165_978_016, 2_405_304, 24_096),
    ("us_mobilenet_v2", {}, 0.65, 161_969_424, 2_323_496, 23_456),
    ("us_mobilenet_v2", {}, 0.6, 151_021_648, 2_194_824, 22_176),
    ("us_mobilenet_v2", {}, 0.575, 150_294_096, 2_179_976, 22_160),
    ("us_mobilenet_v2", {}, 0.525, 100_431_696, 2_016_200, 19_184),
    ("us_mobilenet_v2", {}, 0.5, 97_194_560, 1_950_136, 18_544),
    ("us_mobilenet_v2", {}, 0.45, 88_711_680, 1_847_576, 17_264),
    ("us_mobilenet_v2", {}, 0.425, 88_040_576, 1_833_880, 17_248),
    ("us_mobilenet_v2", {}, 0.375, 80_105_712, 1_741_640, 15_760),
    ("us_mobilenet_v2", {}, 0.35, 59_348_528, 1_663_048, 14_080),
    ("s_resnet50", {}, 1.0, 4_089_284_608, 25_503_912, 53_120),
    ("s_resnet50", {}, 0.75, 2_322_753_024, 14_732_152, 39_840),
    ("s_resnet50", {}, 0.5, 1_052_361_728, 6_891_080, 26_560),
    ("s_resnet50", {}, 0.25, 278_110_720, 1_980_696, 13_280),
    # Joslim's; its table leaves out the classifier's 1,000 biases, which are parameters here.
    ("resnet18", {}, 1.0, 1_814_073_344, 11_679_912, 9_600),
    ("resnet18", {}, 0.9, 1_467_280_880, 9_472_968, 8_620),
    ("resnet18", {}, 0.8, 1_172_321_371, 7_526_720, 7_660),
    ("resnet18", {}, 0.75, 1_042_639_872, 6_668_152, 7_200),
    ("resnet18", {}, 0.7, 900_179_300, 5_813_856, 6_700),
    ("resnet18", {}, 0.6, 672_686_421, 4_313_158, 5_740),
    ("resnet18", {}, 0.5, 483_149_824, 3_051_080, 4_800),
    ("resnet18", {}, 0.42, 338_871_689, 2_177_739, 4_010),
    ("resnet50", {}, 1.0, 4_089_184_256, 25_503_912, 53_120),
    ("resnet50", {}, 0.75, 2_322_677_760, 14_732_152, 39_840),
    ("resnet50", {}, 0.5, 1_052_311_552, 6_891_080, 26_560),
    ("resnet50", {}, 0.42, 737_371_111, 4_984_643, 22_266),
    ("s_mobilenet_v1", {}, 1.0, 568_790_528, 4_210_088, 21_888),
    ("s_mobilenet_v1", {}, 0.75, 325_438_080, 2_569_144, 16_416),
    ("s_mobilenet_v1", {}, 0.5, 149_522_176, 1_320_648, 10_944),
    ("s_mobilenet_v1", {}, 0.25, 41_042_816, 464_600, 5_472),
    ("s_mobilenet_v2", {}, 1.0, 300_836_992, 3_470_760, 34_112),
    ("s_mobilenet_v2", {}, 0.75, 209_132_512, 2_609_784, 26_640),
    ("s_mobilenet_v2", {}, 0.5, 97_194_560, 1_950_136, 18_544),
    ("s_mobilenet_v2", {}, 0.35, 59_348_528, 1_663_048, 14_080),
    ("s_shufflenet", {}, 2.0, 524_209_584, 5_401_816, 48_960),
    ("s_shufflenet", {}, 1.0, 137_702_712, 1_841_248, 24_480),
    ("s_shufflenet", {}, 0.5, 37_750_836, 706_084, 12_240),
    ("resnet20", {"multiplier": 1, "num_classes": 10}, 1.0, 40_551_040, 268_346, 1_376),
    ("resnet20", {"multiplier": 1, "num_classes": 100}, 1.0, 40_556_800, 274_196, 1_376),
    ("resnet20", {"multiplier": 2, "num_classes": 10}, 1.0, 161_318_144, 1_071_210, 2_752),
    ("resnet20", {"multiplier": 2, "num_classes": 100}, 1.0, 161_329_664, 1_082_820, 2_752),
    ("resnet20", {"multiplier": 5, "num_classes": 10}, 1.0, 1_004_915_840, 6_686_970, 6_880),
    ("resnet20", {"multiplier": 5, "num_classes": 100}, 1.0, 1_004_944_640, 6_715_860, 6_880),
    ("resnet32", {"multiplier": 1, "num_classes": 10}, 1.0, 68_862_592, 461_882, 2_272),
    ("resnet32", {"multiplier": 1, "num_classes": 100}, 1.0, 68_868_352, 467_732, 2_272),
    ("resnet32", {"multiplier": 2, "num_classes": 10}, 1.0, 274_564_352, 1_845_354, 4_544),
    ("resnet32", {"multiplier": 2, "num_classes": 100}, 1.0, 274_575_872, 1_856_964, 4_544),
    ("resnet32", {"multiplier": 5, "num_classes": 10}, 1.0, 1_712_704_640, 11_525_370, 11_360),
    ("resnet32", {"multiplier": 5, "num_classes": 100}, 1.0, 1_712_733_440, 11_554_260, 11_360),
    ("resnet44", {"multiplier": 1, "num_classes": 10}, 1.0, 97_174_144, 655_418, 3_168),
    ("resnet44", {"multiplier": 1, "num_classes": 100}, 1.0, 97_179_904, 661_268, 3_168),
    ("resnet44", {"multiplier": 2, "num_classes": 10}, 1.0, 387_810_560, 2_619_498, 6_336),
    ("resnet44", {"multiplier": 2, "num_classes": 100}, 1.0, 387_822_080, 2_631_108, 6_336),
    ("resnet44", {"multiplier": 5, "num_classes": 10}, 1.0, 2_420_493_440, 16_363_770, 15_840),
    ("resnet44", {"multiplier": 5, "num_classes": 100}, 1.0, 2_420_522_240, 16_392_660, 15_840),
    ("resnet56", {"multiplier": 1, "num_classes": 10}, 1.0, 125_485_696, 848_954, 4_064),
    ("resnet56", {"multiplier": 1, "num_classes": 100}, 1.0, 125_491_456, 854_804, 4_064),
    ("resnet56", {"multiplier": 2, "num_classes": 10}, 1.0, 501_056_768, 3_393_642, 8_128),
    ("resnet56", {"multiplier": 2, "num_classes": 100}, 1.0, 501_068_288, 3_405_252, 8_128),
    ("resnet56", {"multiplier": 5, "num_classes": 10}, 1.0, 3_128_282_240, 21_202_170, 20_320),
    ("resnet56", {"multiplier": 5, "num_classes": 100}, 1.0, 3_128_311_040, 21_231_060, 20_320),
]  # fmt: skip

# CIFAR-10 at uniform widths, channels truncated: (network, width, MACs, all parameters)
UNIFORM = [
    ("resnet20", 0.25, 2_617_504, 17_326),
    ("resnet20", 0.5, 10_248_512, 68_050),
    ("resnet20", 0.75, 22_893_024, 152_182),
    ("resnet56", 0.25, 7_925_920, 54_286),
    ("resnet56", 0.5, 31_482_176, 214_546),
    ("resnet56", 0.75, 70_668_768, 480_790),
]


@functools.cache
def supernet(name: str, **options: int) -> Supernet:
    """Traced once, however many rows ask for it."""
    entry = models.lookup(name)
    return make_supernet(entry, entry.build(**options), entry.image_shape)


def identify(row: tuple) -> str:
    name, options, width, *_ = row
    return "-".join([name, *(str(value) for value in options.values()), f"{width:g}"])


@pytest.mark.parametrize("row", PUBLISHED, ids=identify)
def test_network_costs_what_was_published(row):
    name, options, width, macs, layers, norms = row
    net = supernet(name, **options)
    subnet = net.space.uniform(width)
    without_norms = costs.params(net.records, net.space, subnet, norms=False)
    counted = (net.macs(subnet), without_norms, net.params(subnet))
    assert counted == (macs, layers, layers + norms)


@pytest.mark.parametrize(("name", "width", "macs", "params"), UNIFORM)
def test_truncated_width_costs_what_was_computed(name, width, macs, params):
    net = supernet(name, num_classes=10)
    subnet = net.space.uniform(width)
    assert (net.macs(subnet), net.params(subnet)) == (macs, params)


def test_costs_of_many_subnets_are_those_of_each():
    net = supernet("resnet20", num_classes=10)
    subnets = [net.space.uniform(width) for width in (0.25, 0.5, 1.0)]
    assert net.macs(np.stack(subnets)).tolist() == [net.macs(subnet) for subnet in subnets]
