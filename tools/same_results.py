"""Hash the output of a small job or run of each kind, to compare two versions of seit.

Show that a refactoring changes no result::

    uv run python tools/same_results.py --out /tmp/old --json > old.json   # in the old checkout
    uv run python tools/same_results.py --out /tmp/new --against old.json  # in the new one

Stores and tokenizers are compared byte by byte, runs by the tensors of ``model.safetensors`` and by
the losses of ``metrics.jsonl``. Every run takes a few steps of a two-block ViT on the CPU, with one
thread. The tested program is ``python -m seit`` of the running interpreter.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

CLASSES = ("bars", "dots", "rings", "waves")
MODEL = (
    "--model vit_tiny_patch16_224 --model.stem 2/2/0 --model.embed_dim 16 --model.depth 2 "
    "--model.num_heads 2 --augment.crop_size 8 --run.log_every 1 --device cpu --seed 3"
)
PRETRAIN = "--mtm.decoder_dim 16 --mtm.decoder_depth 1 --mtm.decoder_heads 2 --probe.samples 24"
TOKENIZER = (
    "--size 64 --codes 16 --steps 6 --batch-size 4 --set dim=8 --set crop=32 "
    "--set encoder_width=16 --set encoder_blocks=1 --set decoder_width=16 --set decoder_blocks=1 "
    "--set warmup_steps=2 --set checkpoint_every=3 --set adversarial=0.1 --set adversarial_start=3 "
    "--set eval_images=8"
)
#: Command lines, in order; ``$`` stands for the output folder.
COMMANDS = {
    "store": "tokenize $/pictures $/store --tokenizer patch-pca-vq --size 64 --codes 32",
    "packed": "tokenize $/pictures $/packed --tokenizer conv-vq-f8-1024 --codec packed",
    "zarr": "convert $/store $/zarr --container zarr",
    "official": "convert $/store $/official",
    "sounds": "tokenize $/clips $/sounds --tokenizer mel-vq-1s --codes 16",
    "filtered": "filter $/store $/filtered --classes bars,dots",
    "merged": "merge $/merged $/filtered $/filtered --on-duplicate skip",
    "conv": f"tokenizer train $/pictures $/conv {TOKENIZER}",
    "fitted": "tokenizer fit $/pictures $/fitted.safetensors --size 64 --codes 16",
    "train": f"train $/store --out $/train --recipe small-cpu --steps 6 --batch-size 8 {MODEL}",
    "audio": "train $/sounds --out $/audio --recipe audio-small-cpu --steps 4 --batch-size 8 "
    "--model vit_tiny_patch16_224 --model.embed_dim 16 --model.depth 2 --model.num_heads 2 "
    "--run.log_every 1 --device cpu",
    "mtm": f"pretrain $/store --objective mtm --out $/mtm --steps 5 --batch-size 8 {MODEL} "
    f"{PRETRAIN}",
    "sit": f"pretrain $/store --objective sit --out $/sit --recipe sit-small-cpu --steps 5 "
    f"--batch-size 8 {MODEL}",
    "further": f"pretrain $/store --objective further --out $/further --recipe further-small-cpu "
    f"--init-from $/mtm --steps 5 --batch-size 8 {MODEL} {PRETRAIN}",
    "sparse": f"pretrain $/store --objective mtm --sparsity 0.5 --out $/sparse --steps 4 "
    f"--batch-size 8 {MODEL} {PRETRAIN}",
    "finetune": f"train $/store --out $/finetune --init-from $/mtm --steps 4 --batch-size 8 "
    f"{MODEL}",
    "adalora": "tune $/store --init-from $/train --method adalora --out $/adalora --steps 6 "
    "--batch-size 8 --run.log_every 1 --augment.crop_size 8 --device cpu",
    "adapter": "tune $/store --init-from $/train --method adapter --out $/adapter --steps 4 "
    "--batch-size 8 --run.log_every 1 --augment.crop_size 8 --device cpu",
    **{
        f"continual-{method}": f"continual $/store --init-from $/train --method {method} "
        f"--out $/continual-{method} --increment 2 --steps 3 --batch-size 8 "
        f"--memory 4000 --augment.crop_size 8 --run.log_every 1 --device cpu"
        for method in ("er", "der++", "icarl", "gdumb")
    },
    **{
        f"continual-{method}": f"continual $/store --init-from $/train --method {method} "
        f"--out $/continual-{method} --increment 2 --steps 3 --batch-size 8 "
        f"--augment.crop_size 8 --run.log_every 1 --device cpu"
        for method in ("lae", "seq-ft", "joint", "ncm", "simplecil", "ranpac")
    },
}


def make_corpora(out: Path) -> None:
    """Write 96 pictures and 40 sounds of four classes, always the same."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for number in range(96):
        name = CLASSES[number % 4]
        y, x, size = random.integers((12, 12, 6), (52, 52, 18))
        shape = (
            np.abs(rows - y) < size / 3,
            (rows - y) ** 2 + (columns - x) ** 2 < size**2,
            np.abs(np.hypot(rows - y, columns - x) - size) < 3,
            np.sin(columns * 6 / size) > 0,
        )[number % 4]
        picture = np.where(shape[..., None], random.integers(90, 256, 3), rows[..., None] * 2)
        noisy = (picture + random.normal(0, 6, (64, 64, 3))).clip(0, 255).astype(np.uint8)
        path = out / "pictures" / ("val" if number % 5 == 4 else "train") / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path)
    seconds = np.arange(16000) / 16000
    for number in range(40):
        pitch = 200 * 2 ** (number % 4) + random.uniform(0, 40)
        sound = np.sin(2 * np.pi * pitch * seconds) * 0.4 + random.normal(0, 0.01, 16000)
        path = out / "clips" / ("val" if number % 5 == 4 else "train") / CLASSES[number % 4]
        path.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes((sound * 32767).astype("<i2").tobytes())


