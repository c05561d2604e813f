"""Peak memory and CPU time of forward passes of HuBERT-base's shapes, or of an analysis of them.

A process of its own for each, called by `layers.py`: ``forward|analysis MODEL SPEECH``. Weights are
random, since only the shapes matter.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import torch
import transformers

import seit
from seit.analysis import open_subject

CLIPS = 30
FOLDS = 5


def main() -> None:
    """Make model and clips if they are missing, run, and print the cost as JSON."""
    what, model, speech = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    sounds = model / "sounds"
    if not sounds.exists():
        network = transformers.HubertModel(transformers.HubertConfig())
        network.save_pretrained(model / "hubert")
        del network
        for clip in sorted((speech / "sounds").glob("*/*.wav"))[::8][:CLIPS]:
            target = sounds / clip.relative_to(speech / "sounds")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, target)
    began = time.process_time()
    subject = f"hf:{model / 'hubert'}"
    if what == "forward":
        for _ in open_subject(subject, sounds).subject.clips():
            pass
    else:
        seit.analyze(
            subject,
            data=sounds,
            method="cca",
            target="phone",
            align=speech / "align.csv",
            folds=FOLDS,
            fewest=2,
            max_dim=768,
            random_twin=False,
        )
    print(json.dumps({"peak_bytes": _peak(), "cpu_seconds": time.process_time() - began}))


def _peak() -> int:
    """Return the largest resident memory so far; getrusage would count the parent's as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(line for line in lines if line.startswith("VmHWM:"))
    return int(held.split()[1]) * 1024


if __name__ == "__main__":
    main()
