"""Tokenizers in front of a file in which a run is deployed: images and sounds → logits and ids."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.onnx_graphs import float_graph

from seit.augment import StoredTokens
from seit.compression.int8.quantizers import Dynamic
from seit.compression.int8.variants import U8U8
from seit.exports.deployed import Deployed
from seit.exports.graphs import TokenClassifier, with_encoder
from seit.exports.spec import BackboneSpec, ExportSpec, TokenizerSpec
from seit.models import OnnxClassifier
from seit.tokenizers import MelConfig, MelTokenizer, PatchTokenizer

MEL = MelConfig(
    sample_rate=8000, window=2000, hop=125, taper=200, fft=256, bands=16, frames=16, patch=(2, 4)
)


def pictures(count):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def sounds(count):
    generator = torch.Generator().manual_seed(0)
    times = torch.arange(MEL.window) / MEL.sample_rate
    pitches = torch.empty(count, 1).uniform_(100, 3000, generator=generator)
    tones = (2 * math.pi * pitches * times).sin() / 3
    return tones + 0.02 * torch.randn(tones.shape, generator=generator)


def deployed(tokenizer):
    """Return the deployment of a random 8-bit classifier of a tokenizer's ids."""
    rng = np.random.default_rng(0)
    cells = tokenizer.grid[0] * tokenizer.grid[1]
    codebook = tokenizer.codebook.numpy()
    weight = rng.normal(size=(cells * codebook.shape[1], 3)).astype(np.float32)
    data = Dynamic().quantize(
        float_graph(codebook, weight, grid=tokenizer.grid), U8U8, left=frozenset()
    )
    spec = ExportSpec(
        model=BackboneSpec(
            name="x", channels=1, input_size=(1, 1), stem="none", num_classes=3, kwargs={}
        ),
        reads="tokens",
        size=tokenizer.grid,
        crop_size=0,
        modality=tokenizer.modality,
        preprocessing=tokenizer.preprocessing(),
        tokenizer=TokenizerSpec(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            codebook=tuple(tokenizer.codebook.shape),
        ),
        classes=("a", "b", "c"),
        store="",
        settings={},
        result={},
        environment={},
        seit="",
    )
    network = OnnxClassifier(data, grid=tokenizer.grid, num_classes=3, origin="test")
    classifier = TokenClassifier(StoredTokens(tokenizer.codebook, tokenizer.grid), network).eval()
    graphs, missing = with_encoder(spec, classifier, tokenizer)
    assert not missing
    return Deployed(spec, onnx.ModelProto.FromString(data), graphs), network


# Exported runs in 8 bits show it of images.
@pytest.mark.parametrize("kind", [pytest.param("images", marks=pytest.mark.slow), "audio"])
def test_the_tokenizer_is_put_in_front(kind):
    inputs = pictures(16) if kind == "images" else sounds(16)
    if kind == "images":
        tokenizer = PatchTokenizer.fit(inputs, num_codes=16, dim=6)
    else:
        tokenizer = MelTokenizer.fit(inputs, MEL, num_codes=16, dim=6)
    made, network = deployed(tokenizer)
    data = made.program(kind, {"classes": "[]"})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["logits", "tokens"]
    assert [one.name for one in session.get_inputs()] == [kind]
    logits, ids = session.run(None, {kind: inputs[:5].numpy()})
    assert (ids == tokenizer.encode(inputs[:5]).numpy()).mean() >= 0.99
    np.testing.assert_allclose(logits, network(torch.from_numpy(ids)).numpy(), rtol=1e-6)
    assert made.graphs[kind](inputs[:5])[1].shape == ids.shape
    names = {node.op_type for node in onnx.ModelProto.FromString(data).graph.node}
    assert "MatMulInteger" in names
