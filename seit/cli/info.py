"""`seit info STORE`."""

from collections.abc import Iterator, Mapping

from seit.cli.output import human_bytes, print_json, print_table


def command(store: str, /, *, json: bool = False) -> None:
    """Say what a store holds.

    Args:
        store: A store's folder or URL.
        json: Print one JSON object.
    """
    from seit.shards import open_store

    opened = open_store(store)
    card = opened.card
    tokenizer = card.tokenizer
    splits = {split: card.samples_of(split) for split in card.splits}
    samples = max(card.samples, 1)
    per_sample = opened.num_bytes / samples
    if json:
        return print_json(
            {
                "samples": card.samples,
                "bytes": opened.num_bytes,
                "bytes_per_sample": per_sample,
                "payload_bytes_per_sample": card.payload_bytes / samples,
                "source_bytes_per_sample": card.source_bytes / samples,
                "grid": list(tokenizer.grid),
                "codebook_size": tokenizer.codebook_size,
                "codebook_dim": tokenizer.codebook_dim,
                "tokenizer": tokenizer.name,
                "tokenizer_fingerprint": tokenizer.fingerprint,
                "quality": dict(card.quality),
                "codec": card.codec,
                "container": card.container,
                "classes": list(card.classes),
                "splits": splits,
                "shards": sum(len(shards) for shards in card.splits.values()),
                "skipped": card.skipped,
            }
        )
    names = ", ".join(card.classes[:8]) + (", …" if len(card.classes) > 8 else "")
    height, width = tokenizer.grid
    return print_table(
        [
            ("samples", ", ".join(f"{name} {count:,}" for name, count in splits.items())),
            ("classes", f"{len(card.classes):,}: {names}" if card.classes else "none (unlabelled)"),
            (
                "size",
                f"{human_bytes(opened.num_bytes)}, {per_sample:.0f} B per sample "
                f"({card.payload_bytes / samples:.0f} B in shards; files had "
                f"{human_bytes(card.source_bytes / samples)})",
            ),
            (
                "tokens",
                f"{height}×{width} of {tokenizer.codebook_size:,} codes, {card.layout.bits} bits",
            ),
            (
                "tokenizer",
                ", ".join([tokenizer.name, *_quality(card.quality)]),
            ),
            ("shards", f"{sum(map(len, card.splits.values()))} × {card.container}, {card.codec}"),
            ("skipped", f"{card.skipped:,} unreadable inputs"),
        ]
    )


def _quality(quality: Mapping[str, float]) -> Iterator[str]:
    if "psnr_db" in quality:
        yield f"{quality['psnr_db']:.1f} dB"
    if "codebook_usage" in quality:
        yield f"{quality['codebook_usage']:.0%} of the codes in use"
