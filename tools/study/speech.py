"""Few clips, speakers held out: tuning Whisper-tiny.en on waveforms, and the same clips as tokens.

Spoken digits (FSDD): each seed trains on one clip of each digit from five speakers, 5 clips a
digit, and is tested on 5 clips of each digit from the sixth. Rows are paired by seed. Each row has
its own learning rate of three, chosen on a speaker who is never tested. The folder of FSDD is
named; weights of Whisper come from the package index. Prints JSON, rewritten after each run; the
same command continues after an interruption::

    uv run --extra speech --extra brain python tools/study/speech.py FSDD --work DIR --seeds 5
"""

import argparse
import csv
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from records import DOCS, check, environment, spread, write
from speech_tokens import make_stores, pretrain
from voices import make_corpus
from whisper_weights import convert, fetch

import seit

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TOKEN_ROWS = ("tokens, from scratch", "tokens, masked tokens first")
FIRST = ("linear", "weighted-sum", "lora", "houlsby", "prefix", "full", "bitfit", "adapterbias")
LATER = ("adalora", *TOKEN_ROWS)
"""Methods of the speech model, and rows on tokens, in the order of running."""
PER_DIGIT = 5
RATES = (1.0, 3.0, 10.0)
"""Learning rates of each row, as multiples of its recipe's."""
RECIPE_RATES = {"full": 1e-4}
OTHER_RATE = 1e-3
DEV_SEEDS = (5, 11)
"""Seeds on which the rates are chosen; they hold out `yweweler`, whom no seed below 5 holds out."""
MOST_SEEDS = 5
STEM_CACHE_BYTES = 100_000_000
STEPS, BATCH, TOKEN_STEPS = 40, 25, 200
WAVEFORM_BYTES = 32_000
"""Bytes of a clip, padded to 1 s, at 16 kHz in 16 bits."""


