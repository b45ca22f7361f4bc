"""A picture of the table: how far each row is from its target."""

import importlib.util
import sys
from pathlib import Path

from benchmarks.figures import Found, give_margin, give_verdict

_COLOURS = {True: "#2b7a4b", False: "#b5372f"}


def draw(rows: list[Found], path: Path) -> bool:
    """Draw a bar for each row that has a ratio to its target; False where matplotlib isn't installed.

    To the right of 1 is better than the target, whether it's a least or a most: a bar shows value/target or
    target/value. Of a row with several targets it shows the one that's furthest behind.
    """
    margins = [(row, margin) for row in rows if (margin := give_margin(row.get("goals", []))) is not None]
    if not margins:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        print("No plot: matplotlib isn't installed; `make bench` installs it.", file=sys.stderr)
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures make the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(margins)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(margins))
    for place, (row, margin) in zip(places, margins, strict=True):
        is_met = give_verdict(row["goals"]) == "yes"
        axes.barh(place, margin - 1, left=1, height=0.62, color=_COLOURS[is_met])
        axes.annotate(
            f"{margin:.2f}x" if is_met else give_verdict(row["goals"]),
            (max(margin, 1), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    lowest, highest = min(margin for _, margin in margins), max(margin for _, margin in margins)
    axes.set_xlim(min(lowest, 1) / 1.5, max(highest, 1) * 4)
    axes.axvline(1, color="#333333", linewidth=1.2)
    axes.set_yticks(places, [f"{row['title']}\ntarget: {row['target']}" for row, _ in margins], fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("times better than the target (logarithmic); green: met, red: not")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return True
