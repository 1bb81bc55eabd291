"""mlray's HTTP API beside a bare FastAPI server and plain Ray Serve, all with the same model.

Each side answers the same bytes with the same Predictor. FastAPI: a pydantic model of the row, one
uvicorn process on uvloop and httptools. Plain Ray Serve: a deployment behind Serve's own proxy.
mlray: validation, request ids, metrics and drift counting on. wrk asks on loopback; the sides take
turns within each round, and a claim is the median over rounds of the ratio within a round.

    python benchmarks/serving.py [rounds] [seconds per measurement]
"""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _claims import Claim, save

PACKAGES = ("ray", "fastapi", "uvicorn", "uvloop", "orjson", "onnxruntime")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "serving")]
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
os.environ |= {"RAY_SERVE_LOG_TO_STDERR": "0", "PYTHONWARNINGS": "ignore"}
PORTS = {"fastapi": 8700, "rayserve": 8701, "mlray": 8702, "unwatched": 8703}
CASES = {"c1": (1, 1), "c16": (1, 16), "c64": (1, 64), "100row": (100, 16)}
"""Name: rows in a request, connections."""
CLAIMS = [
    ("http_1row_c1_vs_fastapi", "c1", "mlray", "fastapi", 1.0),
    ("http_1row_c16_vs_fastapi", "c16", "mlray", "fastapi", 1.2),
    ("http_1row_c64_vs_fastapi", "c64", "mlray", "fastapi", 1.2),
    ("http_100row_json_vs_fastapi", "100row", "mlray", "fastapi", 2.5),
    ("http_1row_c16_vs_rayserve", "c16", "mlray", "rayserve", 12.0),
    ("monitoring_on_vs_off", "c16", "mlray", "unwatched", 0.98),
]


@dataclass(frozen=True)
class Measured:
    """One run of wrk: requests a second, latency in microseconds, CPU of the server's processes."""

    per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float


# --- the sides ---


def fastapi_side(folder: str) -> None:
    """What a careful engineer writes: typed rows, the model called in the handler."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    predictor = _predictor(folder)
    row: Any = create_model("Row", **dict.fromkeys(predictor.schema.names, (float | None, ...)))

    class Request(BaseModel):
        rows: list[row]

    async def predict(request: Any) -> dict[str, Any]:
        found = predictor.predict_records([r.model_dump() for r in request.rows])
        pairs = zip(found.scores.tolist(), found.labels, strict=True)
        return {"predictions": [{"score": s, "label": label} for s, label in pairs]}

    predict.__annotations__["request"] = Request  # a local class: no name that could be looked up
    app = FastAPI()
    app.post("/predict", response_model=None)(predict)
    uvicorn.run(app, port=PORTS["fastapi"], loop="uvloop", http="httptools", log_level="error")


def rayserve_side(folder: str) -> Any:
    """A plain deployment behind Serve's proxy."""
    from ray import serve

    @serve.deployment(name="plain", max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1})
    class Plain:
        def __init__(self) -> None:
            self.predictor = _predictor(folder)

        async def __call__(self, request: Any) -> dict[str, Any]:
            found = self.predictor.predict_records((await request.json())["rows"])
            pairs = zip(found.scores.tolist(), found.labels, strict=True)
            return {"predictions": [{"score": s, "label": label} for s, label in pairs]}

    return Plain.bind()


def champion(folder: str) -> Any:
    from mlray.serving.served import Champion

    return Champion("1", folder)


def mlray_side(folder: str, home: str, side: str) -> Any:
    from mlray.serving.app import Settings
    from mlray.serving.service import start

    ask = partial(champion, folder)
    watched = side == "mlray"
    return start(
        Settings(side, ask, home, str(ROOT), port=PORTS[side], monitored=watched, replicas=1)
    )


def _predictor(folder: str) -> Any:
    from mlray.models.bundle import load_bundle
    from mlray.models.predictor import Predictor

    return Predictor(load_bundle(folder))


# --- measuring ---


def measure(side: str, case: str, script: str, seconds: int) -> Measured:
    url = f"http://127.0.0.1:{PORTS[side]}/predict"
    connections = CASES[case][1]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url]
    before = _cpu_s()
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used_s = _cpu_s() - before
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"{side} {case}: not every answer is a good one\n{told}")
    requests = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    per_s = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])  # type: ignore[index]
    return Measured(per_s, _us(told, "50%"), _us(told, "99%"), used_s * 1e6 / requests)


