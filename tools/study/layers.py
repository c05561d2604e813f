"""Phone content of the layers of real networks, with controls, and what the figures rest on.

Parts:

    voices   Whisper-tiny.en on synthetic voices (espeak-ng) with exact phone times
    digits   Whisper-tiny.en on real voices: spoken digits (--digits FSDD), phones by forced
             alignment, which is off by 20 to 30 ms
    tokens   a network of our own, pretrained on audio tokens, on the synthetic voices
    cka      unbiased CKA in one pass, compared with the formula over n × n kernels
    memory   peak memory and time of an analysis of HuBERT-base's shapes, compared with its forward
             passes alone

Folds are voices, so that a layer is asked about voices that it was not fitted to. Controls: the
same network with random weights, the input (log-mel spectrogram or tokens), rearranged labels.
Finished parts are kept in the record and not repeated; interrupted training and analyses continue.
Needs espeak-ng; prints JSON::

    uv run --extra speech --extra brain python tools/study/layers.py --work DIR --digits FSDD
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import DOCS, check, environment, plot_layers, write
from speech_tokens import make_stores, pretrain
from voices import make_corpus
from whisper_weights import convert, fetch

import seit
from seit.analysis.layers.cka import Hsic, cka_of

METHODS = ("cca", "ridge")
_ALIGN = ("pocketsphinx==5.1.1", "soundfile", "soxr")


def voices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Analyze Whisper-tiny.en on synthetic voices."""
    work, speech = arguments.work, _speech(arguments)
    found = _analyze(arguments, "voices", f"hf:{_whisper(work)}", speech / "sounds", speech)
    scores = _scores(found)
    rows = scores["cca"]
    own = _values(rows["subject"])
    mel = _values(rows["input"])["mel"]
    twin = _values(rows["random"])
    best = max(own.values())
    probes = _values(scores["ridge"]["subject"]) if "ridge" in scores else {}
    probe = {"C1 best probe": check(max(probes.values()), least=0.93)} if probes else {}
    return {
        "material": "synthetic voices (espeak-ng), exact phone times",
        "seconds": arguments.seconds,
        **_sizes(found["cca"]),
        "scores": scores,
        "floors": probe
        | {
            "C1 best CCA": check(best, least=0.72),
            "C1 best CCA over mel": check(best - mel, least=0.40),
            "C1 random blocks": check(
                max(score for name, score in twin.items() if name != "stem"), most=0.20
            ),
            "C1 null": check(max(abs(row["null_mean"]) for row in rows["subject"]), most=0.03),
            "C1 depth of the best block": check(_best_depth(rows["subject"]), most=0.99),
        },
    }


def digits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Analyze Whisper-tiny.en on real voices."""
    if arguments.digits is None:
        raise SystemExit("the part digits needs --digits, the folder of FSDD")
    folder = arguments.work / "digits"
    if not (folder / "align.csv").exists():
        tool = Path(__file__).with_name("align_digits.py")
        packages = [part for package in _ALIGN for part in ("--with", package)]
        command = ["uv", "run", "-q", "--no-project", *packages, "python", str(tool)]
        command += [str(arguments.digits), str(folder), "--every", "3"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subject = f"hf:{_whisper(arguments.work)}"
    found = _analyze(arguments, "digits", subject, folder / "sounds", folder)
    return {
        "material": "spoken digits (FSDD), real voices; phones by pocketsphinx, no ground truth",
        **_sizes(found["cca"]),
        "scores": _scores(found),
        "floors": {},
    }


def tokens(arguments: argparse.Namespace) -> dict[str, Any]:
    """Analyze a network of our own on the tokens of synthetic voices."""
    speech = _speech(arguments)
    store, own = make_stores(arguments.work, speech / "sounds")
    run = pretrain(arguments.work, store, steps=arguments.steps)
    found = _analyze(arguments, "tokens", str(run), own, speech, split="train")
    scores = _scores(found)
    return {
        "material": "tokens (mel-vq-1s) of synthetic voices (espeak-ng), exact phone times",
        "network": "ViT of width 64 and 3 blocks, masked tokens on an hour of other words",
        "steps": arguments.steps,
        **_sizes(found["cca"]),
        "scores": scores,
        "floors": _token_floors(scores["ridge"]) if "ridge" in scores else {},
    }


def _token_floors(scores: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    own, twin = _values(scores["subject"]), _values(scores["random"])
    blocks = [name for name in own if name.startswith("blocks.")]
    best = max(own[name] for name in blocks)
    return {
        "C2 least lead of a block's probe over its twin": check(
            min(own[name] - twin[name] for name in blocks), least=0.05
        ),
        "C2 best block's probe over the stem's": check(best - own["stem"], least=0),
    }


def cka(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare CKA in one pass with its definition, and with values that are known."""
    del arguments
    random = np.random.default_rng(0)
    x, other = random.normal(size=(500, 300)), random.normal(size=(500, 300))
    mixed = x[:, :150] @ random.normal(size=(150, 40)) + 3.0
    one_pass, plain = _one_pass(x + 3.0, mixed), _by_kernels(x + 3.0, mixed)
    large, apart = random.normal(size=(4000, 300)), random.normal(size=(4000, 300))
    return {
        "floors": {
            "C3 one pass and n × n": check(abs(one_pass - plain), most=1e-10),
            "C3 independent": check(abs(_one_pass(large, apart)), most=0.01),
            "C3 half of the columns": check(
                abs(_one_pass(large, large[:, :150]) - 0.5**0.5), most=0.01
            ),
        },
        "independent_500": _one_pass(x, other),
    }


