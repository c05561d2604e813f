"""Listings in columns: the same instances in a fraction of the memory."""

import pickle
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from seit.errors import UsageError
from seit.ingest.plan import plan_shards
from seit.ingest.sources import list_corpus
from seit.ingest.sources.assemble import assemble
from seit.ingest.sources.corpus import Cell, Draft, Instance
from seit.ingest.sources.instance_table import DraftTable
from seit.ingest.sources.splits import HashSplit

plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
numbers = st.integers(0, 2**62)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
fields = st.lists(st.tuples(text, values | st.lists(values, max_size=2)), max_size=3).map(tuple)
locations = (
    plain
    | st.tuples(plain, numbers, numbers)
    | st.builds(Cell, path=plain, column=text, row_group=numbers, row=numbers)
)
drafts = st.builds(
    Draft,
    key=text,
    split=st.none() | text,
    class_name=st.none() | text,
    location=locations,
    num_bytes=st.integers(-1, 2**62),
    metadata=fields,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(drafts, max_size=6))
def test_drafts_come_back(given_drafts):
    table = DraftTable(given_drafts)
    assert list(table) == given_drafts
    assert table[1:] == given_drafts[1:]
    heads = [(draft.key, draft.split, draft.class_name) for draft in given_drafts]
    assert list(table.heads) == heads


@settings(max_examples=20, deadline=None)
@given(st.lists(text, min_size=1, max_size=30, unique=True), st.text("ab", max_size=1))
def test_paths_below_a_folder_are_kept(keys, root):
    listed = [Draft(key, None, None, f"{root}/{key}", 1) for key in keys]
    assert list(DraftTable(listed)) == listed


def manifest(path, count, *, extra=""):
    rows = (f"c{n % 7}/photo_{n:07d}.jpg,c{n % 7},{n % 500}" for n in range(count))
    path.write_text("path,label,width\n" + "\n".join(rows) + extra + "\n")
    return path


def test_instances_are_a_sequence_of_equal_parts(tmp_path):
    corpus = list_corpus(manifest(tmp_path / "m.csv", 300), val_fraction=0.2)
    whole = list(corpus.instances)
    assert corpus.instances == whole
    assert corpus.instances != whole[1:]
    assert corpus.instances[-1] == whole[-1]
    assert list(corpus.instances[5:90:7]) == whole[5:90:7]
    parts = corpus.by_split()
    assert [entry for part in parts.values() for entry in part] == whole
    assert {entry.split for entry in parts["val"]} == {"val"}
    assert pickle.loads(pickle.dumps(parts["val"])) == tuple(parts["val"])


def test_a_plan_travels_with_its_own_inputs_alone(tmp_path):
    corpus = list_corpus(manifest(tmp_path / "m.csv", 3000), val_fraction=0)
    plans = list(plan_shards(corpus, shard_samples=100))
    assert [plan.num_inputs for plan in plans] == [100] * 30
    sent = pickle.dumps(plans[3])
    assert len(sent) < 100 * 250
    found = pickle.loads(sent)
    assert found.inputs() == plans[3].inputs()
    keys = [entry.key for entry in found.inputs()]
    assert keys == sorted(keys)
    assert all(isinstance(entry, Instance) for entry in found.inputs())


def test_a_listing_takes_a_fraction_of_its_objects(tmp_path):
    path = manifest(tmp_path / "m.csv", 6_000)
    _ = list_corpus(manifest(tmp_path / "small.csv", 10))  # imports
    tracemalloc.start()
    try:
        corpus = list_corpus(path)
        plans = list(plan_shards(corpus, shard_samples=1024))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(plan.num_inputs for plan in plans) == 6_000
    assert kept < 6_000 * 200, f"{kept / 6_000:.0f} bytes an instance; objects took 900"
    assert peak < 6_000 * 400


def test_equal_hashes_are_ordered_by_key(monkeypatch):
    monkeypatch.setattr("seit.ingest.sources.assemble.shuffle_rank", lambda key: len(key) % 2)
    listed = [Draft(key, "train", None, key, 1) for key in ("d", "bb", "a", "cc", "c", "aa")]
    options = {"classes": (), "warnings": (), "hash_split": HashSplit(0), "label_places": ""}
    corpus = assemble("x", "folder", listed, **options)
    assert [entry.key for entry in corpus.instances] == ["aa", "bb", "cc", "a", "c", "d"]


def test_a_repeated_row_is_named_with_both_places(tmp_path):
    path = manifest(tmp_path / "m.csv", 50, extra="\nc3/./photo_0000003.jpg,c3,1")
    with pytest.raises(UsageError, match=r"photo_0000003.jpg is in line 5 and in line 52; drop"):
        list_corpus(path)
