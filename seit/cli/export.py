"""`seit export RUN OUT`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, warn
from seit.numbers import human_bytes


def command(
    run: Path,
    out: Path,
    /,
    *,
    format: Annotated[  # noqa: A002
        list[Literal["safetensors", "onnx", "torch"]] | None, Parameter(consume_multiple=True)
    ] = None,
    inputs: Annotated[
        list[Literal["tokens", "images", "audio"]] | None, Parameter(consume_multiple=True)
    ] = None,
    opset: Integer | None = None,
    store: str | None = None,
    json: bool = False,
) -> None:
    """Write the model of a finished run for use elsewhere: weights, ONNX, torch.export and a card.

    Every file is read back and compared with the run's model before OUT appears.

    Args:
        run: A finished run's folder.
        out: A new or empty folder.
        format: safetensors, onnx, torch, or several of them; all by default.
        inputs: What the networks take: tokens, images, audio; by default all that the run allows.
        opset: Version of ONNX's operators, 18 to 23; 20 by default.
        store: The store that the run was trained on, for the sizes on the card.
        json: Print one JSON object.
    """
    from seit.api import export

    result = export(run, out=out, formats=format, inputs=inputs, opset=opset, store=store)
    warn([f"no file takes {kind}: {reason}" for kind, reason in result.missing.items()])
    warn([f"{name} was not checked: install onnxruntime" for name in result.unchecked])
    if json:
        return print_result(result)
    return print_table(
        [
            (file.name, f"{human_bytes(file.bytes)}{_checked(file.logit_difference)}")
            for file in result.files
        ]
    )


def _checked(difference: float | None) -> str:
    return "" if difference is None else f", logits within {difference:.1g} of the run's"
