"""Description of a job: all that determines the bytes of its store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seit.errors import UsageError
from seit.ingest.config import TokenizeConfig
from seit.shards import EDITS_ENTRY, TokenizerInfo
from seit.tokenizers import Tokenizer, find_shipped


def describe_job(
    fingerprint: str, config: TokenizeConfig, given: Tokenizer | None
) -> dict[str, Any]:
    """Return all that determines the bytes of the store; equal descriptions make equal stores."""
    is_pieces = config.plan == "pieces"
    return {
        "source": fingerprint,
        "tokenizer": given.fingerprint if given else config.tokenizer,
        "size": config.size,
        "codes": given.num_codes if given else config.fitted_codes,
        "codec": config.codec,
        "container": config.container,
        "val_fraction": config.val_fraction,
        "shard_samples": config.shard_samples,
        "max_pixels": config.max_pixels,
        "seed": config.seed,
        **({"max_seconds": config.max_seconds} if config.modality == "audio" else {}),
        **({"compile": True} if config.compile else {}),
        **({"label_separator": separator} if (separator := config.label_separator) else {}),
        **({"views": config.views} if config.views > 1 else {}),
        **({"embed_tokenizer": True} if config.embed_tokenizer else {}),
        **({"plan": "pieces"} if is_pieces else {}),
        **({"fit_samples": count} if is_pieces and (count := config.fit_samples) else {}),
    }


def is_same_job(earlier: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Return True if two descriptions are of one job, perhaps by different versions.

    Jobs of sounds once took ``max_pixels``, which had no effect.
    """
    return _effective(earlier) == _effective(job)


def _effective(job: Mapping[str, Any]) -> dict[str, Any]:
    ignored = ("max_pixels",) if "max_seconds" in job else ()
    return {key: value for key, value in job.items() if key not in ignored}


def check_same_job(earlier: dict[str, Any], job: dict[str, Any], store: Path | str) -> None:
    """Refuse to continue a job at ``store`` that began as another one.

    Raises:
        UsageError: the descriptions differ; the message says in what.
    """
    if is_same_job(earlier, job):
        return
    # The source's fingerprint covers the splits, so another setting may change it too.
    one, other = _effective(earlier), _effective(job)
    settings = [key for key in {**other, **one} if one.get(key) != other.get(key)]
    if EDITS_ENTRY in earlier:
        raise UsageError(
            f"{store} was updated, merged, filtered or had samples deleted after it was made; pass "
            "--update to bring it up to date with SRC, choose another STORE, or pass --overwrite"
        )
    if not earlier:
        reason = "its record is damaged"
    elif settings != ["source"]:
        reason = ", ".join(
            f"{key} was {_shown(key, earlier)!r} and is {_shown(key, job)!r}"
            for key in settings
            if key != "source"
        )
    else:
        reason = "the files of SRC have changed"
    raise UsageError(
        f"{store} belongs to another job ({reason}); repeat that job unchanged, choose another "
        "STORE, or pass --overwrite"
    )


def _shown(key: str, job: dict[str, Any]) -> Any:
    """Return a value of a description for a message: a shipped tokenizer by its name."""
    value = job.get(key)
    shipped = find_shipped(value) if key == "tokenizer" and isinstance(value, str) else None
    return value if shipped is None else shipped.name


def describe_tokenizer(tokenizer: Tokenizer) -> TokenizerInfo:
    """Return the card's entry for a tokenizer."""
    return TokenizerInfo(
        name=tokenizer.name,
        fingerprint=tokenizer.fingerprint,
        modality=tokenizer.modality,
        preprocessing=tokenizer.preprocessing(),
        grid=tokenizer.grid,
        codebook_size=tokenizer.num_codes,
        codebook_dim=tokenizer.codebook_dim,
        flip_equivariant=tokenizer.flip_equivariant,
    )
