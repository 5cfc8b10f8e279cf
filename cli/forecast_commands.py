"""The commands that score forecasts: past ones, and those of a backtest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import MODELS, RUN, app
from cli.context import JobContext
from cli.options import AsJson, DryRun, Engine, Horizon, LastDay, day, run_in_context
from cli.terminal import out, print_json, print_pairs, print_records, print_run, print_table

if TYPE_CHECKING:
    import pandas as pd

MODEL_PARAMETERS = Path("model_parameters.json")
Days = Annotated[int, typer.Option(min=1, max=730, help="Number of target days to score.")]


@app.command(rich_help_panel=RUN)
def evaluate(
    days: Days = 30,
    end: LastDay = None,
    engine: Engine = None,
    horizon: Horizon = None,
    as_json: AsJson = False,
) -> None:
    """Score past forecasts against actual values and persistence.

    Example: python run_spark_local.py evaluate --days 60 --json
    """

    def work(context: JobContext) -> dict[str, Any]:
        from forecasting.evaluation.evaluate import evaluate as score

        return score(
            context.settings,
            days=days,
            end=day(end),
            engine=engine.value if engine else None,
            horizon=horizon,
        )

    _show(run_in_context(work), as_json)


@app.command(rich_help_panel=MODELS)
def backtest(
    days: Annotated[
        int | None,
        typer.Option(
            min=5, max=365, help="Number of target days to score; default: BACKTEST_DAYS."
        ),
    ] = None,
    refit: Annotated[
        int | None,
        typer.Option(min=1, max=90, help="Days between model fits; default: REFIT_DAYS."),
    ] = None,
    horizon: Horizon = None,
    end: LastDay = None,
    engine: Engine = None,
    html: Annotated[
        bool,
        typer.Option("--html", help="Also write an HTML page to REPORT_DIR."),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Forecast each of the last days from earlier data only, and score the forecasts.

    Example: python run_spark_local.py backtest --days 60 --refit 7 --engine lightgbm --json
    """

    def work(context: JobContext) -> dict[str, Any]:
        from forecasting.backtest_spark import run_backtest

        if not dry_run:
            context.require_engine()
        # not a default of the option: the setting comes from the environment
        length = days or context.settings.backtest_days
        # the page needs the scored rows, and the ledger row has only their scores
        scored: list[pd.DataFrame] = []
        document = run_backtest(
            context.settings,
            days=length,
            end=day(end),
            horizon=horizon,
            dry_run=dry_run,
            session=context.forecast_session,
            keep=scored.append,
        )
        if html and scored:
            return document | {"report": _write_page(context, scored[0])}
        return document

    options: dict[str, Any] = {
        "engine": engine.value if engine else None,
        "refit_days": refit,
    }
    _show(run_in_context(work, changes=not dry_run, **options), as_json)


@app.command(rich_help_panel=MODELS)
def tune(
    minutes: Annotated[
        float, typer.Option(min=0.1, max=1_440, help="Duration of the search; minutes.")
    ] = 10.0,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="File for the best parameters.")
    ] = MODEL_PARAMETERS,
    engine: Engine = None,
    as_json: AsJson = False,
) -> None:
    """Search LightGBM parameters and write the best to a file; set MODEL_PARAMETERS_FILE to use it.

    Example: python run_spark_local.py tune --minutes 10 --output parameters.json --engine lightgbm
    """

    def work(context: JobContext) -> dict[str, Any]:
        from forecasting.tuning import tune as search

        context.require_engine()
        return search(
            context.settings,
            minutes=minutes,
            output=output.absolute(),
            session=context.forecast_session,
        )

    document = run_in_context(work, engine=engine.value if engine else None)
    if as_json:
        print_json(document)
        return
    tuned = document.pop("tuned")
    print_run(document)
    columns = ["parameters", "searched folds, to persistence", "last fold, to persistence"]
    print_table(
        columns,
        [[name, ratio["searched"], ratio["last"]] for name, ratio in tuned["ratio"].items()],
    )
    print_pairs(tuned["parameters"] | {"better by more than chance": tuned["is_better"]})


def _write_page(context: JobContext, scored: pd.DataFrame) -> Path:
    from reporting.report.backtest_page import write_backtest

    return write_backtest(context.engine, scored, context.settings.report_dir)


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    not_of_run = ("targets", "groups", "further_horizons", "report")
    print_run({name: value for name, value in document.items() if name not in not_of_run})
    further = document.get("further_horizons", [])
    _print_scores(document, "the next day: " if further else "")
    for of_horizon in further:
        _print_scores(of_horizon, f"{of_horizon['horizon_days']} days ahead: ")
    if "report" in document:
        out.print(str(document["report"]), soft_wrap=True)


def _print_scores(scores: dict[str, Any], horizon: str) -> None:
    columns = [
        "target",
        "pools",
        "number",
        "forecasts",
        "MAE ratio",
        "from",
        "to",
        "median ratio",
        "coverage",
        "pinball ratio",
    ]
    rows = []
    for target, models in scores.get("targets", {}).items():
        rows += [_score_row(target, name, entry) for name, entry in models.items()]
    if rows:
        title = (
            f"{horizon}errors relative to persistence (under 1 is better); the MAE ratio with its"
            " interval over days;\nrestricted: TVL over 1 M USD and APY under 100 %"
        )
        print_table(columns, rows, title=title)
    if scores.get("groups"):
        ratios = {"MAE ratio": "mae_ratio", "median ratio": "median_ae_ratio"}
        keys = {key: key for key in ("target", "by", "group", "rows")}
        print_records(keys | ratios | {"coverage": "coverage"}, scores["groups"])


def _score_row(target: str, name: str, scores: dict[str, Any]) -> list[object]:
    if not scores["rows"]:
        return [target, name, 0, 0, *[None] * 6]
    ratio, interval = scores["ratio"], scores["interval"]
    errors = [ratio[key] for key in ("mae", "mae_low", "mae_high", "median_ae")]
    return [
        target,
        name,
        scores["pools"],
        scores["rows"],
        *errors,
        interval["coverage"],
        interval["pinball_ratio"],
    ]
