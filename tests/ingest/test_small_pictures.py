"""Defaults for small pictures, stores larger than their files, and Parquet from end to end."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from support.files import plant

import seit
from seit.cli.tokenize import _changes, _ratio
from seit.ingest import TokenizeConfig, estimate_job, tokenize
from seit.ingest.settle import settle_job
from seit.ingest.store_remarks import larger_remark
from seit.stores import verify_store


def jpeg(number, side=32, quality=75):
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture = coarse.resize((side, side + number % 3), Image.Resampling.BICUBIC)
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    files = {f"{'ab'[n % 2]}/{n}.jpg": jpeg(n) for n in range(80)}
    return plant(tmp_path_factory.mktemp("small"), {**files, "a/notes.txt": b"no picture"})


def test_small_pictures_are_not_enlarged_to_256_px(small, tmp_path):
    corpus, config, tokenizer = settle_job(small, TokenizeConfig())
    assert (config.tokenizer, config.size, tokenizer) == ("patch-pca-vq", 64, None)
    assert corpus.warnings[-1].startswith("the pictures are small, so they are tokenized at 64 px")
    for given in ({"size": 256}, {"tokenizer": "conv-vq-f8-1024"}):
        corpus, config, tokenizer = settle_job(small, TokenizeConfig(**given))
        assert (config.size, tokenizer.name) == (256, "conv-vq")
        assert "small" not in str(corpus.warnings)
    few = plant(tmp_path / "few", {f"a/{n}.jpg": jpeg(n) for n in range(8)})  # for 1,024 codes
    assert settle_job(few, TokenizeConfig()).config.size == 256
    assert settle_job(few, TokenizeConfig(codes=16)).config.size == 64
    plant(few, {"a/large.jpg": jpeg(9, side=65)})
    assert settle_job(few, TokenizeConfig(codes=16)).config.size == 256


def test_a_store_that_is_larger_than_the_files_says_so():
    given = {"tokenizer": "conv-vq-f8-1024", "size": 256}
    assert larger_remark(num_bytes=100, token_bytes=90, source_bytes=100, **given) is None
    fixed = larger_remark(num_bytes=200, token_bytes=50, source_bytes=100, **given)
    assert fixed == (
        "the store is 2.0× larger than your files: 75% of it is the same however many files there "
        "are; less of it with --tokenizer patch-pca-vq"
    )
    tokens = larger_remark(num_bytes=200, token_bytes=180, source_bytes=100, **given)
    assert tokens.endswith("--tokenizer patch-pca-vq --size 128 would take about 25% of its tokens")
    given["size"] = 32
    assert "small already" in larger_remark(
        num_bytes=200, token_bytes=180, source_bytes=100, **given
    )
    given["size"] = None
    assert "small already" in larger_remark(num_bytes=9, token_bytes=8, source_bytes=5, **given)
    assert _ratio(100, 50) == "2.0× smaller than the files"
    assert _ratio(50, 100) == "2.0× larger than the files"


def test_the_estimate_says_what_is_larger(small, tmp_path):
    config = TokenizeConfig(tokenizer="patch-pca-vq", size=256, codes=256, workers=1)
    found = estimate_job(small, tmp_path / "store", config)
    assert found.source_bytes_per_sample == pytest.approx(
        np.mean([len(jpeg(n)) for n in range(80)])
    )
    assert "larger than your files" in found.warnings[-1]
    assert "--size 128" in found.warnings[-1]


def test_changes_name_what_could_not_be_read():
    result = {"added": 2, "changed": 1, "removed": 0, "kept": 5, "unreadable": 1}
    assert _changes(result, "store") == (
        "2 files added, 1 changed, 0 removed, 5 kept; 1 added or changed cannot be read"
    )


@pytest.mark.parametrize("decoders", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_parquet_makes_the_tokens_of_the_same_files(small, tmp_path, decoders):
    config = TokenizeConfig(
        tokenizer="patch-pca-vq", size=32, codes=16, codec="packed", val_fraction=0, workers=2
    )
    tokenize(small, tmp_path / "files", config)
    rows = [
        {"image": {"bytes": jpeg(n), "path": f"{'ab'[n % 2]}/{n}.jpg"}, "label": "ab"[n % 2]}
        for n in range(80)
    ]
    rows[7]["image"]["bytes"] = b"no picture"
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "train.parquet", row_group_size=30)
    weights = tmp_path / "files" / "tokenizer.safetensors"
    made = tokenize(
        tmp_path / "train.parquet",
        tmp_path / "rows",
        TokenizeConfig(
            tokenizer=str(weights), codec="packed", val_fraction=0, workers=2, decoders=decoders
        ),
    )
    assert (made.samples, made.skipped, made.classes) == (79, 1, 2)
    assert verify_store(tmp_path / "rows").ok
    expected = {
        s.key: (s.tokens.tobytes(), s.label) for s in seit.open(tmp_path / "files")["train"]
    }
    for sample in seit.open(tmp_path / "rows")["train"]:
        tokens, label = expected[sample.key.removeprefix("train/")]
        assert (sample.tokens.tobytes(), sample.label) == (tokens, label)
