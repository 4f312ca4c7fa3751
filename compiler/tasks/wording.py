"""What was judged, in words: the same on the console, in summaries and in report.html."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkc.compiler.tasks.tally import ErrorEstimate
from shrinkc.compiler.tasks.task import Style

AGREEMENT = "agreement with the original"  # what most tasks call their likeness
Ends = tuple[float, float] | None  # of an interval of 95% confidence


def share(error: float) -> str:
    """An error as a share of a variance: '0.021', '3.4e-05', '0'."""
    if error < 1e-9:
        return "0"
    return f"{error:.2g}" if error >= 1e-3 else f"{error:.1e}"


def error_words(errors: Sequence[ErrorEstimate], *, briefly: bool = False) -> str:
    """'error over variance is 0.021 (0.015 to 0.03 with 95% confidence)', output by output."""
    found: list[str] = []
    for index, error in enumerate(errors):
        ends = None if briefly else error.ends
        between = f" ({share(ends[0])} to {share(ends[1])} with 95% confidence)" if ends else ""
        worst = worst_column(error.value, error.worst.value)
        named = f", {worst} in its worst column" if worst else ""
        found.append(f"{output_name(index, len(errors))}{share(error.value)}{between}{named}")
    return f"error over variance is {'; '.join(found)}"


def worst_column(error: float, worst: float) -> str:
    """The error of an output's worst column; "" where it says no more than the output's."""
    return share(worst) if share(worst) != share(error) else ""


def output_name(index: int, count: int) -> str:
    """'output 2: '; nothing where it is the only one."""
    return f"output {index + 1}: " if count > 1 else ""


def score_words(score: float | None, style: Style | str, digits: int = 2) -> str:
    """A metric's score: '71.20%', '0.412', '31.40 dB'; a dash for none. `digits`: of a share."""
    if score is None:
        return "–"
    if style == "dB":
        return f"{score:.2f} dB"
    return f"{score:.3f}" if style == "number" else f"{100 * score:.{digits}f}%"


def likeness_words(likeness: str, agreement: float, other: str) -> str:
    """'it agrees with the original on 99.5%', 'its mIoU against the original is 97.3%'."""
    if likeness == AGREEMENT:
        return f"it agrees with {other} on {agreement:.1%}"
    return f"its {likeness.replace('the original', other)} is {agreement:.1%}"


def drop_words(metric: str, drop: float, ends: Ends, how: str, style: Style | str) -> str:
    """'top-1 falls by 0.50 points (counted; a fall of -0.20 to 1.20 with 95% confidence)'."""
    factor, unit = (1.0, "dB") if style == "dB" else (100.0, "points")
    points = factor * drop
    moves = f"falls by {points:.2f}" if points >= 0 else f"rises by {-points:.2f}"
    between = ""
    if ends is not None:
        low, high = (factor * end for end in ends)
        between = f"; a fall of {low:.2f} to {high:.2f} with 95% confidence"
    return f"{metric} {moves} {unit} ({how}{between})"
