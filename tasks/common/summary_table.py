"""The figures of metrics.json for people: which rows, how they are written, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

AP_ROWS = (
    ("AP", "AP", "mean over IoU 0.50 to 0.95"),
    ("AP50", "AP50", "at IoU 0.50"),
    ("AP75", "AP75", "at IoU 0.75"),
    ("APs", "AP small", ""),
    ("APm", "AP medium", ""),
    ("APl", "AP large", ""),
    ("AR", "AR", "recall, mean over IoU 0.50 to 0.95"),
)


def figure(value: float | None) -> str:
    """One decimal; a dash where there is no figure."""
    return "–" if value is None else f"{value:.1f}"


def difference(before: float | None, after: float | None) -> str:
    """`after` less `before`, signed, of the figures as shown, so that columns add up; a dash without both."""
    if before is None or after is None:
        return "–"
    change = round(after, 1) - round(before, 1)
    return f"{change:+.1f}".replace("-", "−") if round(change, 1) else "0.0"


def summary_table(metrics: Mapping[str, Mapping[str, float | None]]) -> Table:
    """metrics.json for the terminal: AP of teacher and student, below it pseudo masks rough and refined."""
    table = Table(title="Mask AP on the validation images, in percent", title_justify="left")
    table.add_column("")
    for name in ("teacher", "student", "difference"):
        table.add_column(name, justify="right")
    teacher, student, pseudo = metrics["teacher"], metrics["student"], metrics["pseudo"]
    for key, label, _ in AP_ROWS:
        if key in teacher:
            table.add_row(
                label, figure(teacher[key]), figure(student[key]), difference(teacher[key], student[key]),
                style="bold" if key == "AP" else None,
            )  # fmt: skip
    table.add_section()
    table.add_row("Pseudo masks", "rough", "refined", "difference", style="dim")
    rough, refined = pseudo["rough_iou"], pseudo["refined_iou"]
    table.add_row("mean IoU", figure(rough), figure(refined), difference(rough, refined), style="bold")
    table.add_row("IoU over 0.50", "", figure(pseudo["refined_over_50"]), "")
    table.add_row("IoU over 0.75", "", figure(pseudo["refined_over_75"]), "")
    table.caption = f"{pseudo['masks']:,} of {pseudo['points']:,} points became masks"
    table.caption_justify = "left"
    return table
