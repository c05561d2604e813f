"""Recognition of images and audio by file name, for listings and messages."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from seit.errors import UsageError
from seit.ingest.sources.corpus import Instance, shown
from seit.modality import Modality

EXTENSIONS: dict[Modality, tuple[str, ...]] = {
    "image": (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "gif", "tif", "tiff"),
        *("ppm", "avif", "jp2", "j2k"),
        # unsupported: each is listed with its reason
        *("heic", "heif", "jxl", "psd", "nef", "cr2", "cr3", "arw", "dng", "raf", "orf", "rw2"),
    ),
    "audio": (
        *("flac", "wav", "ogg", "mp3", "opus", "oga", "aif", "aiff", "aifc"),
        *("w64", "rf64", "bw64", "au", "snd", "caf", "sph"),
        *("m4a", "aac", "amr", "wma"),  # unsupported, as above
    ),
}
_SIDE_FILE = re.compile(
    r"""\.( txt|md|rst|tex|html?|css|js|pdf|docx?|xlsx?|rtf
    | xml|jsonl?|ndjson|csv|tsv|ya?ml|toml|ini|cfg|conf|log
    | py|ipynb|sh|bat|mat|npy|npz|pkl|pickle|h5|hdf5|pth?|onnx|safetensors
    | parquet|arrow|names|data|cache|db|sqlite|zip|t?gz|tar|7z|rar
    | xmp|aae|cls|caption|lst|lab|textgrid|srt|vtt )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
"""Names of files that accompany pictures and clips: annotations, notes, tables, weights."""
COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
NOUNS: dict[Modality, tuple[str, str]] = {"image": ("image", "images"), "audio": ("audio", "audio")}
"""Nouns for "no … member" and "holds no …"."""

_PROPOSED: dict[Modality, str] = {
    "image": "an image tokenizer, such as `seit tokenize --tokenizer patch-pca-vq`",
    "audio": "an audio tokenizer, such as `seit tokenize --tokenizer mel-vq-5s` (or -1s, -10s: "
    "seconds a window)",
}


def other(modality: Modality) -> Modality:
    """Return the other modality."""
    return "audio" if modality == "image" else "image"


def proposal(source: str, found: Modality, count: int) -> str:
    """Return the message for a tokenizer whose modality is not the source's."""
    return (
        f"{shown(source)} holds {count:,} {'audio files' if found == 'audio' else 'images'} and no "
        f"{NOUNS[other(found)][1]}; pass {_PROPOSED[found]}"
    )


def is_medium(name: str) -> bool:
    """Return True for the name of an image or audio file."""
    return name.rpartition(".")[2].lower() in chain(*EXTENSIONS.values())


def is_side_file(name: str) -> bool:
    """Return True for the name of a side file such as notes, neither image nor audio.

    Files without an extension, or with an unknown one, may be images.
    """
    return _SIDE_FILE.search(name) is not None


def is_shard(name: str) -> bool:
    """Return True for the name of a tar, compressed or not, or of a Parquet or Arrow file."""
    is_plain = name.lower().endswith((".tar", ".parquet", ".arrow"))
    return is_plain or COMPRESSED_TAR.search(name) is not None


def check_counts(source: str, counts: Mapping[str, int], modality: Modality) -> None:
    """As :func:`check_media`, from the numbers of files that are named as of each modality.

    Raises:
        UsageError: the modality differs; the message proposes a tokenizer.
    """
    found = counts.get(other(modality), 0)
    if found and not counts.get(modality, 0):
        raise UsageError(proposal(source, other(modality), found))


def check_media(source: str, instances: Sequence[Instance], modality: Modality) -> None:
    """Refuse a source whose media files, by their names, are all of the other modality.

    Raises:
        UsageError: the modality differs; the message proposes a tokenizer.
    """
    if any(True for _ in _of(instances, modality)):
        return
    found = sum(1 for _ in _of(instances, other(modality)))
    if found:
        raise UsageError(proposal(source, other(modality), found))


def _of(instances: Sequence[Instance], modality: Modality) -> Iterator[Instance]:
    extensions = EXTENSIONS[modality]
    return (entry for entry in instances if entry.key.rpartition(".")[2].lower() in extensions)


def check_derived_keys(instances: Sequence[Instance], *, sign: str, part: str) -> None:
    """Refuse keys that a part (window or view) of another instance might have.

    Args:
        instances: all instances of a corpus.
        sign: text between the key of an instance and the number of its part.
        part: noun for a part.

    Raises:
        UsageError: a key is that of another instance, ``sign`` and a number.
    """
    keys = {entry.key for entry in instances}
    for key in keys:
        stem, found, number = key.rpartition(sign)
        if found and number.isascii() and number.isdigit() and stem in keys:
            raise UsageError(
                f"{shown(key)} has the name of a {part} of {shown(stem)}; rename one of them"
            )
