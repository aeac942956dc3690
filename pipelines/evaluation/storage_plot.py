"""nDCG@10 against bytes per vector as an SVG file that is the same for the same figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipelines.evaluation.result_file import result_file
from pipelines.evaluation.storage_quality import StorageQuality

__all__ = ["plot_storage"]

_SIZE_INCHES = (7.0, 4.2)


def plot_storage(choices: Sequence[StorageQuality], path: str) -> None:
    """Draw one line for each way to store, one point for each number of dimensions.

    Args:
        choices: What was measured.
        path: The SVG file; folders are made.

    Raises:
        StorageError: It cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    lines: dict[str, list[StorageQuality]] = defaultdict(list)
    for choice in choices:
        lines[choice.name].append(choice)
    # Names of shapes are hashes: without a salt of their own they differ from run to run.
    with mpl.rc_context({"svg.hashsalt": "twofold", "svg.fonttype": "none"}):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        for name, points in lines.items():
            sizes = [point.bytes_per_vector for point in points]
            axes.plot(sizes, [point.ndcg for point in points], marker="o", label=name)
            for point in points:
                axes.annotate(
                    str(point.dimensions),
                    (point.bytes_per_vector, point.ndcg),
                    textcoords="offset points",
                    xytext=(4, 4),
                    fontsize="x-small",
                )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("bytes per vector (labels: dimensions)")
        axes.set_ylabel("nDCG@10")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        with result_file(path, "--plot") as file:
            figure.savefig(file, format="svg", metadata={"Date": None})
