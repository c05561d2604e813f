"""Phone content of each layer of a real speech model: Whisper-tiny.en on synthetic voices.

Folds are voices, so that a layer is asked about voices that it was not fitted to. Controls: the
same network with random weights, log-mel spectrograms, and rearranged labels. Prints JSON; needs
espeak-ng and transformers::

    uv run python tools/study/layers.py --work /tmp/layers --seconds 550
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
import transformers
from voices import make_corpus
from whisper_weights import convert, fetch

import seit
from seit.analysis import AnalyzeResult

FLOORS = {"cca_best": 0.72, "cca_over_mel": 0.40, "probe_best": 0.93, "random_most": 0.20}


def main() -> None:
    """Make the material if it is missing, analyze, and print the figures beside their floors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for material and reports")
    parser.add_argument("--seconds", type=float, default=550, help="speech to analyze")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "whisper").exists():
        convert(fetch(work), work / "whisper")
    if not (work / "speech" / "align.csv").exists():
        make_corpus(work / "speech", seconds=arguments.seconds)
    found = {method: _analyze(work, method) for method in ("cca", "ridge")}
    scores = {
        method: {"best": one.best_layer, "layers": {x.name: x.score for x in one.layers}}
        for method, one in found.items()
    }
    mel = {method: one.controls[-1].layers[0].score for method, one in found.items()}
    random = {
        method: {x.name: x.score for x in one.controls[0].layers} for method, one in found.items()
    }
    cca = found["cca"]
    best = max(layer.score for layer in cca.layers)
    blocks = [score for name, score in random["cca"].items() if name != "stem"]
    checks = {
        "cca_best": best >= FLOORS["cca_best"],
        "cca_over_mel": best - mel["cca"] >= FLOORS["cca_over_mel"],
        "probe_best": max(x.score for x in found["ridge"].layers) >= FLOORS["probe_best"],
        "random_most": max(blocks) <= FLOORS["random_most"],
        "null": all(abs(layer.null_mean) <= 0.03 for layer in cca.layers),
        "best_is_not_last": cca.best_layer != cca.layers[-1].name,
    }
    print(
        json.dumps(
            {
                "material": "synthetic voices (espeak-ng), exact phone times",
                "samples": cca.samples,
                "types": cca.types,
                "voices": cca.groups,
                "scores": scores,
                "pwcca": {x.name: x.weighted for x in cca.layers},
                "training_cca": {x.name: x.train for x in cca.layers},
                "null": {x.name: [x.null_mean, x.null_std] for x in cca.layers},
                "mel": mel,
                "random": random,
                "floors": FLOORS,
                "holds": checks,
                "cpu_seconds": time.process_time(),
                "versions": {
                    "seit": seit.__version__,
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "python": platform.python_version(),
                },
                "machine": platform.processor() or platform.machine(),
            },
            indent=2,
        )
    )


def _analyze(work: Path, method: str) -> AnalyzeResult:
    out = work / f"report-{method}-{time.strftime('%H%M%S')}"
    return seit.analyze(
        f"hf:{work / 'whisper'}",
        data=work / "speech" / "sounds",
        method=method,
        target="phone",
        align=work / "speech" / "align.csv",
        groups=str(work / "speech" / "groups.csv"),
        folds=6,
        out=out,
    )


if __name__ == "__main__":
    main()
