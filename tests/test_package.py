"""The package's face and its hints; tools/check_wheel.py checks the wheel."""

import seit as package
from seit.extras import how_to_install


def test_what_can_be_imported_is_listed():
    assert {"create_model", "loader", "open", "train", "stream", "tokenize"} <= set(dir(package))
    assert all(hasattr(package, name) for name in dir(package))


def test_hints_name_packages_that_an_index_has():
    assert how_to_install("audio") == "run: pip install 'soundfile>=0.13' 'soxr>=0.5'"
    assert "pyproject.toml" in how_to_install("nothing")
