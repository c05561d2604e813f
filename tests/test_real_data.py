"""Real photos, where the folder named by SEIT_TEST_DATA has them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import seit
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.inputs.images import decode_image
from seit.ingest.sources import list_corpus, read_bytes
from seit.stores import verify_store

DATA = os.environ.get("SEIT_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="SEIT_TEST_DATA names no folder")


def test_kodak_through_a_tar(tmp_path):
    source = Path(str(DATA)) / "kodak24.tar"
    if not source.is_file():
        pytest.skip(f"{source} is missing")
    result = tokenize(source, tmp_path / "store", TokenizeConfig(val_fraction=0))
    assert (result.samples, result.skipped) == (24, 0)
    assert 24 * result.payload_bytes_per_sample == pytest.approx(4 * 10_240)  # records of a tar
    assert verify_store(tmp_path / "store").ok
    store = seit.open(tmp_path / "store")
    decoded = store.load_tokenizer().decode(
        torch.from_numpy(store["train"].tokens[:].astype(np.int64))
    )
    by_key = {entry.key: entry for entry in list_corpus(source, val_fraction=0).instances}
    psnr = []
    for key, picture in zip(store["train"].keys, decoded.numpy(), strict=True):
        original = decode_image(read_bytes(by_key[key]), size=256)
        error = np.square(original.astype(float) - picture.astype(float)).mean()
        psnr.append(10 * np.log10(255**2 / error))
    assert np.mean(psnr) == pytest.approx(result.quality["psnr_db"], abs=0.01)
    assert 21 < np.mean(psnr) < 30
