"""Cache of the convolutions of a speech model: the same frames, computed once."""

import pytest
import torch
from support.speech import FAMILIES, reference, save, waves, whisper

from seit.tokenizers import StemCache, load_speech


@pytest.mark.parametrize("kind", [*FAMILIES, "whisper"])
def test_frames_are_those_without_a_cache(kind, tmp_path):
    model = whisper() if kind == "whisper" else reference(kind)
    network = load_speech(save(model, tmp_path / "model"))
    inputs, names = waves(8000, 3), list(network.state_dict())
    with torch.no_grad():
        expected = network(inputs)
    network.stem_cache = StemCache(1 << 20)
    with torch.inference_mode():
        first = network(inputs)
    again = network(inputs.flip(0)).flip(0)
    again.sum().backward()
    assert torch.equal(first, again)
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=1e-5)
    assert (network.stem_cache.misses, network.stem_cache.hits) == (3, 3)
    assert list(network.state_dict()) == names
    stem = "conv1" if kind == "whisper" else "feature_extractor"
    modules = network.model.get_submodule(stem)
    assert all(one.grad is None for one in modules.parameters())


def test_a_full_cache_keeps_what_it_has(tmp_path):
    network = load_speech(save(reference("hubert"), tmp_path / "model"))
    clip_bytes = 24 * 8 * 4
    network.stem_cache = StemCache(2 * clip_bytes)
    with torch.no_grad():
        first, second = network(waves(8000, 3)), network(waves(8000, 3))
    assert network.stem_cache.num_bytes == 2 * clip_bytes
    assert network.stem_cache.hits == 2
    assert torch.equal(first, second)
