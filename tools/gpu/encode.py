"""Images per second of the built-in tokenizers on this device; prints one JSON object each.

uv run python tools/gpu/encode.py
"""

import argparse
import json
import time

import torch

from seit.tokenizers import PatchTokenizer, open_tokenizer

SIZE = 256
SHIPPED = ("conv-vq-f8-1024-lite", "conv-vq-f8-1024")


def main() -> None:
    """Run the timings and print their JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    batch, rounds = (8, 2) if arguments.small else (256, 10)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randint(0, 256, (batch, SIZE, SIZE, 3), dtype=torch.uint8)
    fitted = PatchTokenizer.fit(images[:8], num_codes=1024)
    shipped = {name: open_tokenizer(name) for name in SHIPPED}
    for name, tokenizer in {fitted.name: fitted, **shipped}.items():
        moved, ready = tokenizer.to(device), images.to(device)
        times = []
        with torch.inference_mode():
            for _ in range(rounds + 1):
                started = time.perf_counter()
                moved.encode(ready).cpu()
                times.append(time.perf_counter() - started)
        best = min(times[1:])
        figures = {"batch": batch, "rounds": rounds, "images_per_second": round(batch / best, 1)}
        print(json.dumps({"tokenizer": name, **figures}), flush=True)


if __name__ == "__main__":
    main()
