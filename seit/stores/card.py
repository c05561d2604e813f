"""Dataset card of a store: `README.md` with the front matter that Hugging Face reads.

Names of classes, splits and the tokenizer are untrusted: they are escaped in Markdown and YAML.
"""

import re
import shlex
from importlib import resources
from typing import Any

from seit.errors import UsageError
from seit.printable import printable
from seit.report import markdown_page, yaml_text
from seit.shards import Location, Store, as_store
from seit.stores.info import StoreInfo, describe_store

CARD_PAGE_NAME = "README.md"
"""Name of the file that holds the card."""
_MOST_CLASSES = 1000
"""Maximum number of classes on the card; `store.json` lists all."""
_BATCH = 256
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
_LARGEST = "n>1T"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}", re.ASCII)
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
"""Names of splits that the front matter may hold."""


def write_dataset_card(
    store: Store | Location, *, name: str = "", place: str = "STORE", license_id: str = ""
) -> str:
    """Return the text of a dataset card, written from the store's own card alone.

    Args:
        store: an open store, or its path or URL.
        name: name of the data set; the last part of the store's place by default.
        place: path or URL from which readers load the store, as in the examples of the card.
        license_id: identifier of a license, such as ``cc0-1.0``; the card asks for one without it.

    Raises:
        UsageError: there is no store, or the license is no identifier.
        DamagedError: the card of the store is damaged.
    """
    if license_id and not _LICENSE.fullmatch(license_id):
        raise UsageError(
            f"license is {license_id[:80]!r}; expected an identifier such as cc0-1.0, cc-by-4.0 or "
            "other"
        )
    store = as_store(store)
    name = printable(name or str(store.folder).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1])
    info = describe_store(store)
    first = next(iter(store), "train")
    text = resources.files(__package__).joinpath("card.md.j2").read_text("utf-8")
    return markdown_page(
        text,
        {
            "front_matter": yaml_text(_front_matter(store, info, name=name, license_id=license_id)),
            "name": name,
            "license": license_id,
            "place": place,
            "shell_place": shlex.quote(printable(place)),
            "info": info,
            "first_split": first,
            "batch_size": max(1, min(_BATCH, info.splits.get(first, 0))),
            "modality": store.card.tokenizer.modality,
            "preprocessing": store.card.tokenizer.preprocessing,
            "splits": [
                (split, samples, sum(shard.bytes for shard in store.card.splits[split]))
                for split, samples in info.splits.items()
            ],
            "classes": yaml_text(list(info.classes[:_MOST_CLASSES])),
            "unlisted": max(0, len(info.classes) - _MOST_CLASSES),
        },
    )


def _front_matter(store: Store, info: StoreInfo, *, name: str, license_id: str) -> dict[str, Any]:
    modality = store.card.tokenizer.modality
    labeled = modality in ("image", "audio") and len(info.classes) > 0
    # The Hub's viewer would take the blocks of tokens for samples.
    found: dict[str, Any] = {
        "pretty_name": name,
        **({"license": license_id} if license_id else {}),
        **({"task_categories": [f"{modality}-classification"]} if labeled else {}),
        "size_categories": [_size_category(info.samples)],
        "tags": ["seit", "tokens", modality],
        "viewer": False,
    }
    if all(_SPLIT.fullmatch(split) for split in info.splits):
        found["dataset_info"] = {
            "splits": [
                {
                    "name": split,
                    "num_bytes": sum(shard.bytes for shard in store.card.splits[split]),
                    "num_examples": samples,
                }
                for split, samples in info.splits.items()
            ],
            "download_size": info.bytes,
            "dataset_size": store.card.payload_bytes,
        }
    return found


def _size_category(samples: int) -> str:
    return next((label for bound, label in _SIZES if samples < bound), _LARGEST)
