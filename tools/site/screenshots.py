"""Take the screenshots of docs/view.md in headless Chromium.

    uv run --group dev python tools/site/screenshots.py PHOTOS RUN RUNS SOUNDS

PHOTOS is a store of images, RUN a classifier evaluated on it, RUNS a folder of runs, among them a
continual and a pre-training run, and SOUNDS a store of sounds. Whatever they show is published, so
take data whose license allows it. Each view becomes a WebP file of at most 100 kB in docs/view.
"""

import argparse
import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import seit

FOLDER = Path(__file__).parents[2] / "docs" / "view"
MAX_BYTES = 100_000
SIZE = {"width": 1100, "height": 720}
SETTLED_MS = 1000
"""After the last request, for what is drawn afterwards."""
TIMEOUT_MS = 180_000


IN_SIGHT_ARE_DRAWN = """
() => {
  const isInSight = (one) => {
    const place = one.getBoundingClientRect();
    return place.width && place.top < innerHeight && place.bottom > 0;
  };
  const waiting = document.querySelectorAll("[data-fragment] > .quiet:only-child");
  return [...document.images].every((one) => !isInSight(one) || one.naturalWidth > 0)
    && ![...waiting].some(isInSight);
}
"""


@dataclass(frozen=True)
class Shot:
    """Screenshot: its name, server, path, and what is scrolled to its top."""

    name: str
    server: str
    path: str
    top: str = ""


SHOTS = (
    Shot("samples", "photos", "/browse?split=val"),
    Shot("bits", "photos", "/browse?split=val&sort=bits&down=1"),
    Shot("sample", "photos", "/sample/val/0"),
    Shot("augmentations", "photos", "/sample/val/0?", "#try"),
    Shot("similar", "photos", "/sample/val/0?", "text=Similar samples"),
    Shot("codebook", "photos", "/codebook?code=310"),
    Shot("mistakes", "photos", "/browse?split=val&sort=wrong&wrong=1"),
    Shot("confusion", "photos", "/run/0", "text=Each cell leads"),
    Shot("runs", "runs", "/runs"),
    Shot("sounds", "sounds", "/browse?split=val"),
    Shot("sound", "sounds", "/sample/val/3"),
    Shot("static", "static", "/index.html"),
)


def take(page: Page, shot: Shot, origin: str) -> bytes:
    """Return a screenshot as PNG."""
    page.goto(f"{origin}{shot.path}", wait_until="networkidle")
    if shot.top:
        page.locator(shot.top).first.evaluate("one => one.scrollIntoView()")
        page.wait_for_load_state("networkidle")
    for _ in range(TIMEOUT_MS // SETTLED_MS):
        page.wait_for_timeout(SETTLED_MS)
        if page.evaluate(IN_SIGHT_ARE_DRAWN):
            break
    return page.screenshot()


def smallest(png: bytes) -> bytes:
    """Return a picture as WebP, in the best quality that fits ``MAX_BYTES``."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in range(90, 0, -5):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    raise SystemExit("the picture does not fit")


@contextmanager
def servers(arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Start a server for each kind of place, and write a static page."""
    with ExitStack() as stack:
        found: dict[str, str] = {}
        places: dict[str, dict[str, Any]] = {
            "photos": {"place": arguments.run, "store": arguments.photos},
            "runs": {"place": arguments.runs},
            "sounds": {"place": arguments.sounds},
        }
        for name, place in places.items():
            view = stack.enter_context(seit.view(**place, port=0, open_browser=False))
            found[name] = view.url.rstrip("/")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "page"
        seit.view(arguments.photos, export=folder, thumbnails=300)
        found["static"] = f"file://{folder}"
        yield found


def main() -> None:
    """Parse the arguments and write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("photos", "run", "runs", "sounds"):
        parser.add_argument(name)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--only", nargs="*", default=[shot.name for shot in SHOTS])
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with servers(arguments) as origins, sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.set_default_timeout(TIMEOUT_MS)
        for shot in SHOTS:
            if shot.name in arguments.only:
                data = smallest(take(page, shot, origins[shot.server]))
                (FOLDER / f"{shot.name}.webp").write_bytes(data)
                print(f"{shot.name}.webp {len(data):,} bytes")
        chromium.close()


if __name__ == "__main__":
    main()
