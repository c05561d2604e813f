"""Safetensors files with a card: equal bytes either way, and named errors for anything else."""

import json
import struct

import numpy as np
import pytest
import torch

from seit.errors import DamagedError
from seit.tensors import (
    MAX_HEADER_BYTES,
    array_bytes,
    parse_arrays,
    parse_card,
    read_card,
    read_tensors,
    tensor_bytes,
    write_tensors,
)


def file_of(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_tensors_and_card_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.arange(6.0).view(2, 3).T, "n": torch.tensor([3])}
    write_tensors(path, tensors, card={"b": 1, "a": "ä"})
    card, found = read_card(path, finite=True)
    assert card == {"a": "ä", "b": 1} == parse_card(path.read_bytes())
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert found.keys() == tensors.keys()


def test_arrays_and_tensors_are_the_same_bytes():
    arrays = {"b": np.arange(4, dtype=np.float32), "a": np.array([[7]], dtype=np.uint8)}
    data = array_bytes(arrays)
    assert data == tensor_bytes({name: torch.from_numpy(one) for name, one in arrays.items()})
    assert parse_arrays(data, origin="x")["a"].tolist() == [[7]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), "header takes"),
        (file_of({"__metadata__": {"seit": "[]"}}), "no object 'seit'"),
        (file_of({"__metadata__": {"seit": "[" * 10_000}}), "damaged"),
        (file_of({}), "no object 'seit'"),
        (b"", "damaged"),
    ],
)
def test_other_bytes_are_a_named_error(tmp_path, data, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=reason):
        read_card(path)


def test_values_that_are_not_finite_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"fine": torch.ones(2), "bad": torch.tensor([1.0, torch.nan])}, card={})
    with pytest.raises(DamagedError, match="bad is not finite"):
        read_card(path, finite=True)
    assert read_tensors(path)["bad"].isnan().any()


def test_numbers_of_four_bits_are_read(tmp_path):
    """Torch has a dtype for them, of which it cannot tell what is finite."""
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "F4", "shape": [2, 2], "data_offsets": [0, 2]}
    path.write_bytes(file_of({"__metadata__": {"seit": "{}"}, "a": entry}, bytes(2)))
    assert read_card(path, finite=True)[1].keys() == {"a"}
