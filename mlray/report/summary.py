"""The first thing a reader sees: what happened, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from mlray.report.content import RunReport
from mlray.report.words import ABSENT, Estimate, count, precise, seconds


@dataclass(frozen=True)
class Summary:
    """Sentences and figures of the page's head.

    `verdict` is "promoted", "kept" or "" when the gate did not speak.
    """

    trained: str
    compared: str
    verdict: str
    title: str
    estimate: Estimate | None
    figures: tuple[tuple[str, str], ...]


def summary(report: RunReport) -> Summary:
    evaluation = report.evaluation or {}
    estimate = Estimate.of((evaluation.get("metrics") or {}).get(report.metric))
    verdict, title = _verdict(report)
    return Summary(
        _trained(report),
        _compared(report, estimate),
        verdict,
        title,
        estimate,
        _figures(report),
    )


def _trained(report: RunReport) -> str:
    rows = report.parts.get("train")
    learned = sum(1 for c in report.columns if c.get("role") not in ("left out", "target"))
    text = f"A {report.task} model of {report.target}"
    if rows:
        text += f", trained on {count(rows)} rows"
    if learned:
        text += f" and {learned} {'column' if learned == 1 else 'columns'}"
    if report.sources:
        text += f" from {_and([str(s.get('name', '')) for s in report.sources])}"
    tested = (report.evaluation or {}).get("rows") or report.parts.get("test")
    return text + (f", tested on {count(tested)} rows it had not seen." if tested else ".")


def _compared(report: RunReport, estimate: Estimate | None) -> str:
    if estimate is None:
        return "" if report.evaluation else "This run ended before a model was judged."
    against = []
    champion = Estimate.of(((report.champion or {}).get("metrics") or {}).get(report.metric))
    baseline = Estimate.of(((report.evaluation or {}).get("baseline") or {}).get(report.metric))
    if champion:
        name = f"the champion, version {report.champion_version}" if report.champion_version else (
            "the champion"
        )  # fmt: skip
        against.append(_difference(estimate, champion, name, report.greater_is_better))
    if baseline:
        name = "a baseline that ignores the columns"
        against.append(_difference(estimate, baseline, name, report.greater_is_better))
    return f"It is {'; '.join(against)}." if against else ""


def _difference(ours: Estimate, theirs: Estimate, name: str, greater: bool) -> str:
    """How far apart two estimates are, and whether the interval can tell."""
    gap = ours.value - theirs.value
    if gap == 0:
        return f"equal to {name}"
    word = "better" if (gap > 0) == greater else "worse"
    text = f"{precise(abs(gap))} {word} than {name} ({precise(theirs.value)})"
    inside = (
        ours.low is not None and ours.high is not None and ours.low <= theirs.value <= ours.high
    )
    return text + (", closer than the 95 % interval can tell" if inside else "")


def _verdict(report: RunReport) -> tuple[str, str]:
    if report.decision is None:
        return "", "Not put before the gate"
    name = f"version {report.version}" if report.version else "this run"
    if report.decision.get("promote"):
        return "promoted", f"Promoted: {name} is the champion"
    kept = f"version {report.champion_version} stays" if report.champion_version else "no champion"
    return "kept", f"Not promoted: {kept}"


def _figures(report: RunReport) -> tuple[tuple[str, str], ...]:
    """Small figures beside the headline."""
    epochs = (
        f"{report.best_epoch} of {len(report.history)}" if report.best_epoch is not None else ""
    )
    total = sum(float(stage.get("seconds") or 0) for stage in report.stages)
    aside = (report.quality or {}).get("quarantined")
    figures = (
        ("training rows", count(report.parts.get("train"))),
        ("test rows", count((report.evaluation or {}).get("rows") or report.parts.get("test"))),
        ("rows set aside", count(aside)),
        ("best epoch", epochs or ABSENT),
        ("whole run", seconds(total) if report.stages else ABSENT),
    )
    return tuple((name, value) for name, value in figures if value != ABSENT)


def _and(parts: list[str]) -> str:
    """
    >>> _and(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
