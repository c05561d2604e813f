"""Keys of windows and views, and the keys of their files."""

import pytest

from seit.shards import split_key


@pytest.mark.parametrize(
    ("key", "modality", "expected"),
    [
        ("a/b.wav#12", "audio", ("a/b.wav", 12)),
        ("a/b.wav#v12", "audio", ("a/b.wav#v12", 0)),
        ("a/b#c.wav", "audio", ("a/b#c.wav", 0)),
        ("a/b.jpg#v3", "image", ("a/b.jpg", 0)),
        ("a/b.jpg", "image", ("a/b.jpg", 0)),
        ("a#v1.jpg", "image", ("a#v1.jpg", 0)),
        ("a#1#v2", "image", ("a#1", 0)),
        ("page#2", "image", ("page#2", 0)),
        ("a/b.wav#12", None, ("a/b.wav", 12)),
        ("a/b.jpg#v3", None, ("a/b.jpg", 0)),
    ],
)
def test_windows_and_views_belong_to_their_file(key, modality, expected):
    assert split_key(key, modality) == expected
