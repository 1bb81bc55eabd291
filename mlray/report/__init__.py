"""The report that a run leaves behind: one HTML file to look at and to send on.

    report = RunReport(project="flights", task="binary", target="late", evaluation=...)
    storage.write_bytes(path, render(report).encode())

The page needs nothing but itself: styles and drawings are inside it, it loads nothing, it runs no
script. It shows no row and no value of a column that the model did not learn from.
"""

from mlray.report.content import RunReport, columns_of


def render(report: RunReport) -> str:
    """The report as one HTML page that loads nothing from anywhere; every text is escaped.

    Takes about half a second, and as much again for the first page of a process.
    """
    from mlray.report.page import render as draw  # Matplotlib only when something is drawn

    return draw(report)


__all__ = ["RunReport", "columns_of", "render"]
