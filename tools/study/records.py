"""Records and charts of the studies of networks."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
"""Where tracked records and charts go."""


def environment(*packages: str) -> dict[str, str]:
    """Return the day, the machine and the versions that figures belong to."""
    names = ("seit", "torch", "numpy", *packages)
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread of a shared CPU",
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def write(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON, replacing the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean; None for a single value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean and its standard error."""
    return {"mean": mean(values), "error": standard_error(values)}


def check(value: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """Return a figure with its floor (and ceiling), and whether it holds."""
    holds = (least is None or value >= least) and (most is None or value <= most)
    found: dict[str, Any] = {"value": value, "holds": holds}
    found |= {} if least is None else {"least": least}
    return found | ({} if most is None else {"most": most})


def plot_layers(
    path: Path,
    lines: Mapping[str, Sequence[tuple[str, float, float]]],
    *,
    title: str,
    ylabel: str,
    null: tuple[float, float] | None = None,
) -> None:
    """Draw scores over layers as SVG, with the null as a gray band.

    Args:
        path: file to write.
        lines: (layer, score, error) of each network; a single one is a horizontal line.
        title: title; it says if data are synthetic.
        ylabel: name and unit of the score.
        null: lower and upper end of the null band.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "seit", "font.size": 10}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.8), layout="constrained")
    names = list(max(lines.values(), key=len))
    for color, (name, points) in enumerate(lines.items()):
        _, values, errors = zip(*points, strict=True)
        if len(points) == 1:
            axes.axhline(values[0], ls="--", lw=1.2, color=f"C{color}", label=name)
        else:
            axes.errorbar(
                range(len(points)),
                values,
                errors,
                marker="o",
                capsize=3,
                color=f"C{color}",
                label=name,
            )
    if null is not None:
        axes.axhspan(*null, color="0.85", zorder=0, label="null")
    axes.set_xticks(range(len(names)), [layer for layer, _, _ in names])
    axes.set(title=title, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
