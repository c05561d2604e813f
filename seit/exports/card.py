"""Model card: `README.md` with the front matter that Hugging Face reads.

Names of classes, splits and settings are untrusted: they are escaped in Markdown and YAML.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from seit.errors import UsageError
from seit.exports.spec import ExportSpec
from seit.report import MANY_CLASSES, markdown_page, yaml_text
from seit.shards import Store, as_store

CARD_NAME = "README.md"
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
    text = resources.files(__package__).joinpath("card.md.j2").read_text("utf-8")
    return markdown_page(
        text,
        {
            "front_matter": yaml_text(_front_matter(spec, name)),
            "name": name,
            "spec": spec,
            "settings": yaml_text(spec.settings),
            "files": files,
            "parameters": parameters,
            "store": store,
            "classes": yaml_text(list(spec.classes[:_MOST_CLASSES])),
            "unlisted": max(0, len(spec.classes) - _MOST_CLASSES),
            "has_label_sets": spec.result.get("mean_average_precision") is not None,
            "has_top5": len(spec.classes) > MANY_CLASSES,
            "levels": spec.tokenizer.codebook[0] if len(spec.tokenizer.codebook) == 3 else 1,
        },
    )


def _front_matter(spec: ExportSpec, name: str) -> dict[str, Any]:
    task = f"{spec.modality}-classification"
    metrics = [
        {"type": "accuracy", "name": label, "value": round(float(spec.result[key]), 4)}
        for key, label in (("top1", "top-1"), ("top5", "top-5"))
        if key != "top5" or len(spec.classes) > MANY_CLASSES
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
