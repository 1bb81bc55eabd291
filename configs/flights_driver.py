"""The flights project through the Python API: train, promote, serve, and watch what is served.

    python configs/flights_driver.py          # about a minute; ends by itself
    python configs/flights_driver.py --keep   # leaves the service up until Ctrl-C

Every line that a person reads comes from a value that a driver script can use.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

import mlray

ROWS = 10_000
"""Served rows per month."""
BATCH_ROWS = 1_000
MLFLOW_PORT = 5000


def main(*overrides: str, keep: bool = False) -> dict[str, mlray.Watched]:
    """Runs the whole line; returns the drift of October, December and shifted traffic."""
    show = Console()
    began = time.monotonic()
    project = mlray.load(Path(__file__).parent / "flights.yaml", "monitoring.flush=1s", *overrides)
    with mlray.connected(project, dashboard=keep) as dashboard:
        run = mlray.run(project)
        show.print(run.summary(), markup=False)
        with mlray.serve(project) as service:
            october = month_of(run, "test", 10)
            answer = service.predict(october.slice(0, 1).to_pylist())[0]
            show.print(f"\n{service.url} answers: {answer}", markup=False)
            traffic = {
                "October": october,
                "December": month_of(run, "later", 12),
                "shifted on purpose": shifted(october),
            }
            watched = {name: serve_rows(project, service, t) for name, t in traffic.items()}
            for name, seen in watched.items():
                show.print(f"\n[bold]{name}[/bold], {seen.window.rows:,} rows served")
                show.print(seen.top(8))
            show.print(f"\ndone in {time.monotonic() - began:.0f} s; report: {run.report}")
            if keep:
                stay(show, project, service, dashboard)
    return watched


def month_of(run: mlray.Run, part: str, month: int) -> pa.Table:
    """Up to `ROWS` rows of a month, spread evenly, with the columns that a request has."""
    rows = pa.concat_tables(run.rows(part))
    rows = rows.filter(pc.equal(pc.month(rows["decided_at"]), month)).select(run.request_columns)
    step = max(1, rows.num_rows // ROWS)
    return rows.take(pa.array(range(0, rows.num_rows, step)))


def shifted(rows: pa.Table) -> pa.Table:
    """The same flights in a heat wave, with a third of the wind readings lost."""
    hot = pc.add(rows["temp"], 25.0)
    lost = pa.array([i % 3 == 0 for i in range(rows.num_rows)])
    wind = pc.if_else(lost, pa.scalar(None, rows["wind_speed"].type), rows["wind_speed"])
    rows = rows.set_column(rows.column_names.index("temp"), "temp", hot)
    return rows.set_column(rows.column_names.index("wind_speed"), "wind_speed", wind)


def serve_rows(project: mlray.Project, service: mlray.Service, rows: pa.Table) -> mlray.Watched:
    """Ask the service about every row; returns the drift of exactly this traffic."""
    since = datetime.now(UTC)
    for start in range(0, rows.num_rows, BATCH_ROWS):
        service.predict(rows.slice(start, BATCH_ROWS).to_pylist())
    deadline = time.monotonic() + 20
    while True:
        seen = mlray.monitor(project, since=since)
        if seen.window.rows >= rows.num_rows or time.monotonic() > deadline:
            return seen
        time.sleep(0.2)


def stay(show: Console, project: mlray.Project, service: mlray.Service, dashboard: str) -> None:
    """Leave all up until Ctrl-C, and say where."""
    with mlflow_server(project) as tracking:
        show.print(f"\nAPI        {service.url}/docs")
        show.print(f"MLflow     {tracking}")
        show.print(f"Ray        {dashboard}")
        show.print("Ctrl-C ends all of them")
        service.wait()


@contextmanager
def mlflow_server(project: mlray.Project) -> Iterator[str]:
    """MLflow's own pages over the project's store."""
    command = ["mlflow", "server", "--port", str(MLFLOW_PORT), "--workers", "1"]
    store = ["--backend-store-uri", mlray.tracking_uri(project)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", *command, *store], **silent)
    try:
        yield f"http://127.0.0.1:{MLFLOW_PORT}"
    finally:
        process.terminate()
        process.wait(timeout=20)


if __name__ == "__main__":
    settings = [argument for argument in sys.argv[1:] if "=" in argument]
    main(*settings, keep="--keep" in sys.argv)
