"""Keys of windows and views, and the keys of their files."""

import pytest

from seit.shards import split_key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a/b.wav#12", ("a/b.wav", 12)),
        ("a/b#c.wav", ("a/b#c.wav", 0)),
        ("a/b.jpg#v3", ("a/b.jpg", 0)),
        ("a/b.jpg", ("a/b.jpg", 0)),
        ("a#v1.jpg", ("a#v1.jpg", 0)),
        ("a#1#v2", ("a#1", 0)),
    ],
)
def test_windows_and_views_belong_to_their_file(key, expected):
    assert split_key(key) == expected
