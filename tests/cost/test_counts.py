"""Costs of the published networks, to the digit: tables computed from the authors' code, or by arithmetic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from slimjax import models
from slimjax.cost import counts
from slimjax.models import autoslim
from slimjax.models.mobilenet_v3 import LARGE
from slimjax.nn.layers import Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding
from slimjax.supernet import Supernet, make_supernet, named
from slimjax.verbs import options

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
    # Parameters as in torchvision (5,483,032, 2,542,856 and 4,383,312 in all), MACs by arithmetic.
    ("mobilenet_v3_large", {}, 1.0, 216_589_760, 5_458_632, 24_400),
    ("mobilenet_v3_small", {}, 1.0, 56_510_400, 2_530_744, 12_112),
    ("mnasnet", {}, 1.0, 314_478_592, 4_345_392, 37_920),
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
    # By hand in tests/models/test_vgg.py: 313,196,544 MACs of convolutions, 5,120 of the classifier.
    ("vgg16", {}, 1.0, 313_201_664, 14_715_594, 8_448),
    ("vgg16", {"num_classes": 100}, 1.0, 313_247_744, 14_761_764, 8_448),
]  # fmt: skip

# CIFAR-10 at uniform widths, channels truncated: (network, width, MACs, all parameters)
UNIFORM = [
    ("resnet20", 0.25, 2_617_504, 17_326),
    ("resnet20", 0.5, 10_248_512, 68_050),
    ("resnet20", 0.75, 22_893_024, 152_182),
    ("resnet56", 0.25, 7_925_920, 54_286),
    ("resnet56", 0.5, 31_482_176, 214_546),
    ("resnet56", 0.75, 70_668_768, 480_790),
    # A quarter, or 1/16, of all products of two widths; half, or a quarter, of the first layer's and the classifier's.
    ("vgg16", 0.25, 19_907_840, 923_130),
    ("vgg16", 0.5, 78_744_064, 3_684_842),
]


# AutoSlim's networks: (variant, MACs, parameters of convolutions and dense layers, gammas and betas)
SLIMMED = [
    ("autoslim_mobilenet_v1", "572M", 572_126_176, 4_633_088, 22_544),
    ("autoslim_mobilenet_v1", "325M", 324_811_808, 3_983_064, 18_384),
    ("autoslim_mobilenet_v1", "150M", 149_861_584, 1_875_776, 11_888),
    ("autoslim_mobilenet_v2", "505M", 505_028_480, 6_450_840, 45_152),
    ("autoslim_mobilenet_v2", "305M", 305_166_496, 5_730_008, 37_280),
    ("autoslim_mobilenet_v2", "207M", 206_861_128, 4_093_568, 31_536),
    ("autoslim_resnet50", "1.0G", 999_949_216, 13_305_224, 38_912),
    ("autoslim_resnet50", "570M", 570_087_056, 7_386_096, 31_008),
]

# Howard et al. 2019, tables 1 and 2: (kernel, expanded, channels, squeeze-excite, stride) of each block, typed anew.
V3 = {
    "mobilenet_v3_large": (
        "3 16 16 - 1, 3 64 24 - 2, 3 72 24 - 1, 5 72 40 SE 2, 5 120 40 SE 1, 5 120 40 SE 1, "
        "3 240 80 - 2, 3 200 80 - 1, 3 184 80 - 1, 3 184 80 - 1, 3 480 112 SE 1, 3 672 112 SE 1, "
        "5 672 160 SE 2, 5 960 160 SE 1, 5 960 160 SE 1",
        960, 1280,
    ),
    "mobilenet_v3_small": (
        "3 16 16 SE 2, 3 72 24 - 2, 3 88 24 - 1, 5 96 40 SE 2, 5 240 40 SE 1, 5 240 40 SE 1, 5 120 48 SE 1, "
        "5 144 48 SE 1, 5 288 96 SE 2, 5 576 96 SE 1, 5 576 96 SE 1",
        576, 1024,
    ),
}  # fmt: skip

# Hidden widths of squeeze-excites: a quarter of the expanded width, made divisible by 8.
SQUEEZED = {
    16: 8, 72: 24, 96: 24, 120: 32, 144: 40, 240: 64, 288: 72, 480: 120, 576: 144, 672: 168, 960: 240,
}  # fmt: skip

# Joslim's MobileNetV3-Large: (width, MACs, parameters, gammas and betas)
JOSLIM_V3 = [
    (1.0, 208_133_280, 5_403_984, 24_400),
    (0.9, 169_108_516, 5_004_262, 22_124),
    (0.8, 135_770_861, 4_632_674, 19_884),
    (0.75, 122_118_264, 4_457_382, 18_780),
    (0.7, 106_430_822, 4_284_341, 17_634),
    (0.6, 80_276_959, 3_960_058, 15_394),
    (0.5, 58_757_712, 3_659_484, 13_160),
    (0.42, 41_993_094, 3_433_275, 11_326),
]


# Joslim's MobileNetV2, every layer truncated on its own: (width, MACs, parameters, gammas and betas)
JOSLIM_V2 = [
    (1.0, 299_494_272, 3_470_760, 34_112),
    (0.9, 243_634_762, 3_092_716, 30_908),
    (0.8, 196_969_416, 2_754_426, 27_762),
    (0.75, 178_145_184, 2_601_744, 26_224),
    (0.7, 155_228_031, 2_450_382, 24_604),
    (0.6, 118_379_737, 2_180_587, 21_458),
    (0.5, 87_779_776, 1_947_112, 18_336),
    (0.42, 63_905_996, 1_779_446, 15_764),
    (0.25, 28_398_048, 1_506_864, 10_448),
]


@functools.cache
def supernet(name: str, **options) -> Supernet:
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
    without_norms = counts.params(net.records, net.space, norms=False)(subnet)
    counted = (net.macs(subnet), without_norms, net.params(subnet))
    assert counted == (macs, layers, layers + norms)


@pytest.mark.parametrize(("name", "width", "macs", "params"), UNIFORM)
def test_truncated_width_costs_what_was_computed(name, width, macs, params):
    net = supernet(name, num_classes=10)
    subnet = net.space.uniform(width)
    assert (net.macs(subnet), net.params(subnet)) == (macs, params)


@pytest.mark.parametrize(("name", "variant", "macs", "layers", "norms"), SLIMMED)
def test_variant_costs_what_was_published(name, variant, macs, layers, norms):
    net = supernet(name)
    subnet = net.space.from_channels(models.lookup(name).variants[variant])
    assert (net.macs(subnet), net.params(subnet)) == (macs, layers + norms)


@pytest.mark.parametrize("name", [name for name, entry in models.MODELS.items() if entry.variants])
def test_variants_name_every_group_and_cost_what_they_are_called(name):
    net = supernet(name)
    for variant, channels in models.lookup(name).variants.items():
        subnet = net.space.from_channels(channels)
        assert set(channels) == set(net.space.to_channels(subnet)), "every axis that it has"
        if variant == "A":  # TF-NAS's: no number
            continue
        called = float(variant[:-1]) * {"M": 1e6, "G": 1e9}[variant[-1]]
        assert net.macs(subnet) == pytest.approx(called, rel=0.01)


def test_largest_published_mnasnet_runs_to_what_was_computed():
    net = supernet("autoslim_mnasnet")
    subnet = net.space.from_channels(models.lookup("autoslim_mnasnet").variants["532M"])
    assert round(int(net.macs(subnet)) / 1e6, 1) == 531.9


@pytest.mark.parametrize("channels", ["8 16", "8 16 24 16 8", "8 16 24 32"])
def test_variant_of_wrong_length_or_with_untied_layers_is_refused(channels):
    with pytest.raises(ValueError, match=r"zip|group 'a'"):
        autoslim.parse(channels, ["stem", "a", "b", "a"])


@pytest.mark.parametrize("name", V3)
def test_mobilenet_v3_costs_what_its_table_adds_up_to(name):
    rows, tail, head = V3[name]
    inputs, side, macs = 16, 112, 112**2 * 9 * 3 * 16
    for kernel, expanded, channels, squeezes, stride in (row.split() for row in rows.split(", ")):
        wide, outputs = int(expanded), int(channels)
        macs += side**2 * inputs * wide * (wide != inputs)
        side //= int(stride)
        macs += 2 * wide * SQUEEZED.get(wide, 0) * (squeezes == "SE")
        macs += side**2 * (int(kernel) ** 2 * wide + wide * outputs)
        inputs = outputs
    macs += side**2 * inputs * tail + tail * head + head * 1000
    net = supernet(name)
    assert (side, net.macs(net.space.largest)) == (7, macs)


@pytest.mark.parametrize(("width", "macs", "params", "norms"), JOSLIM_V2)
def test_truncated_mobilenet_v2_costs_what_joslims_does(width, macs, params, norms):
    net = named("us_mobilenet_v2", rounding="truncate", convention="joslim", min_width=0.25)
    subnet = net.space.uniform(width)
    assert (net.macs(subnet), net.params(subnet)) == (macs, params + norms)


@pytest.mark.parametrize(("width", "macs", "params", "norms"), JOSLIM_V3)
def test_mobilenet_v3_of_3x3_kernels_costs_what_joslims_does(width, macs, params, norms):
    """Its squeeze-excites have no biases and a quarter of the full expanded width, not rounded; nor has the layer
    before its classifier a bias. Dense layers are not among its MACs."""
    blocks = tuple(row._replace(kernel_size=3, squeezes=False) for row in LARGE)
    net = supernet("mobilenet_v3_large", blocks=blocks)
    subnet = net.space.uniform(width)
    squeezes = sum(2 * int(width * row.expanded) * (row.expanded // 4) for row in LARGE if row.squeezes)
    assert net.macs(subnet) + squeezes - (960 * 1280 + 1280 * 1000) == macs
    assert net.params(subnet) + squeezes - 1280 == params + norms


def test_costs_of_many_subnets_are_those_of_each():
    net = supernet("resnet20", num_classes=10)
    subnets = [net.space.uniform(width) for width in (0.25, 0.5, 1.0)]
    assert net.macs(np.stack(subnets)).tolist() == [net.macs(subnet) for subnet in subnets]


def test_conventions_add_up_to_joslims_count_of_mobilenet_v2():
    """The published 299,494,272 leaves out the pooling (7 x 7 x 1,280) and the classifier (1,280,000)."""
    net = supernet("us_mobilenet_v2")
    totals = {
        name: int(counts.macs(net.records, net.space, convention)(net.space.largest))
        for name, convention in counts.CONVENTIONS.items()
    }
    assert totals["joslim"] == 299_494_272
    assert totals["plain"] - totals["joslim"] == 1_280_000
    assert totals["slimmable"] - totals["plain"] == 7 * 7 * 1280
    assert totals["tfnas"] - totals["slimmable"] == 1000  # the classifier's biases


@functools.cache
def small_resnet() -> Supernet:
    """ResNet-8 for images of 8 x 8: one basic block in each of three stages."""
    return make_supernet(models.lookup("resnet8"), models.lookup("resnet8").build(num_classes=5), (8, 8, 3))


def test_peak_memory_counts_shortcuts_and_weights():
    net = small_resnet()
    subnet = net.space.from_channels({"stage1": 7, "stage1/block1": 16})
    # Stage 1 at 8 x 8: while its first convolution runs, the stream and the inner map are alive; while
    # its second runs, the stream (for the shortcut), the inner map and the result.
    live = 8 * 8 * (7 + 16 + 7)
    expected = int(net.params(subnet)) + 10 * live
    assert net.peak_memory(subnet, batch=10, itemsize=2) == 2 * expected


def test_peak_memory_moves_to_where_the_network_is_wide():
    net = small_resnet()
    narrow = {"stage1": 4, "stage1/block1": 4, "stage2": 32, "stage2/block1": 32}
    subnet = net.space.from_channels(narrow)
    # Stage 2 at 4 x 4: while the padded shortcut is made, the stream before it (8 x 8), the block's result and it.
    live = 8 * 8 * 4 + 4 * 4 * (32 + 32)
    assert net.peak_memory(subnet, batch=1000) == 4 * (int(net.params(subnet)) + 1000 * live)


def test_an_activation_that_is_needed_again_is_not_overwritten():
    class Kept(nn.Module):
        @nn.compact
        def __call__(self, images, widths=None, train=False):
            x = Conv(Group("a", 6), 1, name="stem")(FeatureMap.of(images, widths))
            return x.map(jax.nn.relu) + x.map(jax.nn.tanh) if self.keep else x.map(jax.nn.relu)

        keep: bool = True

    count = lambda keep: Supernet(Kept(keep=keep), (4, 4, 1), Rounding("truncate"), 0.5).peak_memory  # noqa: E731
    kept, overwritten = ((counts(np.array([6])) - 4 * 6) / 4 / 16 for counts in (count(True), count(False)))
    assert (kept, overwritten) == (12, 7)  # two maps of 6 channels; one, and the image


def test_a_million_subnets_cost_what_each_of_them_costs():
    net = supernet("resnet20", num_classes=10)
    generator = np.random.default_rng(0)
    subnets = generator.integers(net.space.smallest, net.space.largest + 1, (100_000, 12), dtype=np.int32)
    for cost in (net.macs, net.params, net.peak_memory):
        assert [int(cost(subnets[i])) for i in (0, 50_000, -1)] == cost(subnets)[[0, 50_000, -1]].tolist()


@pytest.mark.parametrize("cost", ["macs", "params", "peak_memory"])
def test_costs_inside_jit_are_those_of_the_host(cost):
    net = supernet("us_mobilenet_v2")
    subnets = np.stack([net.space.uniform(w) for w in (0.35, 0.6, 1.0)])
    function = getattr(net, cost)
    np.testing.assert_allclose(jax.jit(function)(jnp.asarray(subnets)), function(subnets), rtol=1e-6)


@pytest.mark.parametrize("cost", ["macs", "params", "peak_memory"])
def test_costs_are_differentiable_in_the_channels(cost):
    net = supernet("resnet20", num_classes=10)
    function, subnet = getattr(net, cost), net.space.uniform(0.5)
    subnet[1] += 2  # the first block alone is now the fullest
    gradient = jax.grad(jax.jit(function))(jnp.asarray(subnet, jnp.float32))
    steps = np.eye(len(subnet), dtype=np.int64)
    # Central differences are exact for quadratics, and the fullest moment is the same for a channel more or less.
    exact = (function(subnet + steps) - function(subnet - steps)) / 2
    np.testing.assert_allclose(gradient, exact, rtol=1e-5)
    assert np.all(exact[:4] > 0)


def test_command_line_knows_the_conventions():
    assert set(options.CONVENTIONS) == set(counts.CONVENTIONS)