def write_manifest(fsdd: Path, path: Path, *, seed: int) -> str:
    """Write the clips of a seed as `path,label,split`; return the speaker who is held out."""
    draw = random.Random(seed)
    held = SPEAKERS[seed % len(SPEAKERS)]
    rows = []
    for digit in range(10):
        for speaker in SPEAKERS:
            clips = sorted(fsdd.glob(f"*/{digit}/{digit}_{speaker}_*.wav"))
            split, count = ("val", PER_DIGIT) if speaker == held else ("train", 1)
            rows += [(clip, digit, split) for clip in draw.sample(clips, count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return held


def rate_of(row: str, multiple: float) -> float:
    """Return a learning rate."""
    return RECIPE_RATES.get(row, OTHER_RATE) * multiple


def folder_of(work: Path, row: str, seed: int, multiple: float) -> Path:
    """Return the folder of a run."""
    kind, name = ("tokens", row.split(", ")[1]) if row in TOKEN_ROWS else ("tuned", row)
    return work / kind / name.replace(" ", "-") / f"rate-{multiple:g}" / f"seed-{seed}"


def is_finished(folder: Path) -> bool:
    """Return whether a run has its result."""
    record = folder / "run.json"
    return record.is_file() and json.loads(record.read_text())["status"] == "finished"


def tune(work: Path, method: str, seed: int, multiple: float) -> dict[str, Any]:
    """Tune the speech model by a method on waveforms."""
    rate = rate_of(method, multiple)
    is_full = method == "full"
    run = seit.tune(
        str(work / "manifests" / f"{seed}.csv"),
        out=folder_of(work, method, seed, multiple),
        backbone=f"hf:{work / 'whisper'}",
        method=method,
        recipe="tune-speech-small-cpu",
        steps=STEPS,
        batch_size=BATCH,
        seed=seed,
        resume=True,
        **{
            "speech.seconds": 1.0,
            "speech.stem_cache_bytes": 0 if is_full else STEM_CACHE_BYTES,
            "run.eval_every": STEPS,
            "optim.full_lr" if is_full else "optim.lr": rate,
        },
    )
    shares = {"layer_shares": run.layer_shares} if run.layer_shares else {}
    return {
        "top1": run.top1,
        **shares,
        "tuning_parameters": run.tuning_parameters,
        "parameters": run.parameters,
        "adapter_bytes": run.adapter_bytes,
        "seconds": run.seconds,
    }


def train_tokens(
    work: Path, row: str, seed: int, multiple: float, *, tokenizer: Path, start: Path | None
) -> dict[str, Any]:
    """Train a classifier on the tokens of the same clips, from scratch or from our own network."""
    store = work / "token-stores" / str(seed)
    if not (store / "store.json").exists():
        manifest = work / "manifests" / f"{seed}.csv"
        seit.tokenize(manifest, out=store, tokenizer=str(tokenizer), codec="packed")
    changes: dict[str, Any] = {"run.eval_every": TOKEN_STEPS, "optim.lr": rate_of(row, multiple)}
    changes |= {"model.stem": "4/4/0"}
    if start is not None:
        changes |= {"init_from": start}
        changes |= {"model.stem": "2/2/0", "model.embed_dim": 64}
        changes |= {"model.depth": 3, "model.num_heads": 2}
    run = seit.train(
        store,
        out=folder_of(work, row, seed, multiple),
        recipe="speech-small-cpu",
        steps=TOKEN_STEPS,
        batch_size=BATCH,
        seed=seed,
        resume=True,
        **{"schedule.warmup_steps": TOKEN_STEPS // 10} | changes,
    )
    card = seit.info(store)
    return {
        "top1": run.top1,
        "parameters": run.parameters,
        "bytes_per_clip": card.payload_bytes_per_sample,
        "seconds": run.seconds,
    }


def run_one(work: Path, row: str, seed: int, multiple: float, *, steps: int) -> dict[str, Any]:
    """Run a row with a seed and a learning rate, or read its result."""
    if row not in TOKEN_ROWS:
        return tune(work, row, seed, multiple)
    store, _ = make_stores(work, work / "speech" / "sounds")
    start = pretrain(work, store, steps=steps) if row == TOKEN_ROWS[1] else None
    tokenizer = store / "tokenizer.safetensors"
    return train_tokens(work, row, seed, multiple, tokenizer=tokenizer, start=start)


def choose_rate(work: Path, row: str, *, steps: int) -> tuple[float, dict[str, float]]:
    """Return the best learning rate of a row on the seeds of the choice, and their mean top-1."""
    on_dev = {
        multiple: mean(
            run_one(work, row, seed, multiple, steps=steps)["top1"] for seed in DEV_SEEDS
        )
        for multiple in RATES
    }
    best = max(RATES, key=lambda multiple: on_dev[multiple])
    return best, {f"{rate_of(row, multiple):g}": top1 for multiple, top1 in on_dev.items()}


def runs(
    work: Path, seeds: int, steps: int, *, finished: bool
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield row, seed and figures of every run, those of `FIRST` before the others."""
    for row in (*FIRST, *LATER):
        choices = [(seed, multiple) for seed in DEV_SEEDS for multiple in RATES]
        if finished and not all(is_finished(folder_of(work, row, *one)) for one in choices):
            continue
        best, on_dev = choose_rate(work, row, steps=steps)
        for seed in range(seeds):
            if finished and not is_finished(folder_of(work, row, seed, best)):
                continue
            found = run_one(work, row, seed, best, steps=steps)
            yield row, seed, found | {"learning_rate": rate_of(row, best), "top1_on_dev": on_dev}


def summary(found: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return means with errors over the seeds of each row, and differences paired by seed."""
    table: dict[str, Any] = {}
    linear = found.get("linear", {})
    for row, by_seed in found.items():
        last = next(reversed(by_seed.values()))
        table[row] = {
            "seeds": len(by_seed),
            "top1": spread([one["top1"] for one in by_seed.values()]),
            "top1_of_seeds": [one["top1"] for one in by_seed.values()],
            "bytes_per_clip": last.get("bytes_per_clip", WAVEFORM_BYTES),
            **{key: last[key] for key in last if key not in ("top1", "bytes_per_clip")},
        }
        shared = sorted(by_seed.keys() & linear.keys())
        if row != "linear" and shared:
            leads = [by_seed[seed]["top1"] - linear[seed]["top1"] for seed in shared]
            table[row]["lead_over_linear"] = spread(leads)
    return table


def floors(table: dict[str, Any]) -> dict[str, Any]:
    """Return the floors that the table decides."""
    found: dict[str, Any] = {}
    for method in ("lora", "houlsby"):
        if "lead_over_linear" in table.get(method, {}):
            row = table[method]
            lead = row["lead_over_linear"]
            found[f"S3 {method} over linear"] = check(lead["mean"], least=0.01) | {
                "error": lead["error"]
            }
            found[f"S3 {method} share of parameters"] = check(
                row["tuning_parameters"] / row["parameters"], most=0.01
            )
            found[f"S3 {method} adapter bytes"] = check(row["adapter_bytes"], most=450_000)
    return found


def main() -> None:
    """Make the material, run what is left, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fsdd", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--work", type=Path, required=True, help="folder for material and runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pretrain-steps", type=int, default=3000)
    parser.add_argument("--finished", action="store_true", help="report, and start no run")
    parser.add_argument("--json", type=Path, default=DOCS / "results" / "speech.json")
    arguments = parser.parse_args()
    if arguments.seeds > MOST_SEEDS:
        raise SystemExit(
            f"--seeds is at most {MOST_SEEDS}: others hold out the speaker of the choice"
        )
    torch.set_num_threads(1)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "whisper").exists():
        convert(fetch(work), work / "whisper")
    if not (work / "speech" / "align.csv").exists():
        make_corpus(work / "speech", seconds=550)
    held = [
        write_manifest(arguments.fsdd.absolute(), work / "manifests" / f"{seed}.csv", seed=seed)
        for seed in (*range(arguments.seeds), *DEV_SEEDS)
    ][: arguments.seeds]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    report: dict[str, Any] = {}
    for row, seed, figures in runs(
        work, arguments.seeds, arguments.pretrain_steps, finished=arguments.finished
    ):
        found.setdefault(row, {})[seed] = figures
        table = summary(found)
        report = {
            "study": "speech",
            "material": "Free Spoken Digit Dataset, real voices; 50 clips to train, 50 to test",
            "network": "Whisper-tiny.en, encoder",
            "steps": STEPS,
            "batch": BATCH,
            "token_steps": TOKEN_STEPS,
            "pretrain_steps": arguments.pretrain_steps,
            "speakers_held_out": held,
            "rates_chosen_on": SPEAKERS[DEV_SEEDS[0] % len(SPEAKERS)],
            "chance": {"mean": 0.1, "std_of_a_run": 0.042},
            "rows": table,
            "floors": floors(table),
            "cpu_seconds": time.process_time(),
            "environment": environment("transformers"),
        }
        write(report, arguments.json)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