def digest_tensors(path: Path) -> str:
    """Hash names, shapes, dtypes and values of tensors, without the header's metadata."""
    total = hashlib.sha256()
    for name, values in sorted(load_file(path).items()):
        total.update(f"{name} {values.shape} {values.dtype}".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()[:16]


def digest_losses(path: Path) -> str:
    """Hash all metrics of a run except measurements of time."""
    total = hashlib.sha256()
    for line in path.read_text().splitlines():
        record = json.loads(line)
        kept = {name: value for name, value in record.items() if "loss" in name or name == "top1"}
        total.update(json.dumps(kept, sort_keys=True).encode())
    return total.hexdigest()[:16]


def digest(place: Path) -> dict[str, str]:
    """Return the hashes of a command's output, by file."""
    if place.is_file():
        return {place.name: digest_tensors(place)}
    if not (place / "metrics.jsonl").exists():
        return {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
    sums = {"losses": digest_losses(place / "metrics.jsonl")}
    for name in ("model.safetensors", "tokenizer.safetensors"):
        if (place / name).exists():
            sums[name] = digest_tensors(place / name)
    return sums


def run(name: str, command: str, out: Path) -> dict[str, str]:
    """Run one command unless it is done, and return the hashes of its output."""
    words = [word.replace("$", str(out)) for word in command.split()]
    place = out / (name if name != "fitted" else "fitted.safetensors")
    done = out / f"{name}.done"
    if not done.exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1", "SEIT_RUN_LOGGERS": "[]"}
        command_line = [sys.executable, "-m", "seit", *words]
        finished = subprocess.run(command_line, env=environment, capture_output=True, text=True)
        if finished.returncode:
            return {"failed": finished.stderr.strip()[-300:]}
        done.touch()
    return digest(place)


def main() -> None:
    """Run the commands, print the hashes, and compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--only", nargs="*", default=[], help="names of commands; all by default")
    parser.add_argument("--against", type=Path, help="JSON of an earlier call to compare with")
    parser.add_argument("--json", action="store_true", help="print the hashes as JSON")
    options = parser.parse_args()
    if not (options.out / "pictures").exists():
        make_corpora(options.out)
    sums = {
        name: run(name, command, options.out)
        for name, command in COMMANDS.items()
        if not options.only or name in options.only
    }
    if options.json:
        print(json.dumps(sums, indent=1, sort_keys=True))
    if options.against:
        before = json.loads(options.against.read_text())
        changed = [name for name in sums if sums[name] != before.get(name)]
        print(f"{len(sums) - len(changed)} of {len(sums)} are the same", file=sys.stderr)
        for name in changed:
            print(f"{name}: {before.get(name)} → {sums[name]}", file=sys.stderr)
        sys.exit(bool(changed))


if __name__ == "__main__":
    main()