def _one_pass(x: np.ndarray, y: np.ndarray) -> float:
    """Return CKA from sums over blocks of samples, around a pilot mean as in an analysis."""
    x, y = x - x[:50].mean(0), y - y[:50].mean(0)
    pairs = ((x, y), (x, x), (y, y))
    sums = [Hsic(a.shape[1], b.shape[1]) for a, b in pairs]
    for one, (a, b) in zip(sums, pairs, strict=True):
        for start in range(0, len(a), 128):
            one.add(a[start : start + 128], b[start : start + 128])
    return cka_of(*sums)


def _by_kernels(x: np.ndarray, y: np.ndarray) -> float:
    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        cross = k.sum(0) @ m.sum(0)
        total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
        return float(total / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure an analysis of HuBERT-base's shapes, each side in a process of its own."""
    speech, folder = _speech(arguments), arguments.work / "hubert-shapes"
    tool = Path(__file__).with_name("analysis_cost.py")
    found = {}
    for what in ("forward", "analysis"):
        command = [sys.executable, str(tool), what, str(folder), str(speech)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[what] = json.loads(done.stdout)
    extra = found["analysis"]["peak_bytes"] - found["forward"]["peak_bytes"]
    ratio = found["analysis"]["cpu_seconds"] / found["forward"]["cpu_seconds"]
    return found | {
        "floors": {
            "C4 bytes beside the model": check(extra, most=400e6),
            "C4 time over forward alone": check(ratio, most=1.3),
        }
    }


def _speech(arguments: argparse.Namespace) -> Path:
    folder = arguments.work / "speech"
    if not (folder / "align.csv").exists():
        make_corpus(folder, seconds=arguments.seconds)
    return Path(folder)


def _whisper(work: Path) -> Path:
    if not (work / "whisper").exists():
        convert(fetch(work), work / "whisper")
    return work / "whisper"


def _analyze(
    arguments: argparse.Namespace,
    part: str,
    subject: str,
    data: Path,
    material: Path,
    **changes: Any,
) -> dict[str, dict[str, Any]]:
    """Analyze with each method, or read what was finished before."""
    found = {}
    for method in arguments.methods:
        out = arguments.work / f"layers-{part}-{method}"
        if (out / "layers.json").exists():
            found[method] = json.loads((out / "layers.json").read_text())
            continue
        result = seit.analyze(
            subject,
            data=data,
            method=method,
            target="phone",
            align=material / "align.csv",
            groups=str(material / "groups.csv"),
            folds=6,
            out=out,
            resume=True,
            **changes,
        )
        found[method] = result.record()
    return found


def _scores(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {
        method: {
            "subject": one["layers"],
            "random": one["controls"][0]["layers"],
            "input": one["controls"][1]["layers"] if len(one["controls"]) > 1 else [],
        }
        for method, one in found.items()
    }


def _values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["name"]: row["score"] for row in rows}


def _best_depth(rows: list[dict[str, Any]]) -> float:
    return float(max(rows, key=lambda row: row["score"])["depth"])


def _sizes(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"samples": found["samples"], "types": found["types"], "voices": found["groups"]}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "cka": cka,
    "voices": voices,
    "digits": digits,
    "tokens": tokens,
    "memory": memory,
}


def main() -> None:
    """Run the parts that the record lacks, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for material and reports")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--digits", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--seconds", type=float, default=550, help="synthetic speech to analyze")
    parser.add_argument("--steps", type=int, default=3000, help="of pretraining on tokens")
    parser.add_argument("--json", type=Path, default=DOCS / "results" / "layers.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work = arguments.work.absolute()
    arguments.work.mkdir(parents=True, exist_ok=True)
    report = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name in arguments.parts:
        scores = report.get(name, {}).get("scores", dict.fromkeys(arguments.methods))
        if name not in report or set(arguments.methods) - set(scores):
            versions = {"environment": environment("transformers")}
            report[name] = PARTS[name](arguments) | versions
            write(report, arguments.json)
    for name in {"voices", "digits", "tokens"} & report.keys():
        _plot(name, report[name])
    print(json.dumps(report, indent=1))


def _plot(name: str, part: dict[str, Any]) -> None:
    rows = part["scores"]["cca"]
    named = {"trained": rows["subject"], "random weights": rows["random"], "input": rows["input"]}
    null = [(row["null_mean"], row["null_std"]) for row in rows["subject"]]
    plot_layers(
        DOCS / f"layers-{name}.svg",
        {
            label: [(row["name"], row["score"], row["std"]) for row in layers]
            for label, layers in named.items()
            if layers
        },
        title=f"Phones: {part['material'].split(';')[0]}",
        ylabel="held-out CCA, ± deviation over folds",
        null=(min(m - 2 * s for m, s in null), max(m + 2 * s for m, s in null)),
    )


if __name__ == "__main__":
    main()
