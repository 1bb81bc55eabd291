"""Drift in PromQL: the mathematics of `stats/drift.py` over counters that Prometheus scraped.

`python -m mlray.monitoring.promql 5m 1h 1d > rules.yml` writes the recording and alert rules for
any windows; `cluster/prometheus/rules.yml` is its output. A test holds PSI and KS of a running
Prometheus against `stats/drift.py` to 1e-6.

Rows of a window are taken without the extrapolation that `increase` would add: of each replica's
series the last value in the window less the last one before it. A replica that appeared in the
window counts whole, one that disappeared counts up to its last scrape. Only where a counter fell
back to zero inside the window (Ray's agent restarted) does `increase` estimate. A replica of which
Prometheus had no sample during the whole window before counts from its start, so an outage of
Prometheus that is longer than a window makes that window too large once.

r is a bin's share of training rows (smoothed, as exported), w its share of the window's rows:

    psi           sum (w - r) ln(w / r), w = (rows + 10 r) / (all rows + 10)
    expected_psi  what chance alone gives: (S - 1) (n / (n + 10)^2 + 1 / m), n and m the rows of
                  window and training, S the bins that hold rows
    drift_z       by how many standard deviations psi is beyond chance: psi / expected_psi * (S - 1)
                  is nearly chi-square with S - 1 degrees of freedom, made normal as by Wilson and
                  Hilferty (1931), "The distribution of chi-square"
    ks            max |cumulated share of finite rows - the same of training rows|
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from textwrap import dedent, indent

from mlray.stats.drift import PRIOR_ROWS

WINDOWS = ("5m", "1h", "1d")
PSI = 0.2
"""Effect size of an alert, as `monitoring.psi` of a project."""
Z = 4
"""Standard deviations of an alert: one false in 30,000, so 1 % for a model of 300 features."""
MISSING_RISE = 0.05
"""Rise of the share of missing or unseen values that is an alert."""

_BIN = "model, version, feature, bin"
_FEATURE = "model, version, feature"
_PRIOR = f"{PRIOR_ROWS:g}"
_EVERY = {"m": "30s", "h": "1m", "d": "5m", "w": "15m"}


def rows(family: str, reference: str, window: str) -> str:
    """Rows per bin in the window, summed over replicas; zero for bins that saw none.

    `family` is feature_rows or feature_rows_le, `reference` the family of their training shares.
    """
    name = f"ray_mlray_{family}_total"
    return _text(f"""
        sum by ({_BIN}) (
            (increase({name}[{window}]) and resets({name}[{window}]) > 0)
          or
            (last_over_time({name}[{window}])
              - last_over_time({name}[{window}] offset {window}) >= 0)
          or
            last_over_time({name}[{window}])
        )
        or
        0 * max by ({_BIN}) (last_over_time(ray_mlray_{reference}[{window}]))""")


def records(window: str) -> dict[str, str]:
    """Recording rules of a window: name -> expression, in the order of evaluation.

    They carry the label `window`; each uses what those before it recorded.
    """

    def at(name: str, **labels: str) -> str:
        given = "".join(f', {key}="{value}"' for key, value in labels.items())
        return f'mlray:{name}{{window="{window}"{given}}}'

    some = f"({at('rows')} > 0)"
    reference = "max by ({}) (last_over_time(ray_mlray_{}[{}]))"
    return {
        "reference_share": reference.format(_BIN, "reference_share", window),
        "reference_rows": reference.format(_FEATURE, "reference_rows", window),
        "feature_rows": rows("feature_rows", "reference_share", window),
        "feature_rows_le": rows("feature_rows_le", "reference_share_le", window),
        "rows": f"sum by ({_FEATURE}) ({at('feature_rows')})",
        "missing_share": f"{at('feature_rows', bin='missing')} / on ({_FEATURE}) {some}",
        "unseen_share": f"{at('feature_rows', bin='unseen')} / on ({_FEATURE}) {some}",
        "window_share": _text(f"""
            ({at("feature_rows")} + on ({_BIN}) {_PRIOR} * {at("reference_share")})
              / on ({_FEATURE}) group_left () ({some} + {_PRIOR})"""),
        "psi": _text(f"""
            sum by ({_FEATURE}) (
              ({at("window_share")} - on ({_BIN}) {at("reference_share")})
                * on ({_BIN}) ln({at("window_share")} / on ({_BIN}) {at("reference_share")})
            )"""),
        "ks": _text(f"""
            max by ({_FEATURE}) (abs(
              {at("feature_rows_le")}
                / on ({_FEATURE}) group_left () (max by ({_FEATURE}) ({at("feature_rows_le")}) > 0)
                - on ({_BIN}) {reference.format(_BIN, "reference_share_le", window)}
            ))"""),
        "degrees": _degrees(at),
        "expected_psi": _text(f"""
            {at("degrees")} * on ({_FEATURE}) (
              {some} / ({some} + {_PRIOR}) ^ 2
              + on ({_FEATURE}) 1 / {at("reference_rows")}
            )"""),
        "drift_z": _text(f"""
            (
              ({at("psi")} / on ({_FEATURE}) ({at("expected_psi")} > 0)) ^ (1 / 3)
              - on ({_FEATURE}) (1 - 2 / (9 * ({at("degrees")} > 0)))
            ) / on ({_FEATURE}) (2 / (9 * ({at("degrees")} > 0))) ^ 0.5"""),
    }


def _degrees(at: Callable[..., str]) -> str:
    """Bins that hold rows, less one. An empty bin's smoothed share is 0.5 / (m + bins / 2)."""
    bins = f"count by ({_FEATURE}) ({at('reference_share')})"
    return _text(f"""
        count by ({_FEATURE}) (
          ({at("feature_rows")} > 0)
          or on ({_BIN})
          ({at("reference_share")} > on ({_FEATURE}) group_left () 0.75 / (
            0.5 * {bins} + on ({_FEATURE}) {at("reference_rows")}))
        ) - 1""")


ALERTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "MlrayDrift",
        "10m",
        "(mlray:psi{W} - mlray:expected_psi{W} >= PSI) and mlray:drift_z{W} > Z "
        "and mlray:rows{W} >= 50",
        "{{ $labels.feature }} of {{ $labels.model }} {{ $labels.version }} has drifted: PSI "
        '{{ $value | printf "%.2f" }} above chance over {{ $labels.window }}. Look: mlray monitor '
        "{{ $labels.model }}. Do: compare the served rows with training; retrain if it is real.",
    ),
    (
        "MlrayMissing",
        "10m",
        "(mlray:missing_share{W} - on (F) sum by (F) "
        '(mlray:reference_share{window="W", bin="missing"}) > RISE) and mlray:rows{W} >= 200',
        "{{ $labels.feature }} of {{ $labels.model }} {{ $labels.version }} is missing in "
        "{{ $value | humanizePercentage }} more rows than in training. Do: ask who fills it.",
    ),
    (
        "MlrayUnseen",
        "10m",
        "(mlray:unseen_share{W} - on (F) sum by (F) "
        '(mlray:reference_share{window="W", bin="unseen"}) > RISE) and mlray:rows{W} >= 200',
        "{{ $value | humanizePercentage }} more rows than in training hold values of "
        "{{ $labels.feature }} that {{ $labels.model }} {{ $labels.version }} never saw. "
        "Do: look for new or renamed values; retrain.",
    ),
    (
        "MlrayNoTraffic",
        "10m",
        "sum by (model) (increase(ray_mlray_predictions_total[1d])) > 0 unless on (model) "
        "(sum by (model) (increase(ray_mlray_predictions_total[10m])) > 0)",
        "{{ $labels.model }} had traffic in the last day and has none now. Do: check that its "
        "service is up (serve status) and that callers reach it.",
    ),
    (
        "MlrayErrors",
        "5m",
        'sum by (model, version) (rate(ray_mlray_requests_total{status=~"5.."}[5m])) '
        "/ sum by (model, version) (rate(ray_mlray_requests_total[5m])) > 0.01",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} "
        "{{ $labels.version }} fail. Do: read the replica's log; roll back if this version began "
        "it.",
    ),
    (
        "MlrayVersionRefused",
        "0m",
        "sum by (model, version) (last_over_time(ray_mlray_versions_refused_total[10m]) - "
        "(last_over_time(ray_mlray_versions_refused_total[10m] offset 10m) "
        "or 0 * last_over_time(ray_mlray_versions_refused_total[10m]))) > 0",
        "{{ $labels.model }} {{ $labels.version }} failed its verification on a replica and is "
        "not served there. Do: read the replica's log; roll back the champion.",
    ),
    (
        "MlrayCountsNotWritten",
        "5m",
        "sum by (model, version) (increase(ray_mlray_flush_errors_total[10m])) > 0",
        "Replicas of {{ $labels.model }} {{ $labels.version }} cannot write their counts. "
        "Do: free space in the storage folder; counts wait in memory until then.",
    ),
)
"""Name, how long it must hold, expression, what is said. W stands for the window, F for labels."""


def rules(windows: Sequence[str] = WINDOWS) -> str:
    """The rules file: a group of recording rules per window, and alerts on the middle window."""
    parts = [f"# Written by: python -m mlray.monitoring.promql {' '.join(windows)}\ngroups:\n"]
    for window in windows:
        parts.append(f"- name: mlray-{window}\n  interval: {_EVERY.get(window[-1], '5s')}\n")
        parts.append("  rules:\n")
        for name, expression in records(window).items():
            parts.append(f"  - record: mlray:{name}\n    labels: {{window: {window}}}\n")
            parts.append(f"    expr: |\n{indent(expression, ' ' * 6)}\n")
    parts.append("- name: mlray-alerts\n  rules:\n")
    parts += [_alert(*one, window=windows[len(windows) // 2]) for one in ALERTS]
    return "".join(parts)


def _alert(name: str, hold: str, expression: str, says: str, *, window: str) -> str:
    expression = expression.replace("{W}", f'{{window="{window}"}}').replace('"W"', f'"{window}"')
    expression = expression.replace("(F)", f"({_FEATURE}, window)")
    expression = expression.replace("RISE", str(MISSING_RISE)).replace("PSI", str(PSI))
    expression = expression.replace("> Z", f"> {Z}")
    return (
        f"  - alert: {name}\n    for: {hold}\n    labels: {{severity: warning}}\n"
        f"    expr: |\n      {expression}\n"
        f"    annotations:\n      summary: >-\n        {says}\n"
    )


def _text(expression: str) -> str:
    return dedent(expression).strip()


if __name__ == "__main__":
    sys.stdout.write(rules(sys.argv[1:] or WINDOWS))
