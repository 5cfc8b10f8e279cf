"""`models list | show | promote | rollback | compare`: inspects and changes model versions."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.app import MODELS, app
from cli.context import JobContext
from cli.options import AsJson, Engine, EngineName, run_in_context
from cli.terminal import (
    format_cell,
    out,
    print_json,
    print_pairs,
    print_records,
    print_table,
)
from common.horizons import LONGEST_HORIZON_DAYS, NEXT_DAY
from common.quantities import count

models_app = typer.Typer(
    no_args_is_help=True, help="Model versions: list, compare, promote and roll back."
)
app.add_typer(models_app, name="models", rich_help_panel=MODELS)

Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="Name or number of a version, `champion` or `challenger`.",
        show_default=False,
    ),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Reason, recorded with your user name.")]
Horizon = Annotated[
    int,
    typer.Option(min=1, max=LONGEST_HORIZON_DAYS, help="Forecast horizon of the model; days."),
]

MAX_GROUPS, MAX_FEATURES = 12, 10


@models_app.command("list")
def list_versions(
    engine: Engine = None, horizon: Horizon = NEXT_DAY, as_json: AsJson = False
) -> None:
    """List model versions, newest first; the champion makes the forecasts.

    Example: python run_spark_local.py models list --engine lightgbm
    """
    from forecasting.registry import versions

    today = dt.datetime.now(dt.UTC).date()
    model_versions = _run_for_model(
        lambda context: versions.list_versions(context.settings, context.engine, horizon=horizon),
        engine,
        changes=False,
    )
    rows = [versions.version_summary(version, today) for version in model_versions]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("no versions yet: `forecast_pools` fits the first")
        return
    columns = [
        "number",
        "version",
        "aliases",
        "origin",
        "known",
        "passed",
        "features_hash",
        "code_version",
    ]
    print_records(columns, (row | {"aliases": ", ".join(row["aliases"])} for row in rows))


@models_app.command()
def show(
    version: Version, engine: Engine = None, horizon: Horizon = NEXT_DAY, as_json: AsJson = False
) -> None:
    """Show a model version: training data, validation, feature importance and decisions.

    Example: python run_spark_local.py models show champion --engine lightgbm
    """
    from forecasting.registry.versions import show_version

    document = _run_for_model(
        lambda context: show_version(context.settings, context.engine, version, horizon=horizon),
        engine,
        changes=False,
    )
    if as_json:
        print_json(document)
        return
    # too long for a line; printed below, or counted
    listed = ("features", "gain", "scores", "decisions")
    print_pairs(
        {name: value for name, value in document.items() if name not in listed}
        | {"features": len(document["features"])}
    )
    _print_numbers(document["scores"])
    for target, gain in document["gain"].items():
        print_table([f"{target}: group", "gain"], list(gain["groups"].items())[:MAX_GROUPS])
        print_table([f"{target}: feature", "gain"], list(gain["features"].items())[:MAX_FEATURES])
    for decision in document["decisions"]:
        _print_recorded(decision)


@models_app.command()
def promote(
    version: Version,
    reason: Reason,
    engine: Engine = None,
    horizon: Horizon = NEXT_DAY,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion from the next run on, whatever its validation says.

    Example: python run_spark_local.py models promote 20250821-1a2b3c4d --reason "fewer misses"
    """
    from forecasting.registry import versions

    _print_decision(
        _run_for_model(
            lambda context: versions.promote(
                context.settings, context.engine, version, reason, horizon=horizon
            ),
            engine,
        ),
        as_json,
    )


@models_app.command()
def rollback(
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERSION]",
            help="Version to restore; default: the previous champion.",
            show_default=False,
        ),
    ] = None,
    reason: Reason = "rolled back by hand",
    engine: Engine = None,
    horizon: Horizon = NEXT_DAY,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion, or a given version, the champion again.

    Example: python run_spark_local.py models rollback --engine lightgbm
    """
    from forecasting.registry import versions

    _print_decision(
        _run_for_model(
            lambda context: versions.roll_back(
                context.settings, context.engine, version, reason, horizon=horizon
            ),
            engine,
        ),
        as_json,
    )


@models_app.command()
def compare(
    first: Version,
    second: Version,
    engine: Engine = None,
    horizon: Horizon = NEXT_DAY,
    as_json: AsJson = False,
) -> None:
    """Compare two versions on days that neither was trained on.

    Example: python run_spark_local.py models compare challenger champion --engine lightgbm
    """

    def work(context: JobContext) -> dict[str, Any]:
        from forecasting.compare_versions import compare_versions

        context.require_engine()
        return compare_versions(
            context.settings, first, second, horizon=horizon, session=context.forecast_session
        )

    document = _run_for_model(work, engine)
    if as_json:
        print_json(document)
        return
    print_pairs({name: value for name, value in document.items() if name != "numbers"})
    _print_numbers(document["numbers"])


def _run_for_model(work: Any, engine: EngineName | None, *, changes: bool = True) -> Any:
    return run_in_context(work, changes=changes, engine=engine.value if engine else None)


def _print_decision(row: dict[str, Any], as_json: bool) -> None:
    print_json(row) if as_json else print_pairs(row | {"next": "the next `forecast_pools` uses it"})


def _print_recorded(decision: dict[str, Any]) -> None:
    """Print a recorded decision as one line and its reason; as a table it has too many columns."""
    serving = decision["serving_version"] or "persistence"
    line = f"{format_cell(decision['decided_at'])} {decision['decision'].replace('_', ' ')} by"
    out.print(Text(f"{line} {decision['decided_by']}: {serving} serves", style="bold"))
    if decision["champion"] and decision["champion"] != decision["serving_version"]:
        out.print(Text(f"  before: {decision['champion']}"))
    out.print(Text(f"  {decision['reason']}"))


def _print_numbers(numbers: dict[str, Any]) -> None:
    ratios = [[name, *values] for name, values in numbers.get("ratio", {}).items()]
    if ratios:
        title = (
            f"{count(numbers['rows'], 'row')} of {count(numbers['days'], 'day')}:"
            " errors in the pools' own scales"
        )
        print_table(["error compared", "ratio", "from", "to"], ratios, title=title)
    if numbers.get("groups"):
        print_records(["by", "group", "rows", "ratio"], numbers["groups"])
