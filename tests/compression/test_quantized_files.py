"""Quantized ONNX files: what they compute, and the check that the runtime computes it."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from support.onnx_graphs import float_graph, saturating_runtime

from seit.compression.int8.calibration import activation_ranges
from seit.compression.int8.calibrators import make_calibrator
from seit.compression.int8.check import Check, choose_format, distance, run_file
from seit.compression.int8.packed import packed_weights
from seit.compression.int8.quantizers import Dynamic, Static
from seit.compression.int8.reference import exact_products
from seit.compression.int8.variants import DYNAMIC, S8S8, STATIC, U8S7, U8S8, U8U8
from seit.errors import SeitError

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 16, (24, 2, 2))
VARIANTS = (U8S8, U8S7, U8U8)


def gaussian(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def smooth():
    """A network that no kernel saturates on."""
    return float_graph(gaussian(16, 8), gaussian(32, 24), gaussian(24, 5))


@pytest.fixture(scope="module")
def steep():
    """A network whose inputs and weights are all near the largest."""
    codebook = RNG.uniform(0.9, 1, (16, 32)).astype(np.float32)
    return float_graph(codebook, RNG.uniform(0.9, 1, (128, 6)).astype(np.float32))


MANY = np.concatenate([IDS, RNG.integers(0, 16, (2000, 2, 2))])


def static(graph, calibrator="minmax", ids=IDS):
    batches = [torch.from_numpy(ids[:10]), torch.from_numpy(ids[10:])]
    chosen = make_calibrator(calibrator, 99.9)
    return Static(activation_ranges(graph, batches, chosen), calibrator)


def arrays_of(data):
    model = onnx.ModelProto.FromString(data)
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def quantized(x, scale, zero, low, high):
    return np.clip(np.round(x / scale) + zero, low, high).astype(np.int32)


def emulated(graph, data, activations):
    """Logits by numpy's int32 products, from a file's codes and scales.

    ``activations`` gives scale and zero point of a product's inputs.
    """
    arrays = arrays_of(data)
    codebook = numpy_helper.to_array(
        next(one for one in graph.model.graph.initializer if one.name == "codebook")
    )
    x = codebook[IDS].reshape(len(IDS), -1)
    for number, product in enumerate(graph.products):
        scale, zero, low, high = activations(number, x, arrays)
        codes = quantized(x, scale, zero, low, high) - np.int32(zero)
        weight = arrays[f"{product.weight}_quantized"].astype(np.int32)
        weight = weight - arrays[f"{product.weight}_zero_point"].astype(np.int32)
        total = codes @ weight
        x = total.astype(np.float32) * (scale * arrays[f"{product.weight}_scale"])
        x = x if number == len(graph.products) - 1 else np.maximum(x, 0)
    return x


def taken(number, x, arrays):
    """Scale and zero point as DynamicQuantizeLinear takes them (ONNX operators, opset 11)."""
    low, high = min(0, x.min()), max(0, x.max())
    scale = np.float32((high - low) / 255)
    return scale, np.clip(np.round(-low / scale), 0, 255), 0, 255


def fixed(number, x, arrays):
    name = f"x{number}"
    zero = arrays[f"{name}_zero_point"]
    limits = np.iinfo(zero.dtype)
    return arrays[f"{name}_scale"], zero, limits.min, limits.max


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_dynamic_files_compute_products_of_integers(smooth, variant):
    data = Dynamic().quantize(smooth, variant, left=frozenset())
    expected = emulated(smooth, data, taken)
    assert distance(run_file(exact_products(data), IDS, fused=False), expected) < 1e-5
    # Kernels for processors without dot products of bytes may saturate.
    assert variant is U8S8 or distance(run_file(data, IDS), expected) < 1e-3
    assert distance(expected, run_file(smooth.data, IDS)) < 0.03


@pytest.mark.parametrize("variant", [*VARIANTS, S8S8], ids=lambda one: one.name)
def test_static_files_compute_products_of_integers(smooth, variant):
    data = static(smooth).quantize(smooth, variant, left=frozenset())
    expected = emulated(smooth, data, fixed)
    # A quantum of the hidden layer: ties of the exact value are rounded either way.
    assert distance(run_file(data, IDS, fused=False), expected) < 5e-3
    # Kernels for processors without dot products of bytes may saturate.
    assert variant in (U8S8, S8S8) or distance(run_file(data, IDS), expected) < 5e-3
    assert distance(expected, run_file(smooth.data, IDS)) < 0.04


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "mse", "entropy"])
def test_ranges_of_activations_are_those_of_the_calibrator(smooth, calibrator):
    quantizer = static(smooth, calibrator, MANY)
    assert set(quantizer.ranges) == {"x0", "x1"}  # inputs of products; results stay in float
    assert quantizer.note() == {"activations": "static", "calibrator": calibrator}
    data = quantizer.quantize(smooth, U8U8, left=frozenset())
    arrays = arrays_of(data)
    for name, (low, high) in quantizer.ranges.items():
        assert low <= 0 <= high
        assert arrays[f"{name}_scale"] == pytest.approx((high - low) / 255, rel=1e-5)
    hidden = quantizer.ranges["x1"]
    whole = static(smooth, ids=MANY).ranges["x1"]
    assert hidden[0] == whole[0] == 0  # behind a ReLU
    assert hidden[1] <= whole[1]
    assert distance(run_file(data, IDS, fused=False), run_file(smooth.data, IDS)) < 0.2


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_weights_have_the_bits_of_their_format(smooth, variant):
    data = Dynamic().quantize(smooth, variant, left=frozenset())
    arrays = arrays_of(data)
    for product, (name, weight) in zip(smooth.products, smooth.weights().items(), strict=True):
        codes = arrays[f"{product.weight}_quantized"]
        assert codes.dtype == (np.int8 if variant.signed else np.uint8)
        if variant.signed:
            most = 64 if variant.bits == 7 else 127
            assert np.abs(codes.astype(int)).max(0).tolist() == [most] * weight.shape[1] or (
                np.abs(codes.astype(int)).max() <= most
            )
        zero = arrays[f"{product.weight}_zero_point"].astype(np.float32)
        back = (codes - zero) * arrays[f"{product.weight}_scale"]
        assert np.abs(back - weight).max() <= 0.51 * arrays[f"{name}_scale"].max()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_small_channels_are_stored_as_in_the_file(variant):
    """Down to scales among the subnormal float16 numbers, which are multiples of 2⁻²⁴."""
    weight = gaussian(32, 6) * np.float32([1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-7])
    graph = float_graph(gaussian(16, 8), weight)
    data = Dynamic().quantize(graph, variant, left=frozenset())
    weights = {"layers.0.weight": torch.from_numpy(weight.T)}
    (packed,) = packed_weights(data, graph, weights).values()
    arrays, name = arrays_of(data), graph.products[0].weight
    scales = arrays[f"{name}_scale"]
    found = packed.scales[:, 0].float().numpy()
    is_normal = scales >= 2.0**-14
    assert is_normal.tolist() == [True] * 2 + [False] * 4
    assert np.allclose(found[is_normal], scales[is_normal], rtol=2**-11, atol=0)
    codes = arrays[f"{name}_quantized"].astype(int) - arrays[f"{name}_zero_point"].astype(int)
    same = packed.codes.int().numpy() - packed.zeros.int().numpy()
    assert np.array_equal(same[is_normal], codes.T[is_normal])
    assert (found < scales + 2.0**-24)[~is_normal].all()
    off = np.abs(packed.dense().numpy() - weight.T)
    assert (off.max(1) <= 0.51 * found + 64 * 2**-11 * found * is_normal).all()


def test_layers_that_are_left_stay_in_float(smooth):
    layers = [one.layer for one in smooth.products]
    assert layers == ["layers.0", "layers.1"]
    for quantizer in (Dynamic(), static(smooth)):
        names = arrays_of(quantizer.quantize(smooth, U8S7, left=frozenset({"layers.0"}))).keys()
        assert "backbone.layers.0.weight" in names
        assert "backbone.layers.1.weight_quantized" in names
        everything = quantizer.quantize(smooth, U8S7, left=frozenset(layers))
        assert everything == smooth.data


def test_the_look_up_is_never_quantized(smooth):
    for quantizer in (Dynamic(), static(smooth)):
        arrays = arrays_of(quantizer.quantize(smooth, U8S8, left=frozenset()))
        assert arrays["codebook"].dtype == np.float32


def test_products_with_a_bias_are_split():
    codebook, weight = gaussian(16, 8), gaussian(32, 5)
    graph = float_graph(codebook, weight, gemm=True)
    expected = codebook[IDS].reshape(len(IDS), -1) @ weight + np.arange(5)
    assert np.allclose(run_file(graph.data, IDS), expected, atol=1e-4)
    assert [one.layer for one in graph.products] == ["layers.0"]
    assert not any(node.op_type == "Gemm" for node in graph.model.graph.node)


def test_a_saturating_processor_is_noticed_and_avoided(steep):
    expected = run_file(steep.data, IDS)

    def quantize(variant):
        return Dynamic().quantize(steep, variant, left=frozenset())

    unguarded = saturating_runtime(quantize(U8S8), IDS)
    assert distance(unguarded, expected) > 0.2
    made = choose_format(quantize, DYNAMIC["vnni"], IDS, expected, compute=saturating_runtime)
    assert [one.passed for one in made.checks] == [False, True]
    assert made.checks[0].runtime > 0.2
    assert made.variant == U8S7
    assert distance(saturating_runtime(made.data, IDS), expected) < 0.02


@pytest.mark.parametrize("target", ["avx2", "vnni", "arm"])
def test_whatever_the_processor_its_runtime_is_right(steep, target):
    """On this processor, with the formats preferred for any."""
    expected = run_file(steep.data, IDS)
    for quantizer, variants in ((Dynamic(), DYNAMIC), (static(steep), STATIC)):

        def quantize(variant, quantizer=quantizer):
            return quantizer.quantize(steep, variant, left=frozenset())

        made = choose_format(quantize, variants[target], IDS, expected)
        assert distance(run_file(made.data, IDS), expected) < 0.02


def test_a_runtime_that_is_always_wrong_is_refused(smooth):
    def quantize(variant):
        return Dynamic().quantize(smooth, variant, left=frozenset())

    def wrong(data, ids):
        return -run_file(exact_products(data), ids, fused=False)

    with pytest.raises(SeitError, match=r"u8 × s8: 2, u8 × s7: 2, .*--method w8"):
        choose_format(quantize, VARIANTS, IDS, run_file(smooth.data, IDS), compute=wrong)


def test_rounding_differences_pass():
    assert Check("", rounding=0.001, runtime=0.009).passed
    assert Check("", rounding=0.02, runtime=0.039).passed
    assert not Check("", rounding=0.02, runtime=0.041).passed
    assert not Check("", rounding=0.02, runtime=float("nan")).passed
