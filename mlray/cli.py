"""The command line: each verb parses, calls one function and shows what it returned.

Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by the gate or by quality.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="One project file in, one monitored model out: machine learning systems on Ray.",
    epilog="Start with `mlray run FILE`. Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by "
    "the gate or by quality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Registered versions: list, promote, roll back.")
app.add_typer(models_app, name="models")

File = Annotated[Path, typer.Argument(help="The project file.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.field=value ...", show_default=False)
]


@app.command(epilog="Example: mlray run configs/flights.yaml training.budget='2 epochs'")
def run(
    file: File,
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(help="Last stage to run.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Run this stage and all after it again.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would run; run nothing.")] = False,
) -> None:
    """Rows to a registered model: read, check, split, encode, train, evaluate, register."""
    from mlray import verbs

    result = verbs.run(file, overrides or (), until=until, from_=from_, dry_run=dry_run)
    typer.echo(result.summary())
    raise typer.Exit(result.exit_code)


@app.command(
    epilog="Examples: mlray check configs/flights.yaml; mlray check configs/flights.yaml --suggest"
)
def check(
    file: File,
    overrides: Overrides = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print quality rules that the rows keep.")
    ] = False,
) -> None:
    """Try the project file, its files and its functions on a few real rows."""
    from mlray import verbs

    if suggest:
        typer.echo(verbs.suggest(file, overrides or ()), nl=False)
        return
    findings = verbs.check(file, overrides or ())
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 2)


@app.command(epilog="Examples: mlray explain training; mlray explain configs/flights.yaml")
def explain(
    what: Annotated[str, typer.Argument(help="A section, a field, or a project file.")],
    overrides: Overrides = None,
) -> None:
    """Explain a section, or write out a project file with every derived value."""
    from mlray import verbs

    typer.echo(verbs.explain(what, overrides or ()))


@app.command(epilog="Example: mlray schema > mlray.schema.json")
def schema() -> None:
    """JSON schema of the project file, for editors."""
    import json

    from mlray.config import schema as made

    typer.echo(json.dumps(made(), indent=1))


@app.command(epilog="Example: mlray serve configs/flights.yaml serving.port=9000")
def serve(file: File, overrides: Overrides = None) -> None:
    """Serve the champion until Ctrl-C, following the registry."""
    from mlray import verbs

    with verbs.serve(file, overrides or ()) as service:
        typer.echo(service.welcome())
        service.wait()


@app.command(
    epilog="Example: mlray predict configs/flights.yaml --rows new.parquet --out scored.csv"
)
def predict(
    file: File,
    overrides: Overrides = None,
    rows: Annotated[
        str | None, typer.Option(help="Files to score; default: what sources.rows names.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Parquet folder, .csv or .jsonl to write; default: prediction.path."),
    ] = None,
    version: Annotated[str, typer.Option(help="champion or a version number.")] = "champion",
) -> None:
    """Score files with the champion on Ray Data, by the predictor that also serves."""
    from mlray import verbs

    typer.echo(verbs.predict(file, overrides or (), rows=rows, out=out, version=version))


@app.command(epilog="Example: mlray monitor flights --since 7d")
def monitor(
    model: Annotated[str, typer.Argument(help="A model's name or a project file.")],
    since: Annotated[str, typer.Option(help="How far back: 90s, 15m, 1h, 7d.")] = "1h",
    version: Annotated[str, typer.Option(help="champion or a version number.")] = "champion",
) -> None:
    """Drift of served traffic against the training rows, feature by feature."""
    from rich.console import Console

    from mlray import verbs

    Console().print(verbs.monitor(model, since=since, version=version))


@app.command(
    epilog="Examples: mlray lineage flights; mlray lineage flights@3; mlray lineage flights "
    "--diff 2 3; mlray lineage --diff flights@2 sales@champion"
)
def lineage(
    model: Annotated[
        str | None, typer.Argument(help="A model's name or a project file, with @VERSION.")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="Two versions: what changed between them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Where a version comes from: data, features, code, environment, run, model, deployment."""
    import json

    from rich.console import Console

    from mlray import verbs
    from mlray.errors import InputError

    if model is None and (diff is None or "@" not in diff[0]):
        raise InputError("no model is named", do="mlray lineage NAME, or NAME@VERSION")
    if diff is None:
        found = verbs.lineage(str(model))
        typer.echo(json.dumps(found.to_dict(), indent=1)) if as_json else Console().print(found)
        return
    before, after = _both(model, *diff)
    changes = verbs.lineage(after).since(verbs.lineage(before))
    typer.echo(json.dumps(changes.to_dict(), indent=1)) if as_json else Console().print(changes)


def _both(model: str | None, before: str, after: str) -> tuple[str, str]:
    """Two versions by full name; a bare one is of the model named first.

    >>> _both("flights", "2", "champion"), _both(None, "flights@2", "3")
    (('flights@2', 'flights@champion'), ('flights@2', 'flights@3'))
    """
    from mlray.verbs import addressed

    name = addressed(model or before)[0]
    full = [v if addressed(v)[1] else f"{name}@{v.removeprefix('@')}" for v in (before, after)]
    return full[0], full[1]


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Registered models and their versions."""
    if context.invoked_subcommand is None:
        from rich.console import Console

        from mlray import verbs
        from mlray.registry import render_versions

        Console().print(render_versions(verbs.versions()))


@models_app.command()
def promote(name: str, version: int, why: str = "by hand") -> None:
    """Make a version the champion."""
    from mlray import verbs

    typer.echo(verbs.promote(name, version, why))


@models_app.command()
def rollback(name: str, why: str = "by hand") -> None:
    """Put the champion before this one back."""
    from mlray import verbs

    typer.echo(verbs.rollback(name, why))


@app.command(
    epilog="Examples: mlray quarantine configs/flights.yaml; mlray quarantine configs/flights.yaml "
    "--out broken.csv; mlray quarantine configs/flights.yaml --resubmit mended.csv"
)
def quarantine(
    file: File,
    out: Annotated[
        str | None, typer.Option(help="Write the rows to this .csv or .parquet file.")
    ] = None,
    resubmit: Annotated[
        str | None, typer.Option(help="Hand in repaired rows: a file that --out wrote, mended.")
    ] = None,
) -> None:
    """Rows that broke a rule: show them, write them out for repair, hand the repaired ones in."""
    from mlray import verbs
    from mlray.quarantine import export

    if resubmit is not None:
        count = verbs.resubmit(file, resubmit)
        typer.echo(f"{count:,} repaired rows take part from the next `mlray run {file}` on")
        return
    held = verbs.quarantined(file)
    typer.echo(held)
    if out is not None:
        typer.echo(f"written to {export(held, out)}")


@app.command(epilog="Example: mlray doctor configs/flights.yaml")
def doctor(
    file: Annotated[Path | None, typer.Argument(help="A project file.")] = None,
    overrides: Overrides = None,
) -> None:
    """Say whether this machine or cluster can run a project, and what to fix."""
    from mlray import verbs

    findings = verbs.doctor(file, overrides or ())
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