def _us(told: str, mark: str) -> float:
    value, unit = re.search(rf"{mark}\s+([\d.]+)(us|ms|s)", told).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def _cpu_s() -> float:
    """CPU seconds of all processes below this one, wrk and this one left out."""
    ticks, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue  # it has just ended
        fields, pid = tail.split(), int(stat.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = 0 if "(wrk" in head else int(fields[11]) + int(fields[12])
    return sum(t for pid, t in ticks.items() if _below(pid, parents)) / os.sysconf("SC_CLK_TCK")


def _below(pid: int, parents: dict[int, int]) -> bool:
    while pid := parents.get(pid, 0):
        if pid == os.getpid():
            return True
    return False


def lua(folder: str, rows: int, values: dict[str, Any]) -> str:
    script = Path(folder) / f"{rows}.lua"
    body = json.dumps({"rows": [values] * rows})
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
        f"wrk.body = '{body}'\n"
    )
    return str(script)


def until_listening(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def sides_of(case: str) -> list[str]:
    found = {s for _, c, a, b, _ in CLAIMS if c == case for s in (a, b)}
    return [side for side in PORTS if side in found]


def rounds_of(scripts: dict[str, str], rounds: int, seconds: int) -> list[dict[Any, Measured]]:
    """All sides and cases, interleaved, `rounds` times; the order turns with each round."""
    done = []
    for number in range(rounds):
        found = {}
        for case in CASES:
            sides = sides_of(case)
            turn = number % len(sides)
            for side in sides[turn:] + sides[:turn]:
                found[side, case] = measure(side, case, scripts[case], seconds)
        done.append(found)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return done


def claims_of(done: list[dict[Any, Measured]]) -> list[Claim]:
    """Ratios of medians, and of CPU time per request."""
    claims = []
    for claim, case, side, against, goal in CLAIMS:
        ratios = [f[side, case].per_s / f[against, case].per_s for f in done]
        cpu = [f[against, case].cpu_us / f[side, case].cpu_us for f in done]
        claims.append(Claim(claim, round(statistics.median(ratios), 3), goal, "x", "higher"))
        claims.append(Claim(f"{claim}_cpu", round(statistics.median(cpu), 3), None, "x", "higher"))
    return claims


def table(done: list[dict[Any, Measured]]) -> list[dict[str, Any]]:
    """Medians per side and case."""
    rows = []
    for side, case in done[0]:
        middle: Callable[[str], float] = lambda name, key=(side, case): statistics.median(  # noqa: E731
            getattr(f[key], name) for f in done
        )
        values = {n: round(middle(n), 1) for n in ("per_s", "p50_us", "p99_us", "cpu_us")}
        rows.append({"side": side, "case": case, **values})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'side':10} {'case':7} {'req/s':>9} {'p50 us':>9} {'p99 us':>10} {'CPU us/req':>11}")
    for r in sorted(rows, key=lambda r: list(CASES).index(r["case"])):
        print(
            f"{r['side']:10} {r['case']:7} {r['per_s']:9,.0f} {r['p50_us']:9,.0f}"
            f" {r['p99_us']:10,.0f} {r['cpu_us']:11,.0f}"
        )


def main(rounds: int = 5, seconds: int = 2) -> None:
    import ray
    from ray import serve
    from small_bundles import bundle_of, numbers_table

    with tempfile.TemporaryDirectory() as place:
        folder = bundle_of(numbers_table(), "benign", f"{place}/bundle", name="mlray").folder
        row = numbers_table(rows=1).drop_columns(["benign"]).to_pylist()[0]
        scripts = {c: lua(place, rows, row) for c, (rows, _) in CASES.items()}
        bare = subprocess.Popen([sys.executable, __file__, "--fastapi", folder])
        path = os.pathsep.join(sys.path[:2])
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=200 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
        try:
            options = {"host": "127.0.0.1", "port": PORTS["rayserve"]}
            quiet = {"enable_access_log": False, "log_level": "WARNING"}
            serve.start(proxy_location="HeadOnly", http_options=options, logging_config=quiet)
            serve.run(rayserve_side(folder), name="plain", route_prefix="/predict")
            for side in ("mlray", "unwatched"):
                mlray_side(folder, place, side)
            for port in PORTS.values():
                until_listening(port)
            done = rounds_of(scripts, rounds, seconds)
        finally:
            serve.shutdown()
            ray.shutdown()
            bare.terminate()
            bare.wait()
    rows = table(done)
    show(rows)
    save("serving", claims_of(done), PACKAGES, table=rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fastapi"]:
        fastapi_side(sys.argv[2])
    else:
        main(*map(int, sys.argv[1:]))
