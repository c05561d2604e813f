"""Model card: `README.md` with the front matter that Hugging Face reads.

Names of classes, splits and settings are untrusted: they are escaped in Markdown and YAML.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, select_autoescape

from seit.errors import UsageError
from seit.exports.spec import ExportSpec
from seit.printable import CONTROLS, printable
from seit.shards import Store, as_store

CARD_NAME = "README.md"
_MARKUP = re.compile(
    r"([\\`*{}\[\]<>#~&|!@]|(?<!\w)_|_(?!\w)|:(?=/)|(?<=www)\.)", re.ASCII | re.IGNORECASE
)
"""Characters with a meaning in Markdown, HTML or links."""
_MOST_CLASSES = 1000
"""Maximum number of classes on the card; `config.json` lists all."""
_TAGS = ("seit", "tokens", "timm")


@dataclass(frozen=True)
class StoreFigures:
    """Sizes of the store that a run was trained on.

    Attributes:
        samples: number of samples over all splits.
        bytes_per_sample: total bytes of the store divided by its samples.
        source_bytes_per_sample: bytes of the original files divided by the samples.
    """

    samples: int
    bytes_per_sample: float
    source_bytes_per_sample: float


def measure_store(store: Store | str | Path, spec: ExportSpec) -> StoreFigures:
    """Return the sizes of a run's training store; raise UsageError if it is another store."""
    store = as_store(store)
    if store.card.seal != spec.store:
        raise UsageError(
            f"{store.folder} is not the store that the run was trained on, or has changed since; "
            "pass that one or leave --store out"
        )
    samples = max(1, store.card.samples)
    return StoreFigures(
        samples=store.card.samples,
        bytes_per_sample=store.num_bytes / samples,
        source_bytes_per_sample=store.card.source_bytes / samples,
    )


def write_card(
    spec: ExportSpec,
    *,
    name: str,
    files: Mapping[str, int],
    parameters: int,
    store: StoreFigures | None,
) -> str:
    """Return the text of a model card.

    Args:
        spec: exported model.
        name: name of the model.
        files: the folder's other files and their sizes in bytes.
        parameters: number of parameters.
        store: sizes of the training store; None if it is not available.
    """
    environment = Environment(
        autoescape=select_autoescape(default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "code": _code, "block": _block, "string": json.dumps}
    text = resources.files(__package__).joinpath("card.md.j2").read_text("utf-8")
    return environment.from_string(text).render(
        front_matter=_yaml(_front_matter(spec, name)),
        name=name,
        spec=spec,
        settings=_yaml(spec.settings),
        files=files,
        parameters=parameters,
        store=store,
        classes=_yaml(list(spec.classes[:_MOST_CLASSES])),
        unlisted=max(0, len(spec.classes) - _MOST_CLASSES),
        levels=spec.tokenizer.codebook[0] if len(spec.tokenizer.codebook) == 3 else 1,
    )


def _front_matter(spec: ExportSpec, name: str) -> dict[str, Any]:
    task = f"{spec.modality}-classification"
    metrics = [
        {"type": "accuracy", "name": label, "value": round(float(spec.result[key]), 4)}
        for key, label in (("top1", "top-1"), ("top5", "top-5"))
    ]
    mean = spec.result.get("mean_average_precision")
    if mean is not None:
        metrics.insert(
            0, {"type": "mean_average_precision", "name": "mAP", "value": round(mean, 4)}
        )
    dataset = {
        "type": "seit-store",
        "name": f"seit store {spec.store[:12]}",
        "split": spec.result["split"],
    }
    return {
        "library_name": "timm",
        "pipeline_tag": task,
        "tags": [*_TAGS, task],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": name,
                "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}],
            }
        ],
    }


def _plain(value: object) -> str:
    """Return a value as plain, escaped text in a line of Markdown."""
    return _MARKUP.sub(r"\\\1", printable(value))


def _code(value: object) -> str:
    """Return a value as code in a line of Markdown, also in a table."""
    text = printable(value).replace("|", "\\|")
    ticks = "`" * (1 + _longest_ticks(text))
    space = " " if len(ticks) > 1 else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _block(text: str, language: str) -> str:
    """Return a block of code with a fence longer than any inside."""
    fence = "`" * max(3, 1 + _longest_ticks(text))
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


class _Dumper(yaml.SafeDumper):
    """Dumper that writes texts with control characters on one line, escaped."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Represent a text."""
        style = '"' if CONTROLS.search(value) else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _Dumper.text)


def _yaml(values: Any) -> str:
    text = yaml.dump(
        _lists(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30
    )
    # Quote those that PyYAML considers printable, so that YAML escapes them with four digits.
    lines = text.rstrip("\n").split("\n")
    return "\n".join(CONTROLS.sub(lambda c: f"\\u{ord(c[0]):04x}", line) for line in lines)


def _lists(value: Any) -> Any:
    """Convert tuples to lists, for safe YAML."""
    if isinstance(value, Mapping):
        return {key: _lists(entry) for key, entry in value.items()}
    return [_lists(entry) for entry in value] if isinstance(value, list | tuple) else value
