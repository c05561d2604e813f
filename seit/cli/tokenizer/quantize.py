"""`seit tokenizer quantize NAME|FILE SRC NEWFILE`."""

from pathlib import Path

from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say, warn
from seit.numbers import human_bytes


def quantize(
    tokenizer: str,
    src: str,
    file: Path,
    /,
    *,
    bits: Integer = 8,
    group: Integer = 0,
    images: Integer = 128,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Store a tokenizer's weights in few bits, and say how many ids change on SRC.

    FILE is another tokenizer: never put tokens of both into one store. It takes fewer bytes, and as
    long to encode.

    Args:
        tokenizer: A shipped tokenizer's name, or a tokenizer file.
        src: Input to compare on, as for `seit tokenize`; its val split if it has one.
        file: A new .safetensors file.
        bits: Bits of a weight, 2 to 8.
        group: Inputs of a weight that share a scale; 0 for all of an output channel.
        images: Number of files to compare on, evenly spread.
        overwrite: Replace FILE.
        json: Print one JSON object.
    """
    from seit.compression import quantize_tokenizer

    result = quantize_tokenizer(
        tokenizer, src, out=file, bits=bits, group=group, images=images, overwrite=overwrite
    )
    warn(result.remarks)
    warn((result.warning,))
    if json:
        return print_result(result)
    print_table(
        [
            ("", "before", "after"),
            ("tokenizer", result.fingerprint_before[:16], result.fingerprint[:16]),
            ("size", human_bytes(result.bytes_before), human_bytes(result.bytes)),
            ("PSNR", f"{result.psnr_db_before:.2f} dB", f"{result.psnr_db:.2f} dB"),
            (
                "time per input",
                f"{result.milliseconds_before:.3g} ms",
                f"{result.milliseconds:.3g} ms",
            ),
        ],
        left=1,
    )
    return say(
        f"{result.ids_changed:.2%} of the ids changed, in {result.inputs_changed:.1%} of "
        f"{result.inputs:,} inputs"
    )
