"""The model card: `README.md` with the front matter that Hugging Face reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, select_autoescape

from seit.train.exporting.spec import ExportSpec

CARD_NAME = "README.md"
_MOST_CLASSES = 1000
"""So many are listed on the card; `config.json` lists all."""
_TAGS = ("seit", "tokens", "timm")


@dataclass(frozen=True)
class StoreFigures:
    """The sizes of the store that a run was trained on.

    Attributes:
        samples: over all splits.
        bytes_per_sample: every byte of the store over its samples.
        source_bytes_per_sample: bytes of the original files over the samples.
    """

    samples: int
    bytes_per_sample: float
    source_bytes_per_sample: float


def write_card(
    spec: ExportSpec,
    *,
    name: str,
    files: Mapping[str, int],
    parameters: int,
    store: StoreFigures | None,
) -> str:
    """The text of a model card.

    Args:
        spec: the model.
        name: of it.
        files: the folder's other files and their sizes in bytes.
        parameters: of the network.
        store: what it was trained on; None where that is not at hand.
    """
    environment = Environment(
        autoescape=select_autoescape(default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
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


def _yaml(values: Any) -> str:
    return yaml.safe_dump(_lists(values), sort_keys=False, allow_unicode=True).rstrip("\n")


def _lists(value: Any) -> Any:
    """Tuples → lists, which is what safe YAML knows."""
    if isinstance(value, Mapping):
        return {key: _lists(entry) for key, entry in value.items()}
    return [_lists(entry) for entry in value] if isinstance(value, list | tuple) else value
