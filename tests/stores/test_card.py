"""Dataset cards: what they say, and that names of a stranger cannot change their form."""

import pytest
import yaml
from support.stores import build_store

import seit
from seit.errors import UsageError
from seit.stores import describe_store, write_dataset_card

HOSTILE = 'a|b`c``` </td><script>alert(1)</script>\n---\nlicense: evil\n"![x](http://evil.example)'


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_says_what_a_store_is_and_how_to_load_it(pattern_store):
    place = "hf://datasets/me/patterns"
    card = write_dataset_card(pattern_store, name="patterns", place=place, license_id="cc0-1.0")
    info, head = describe_store(pattern_store), front_matter(card)
    assert (head["license"], head["pretty_name"], head["viewer"]) == ("cc0-1.0", "patterns", False)
    assert head["task_categories"] == ["image-classification"]
    assert head["size_categories"] == ["n<1K"]
    splits = {one["name"]: one["num_examples"] for one in head["dataset_info"]["splits"]}
    assert splits == info.splits
    assert head["dataset_info"]["download_size"] == info.bytes
    assert f"seit train {place} --out RUN" in card
    code = card.split("```python\n")[1].split("```")[0].replace(place, str(pattern_store.folder))
    scope = {"seit": seit}
    exec(code, scope)
    assert scope["tokens"].shape == info.grid
    assert info.tokenizer_fingerprint in card


def test_a_card_without_a_license_asks_for_one(pattern_store):
    card = write_dataset_card(pattern_store)
    assert "license" not in front_matter(card)
    assert "# license: add" in card
    with pytest.raises(UsageError, match=r"expected an identifier such as cc0-1\.0"):
        write_dataset_card(pattern_store, license_id="cc0\nevil: 1")


def test_no_package_of_an_index_is_named(pattern_store):
    """None is released, and another project could take the name."""
    card = write_dataset_card(pattern_store)
    assert "With seit installed:" in card
    assert "pip" not in card
    assert "pypi" not in card


def test_hostile_names_stay_text(tmp_path):
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    cards = []
    for text in (HOSTILE, "text"):
        folder = tmp_path / f"{len(cards)}"
        build_store(folder, shards={"train": (6,)}, classes=(text, "bee"))
        cards.append(write_dataset_card(folder, name=text, place=text))
    forged, plain = (parser.parse(card.split("---\n", 2)[2]) for card in cards)
    assert [(one.type, one.tag) for one in forged] == [(one.type, one.tag) for one in plain]
    inline = [child.type for token in forged for child in token.children or ()]
    assert set(inline) <= {"text", "softbreak", "code_inline"}
    assert front_matter(cards[0]).keys() == front_matter(cards[1]).keys()
    classes = next(yaml.safe_load(token.content) for token in forged if token.info == "yaml")
    assert classes == [HOSTILE, "bee"]
    assert all(line.isprintable() for line in cards[0].split("\n"))
