"""What a night tells registry and ledger of its model: the decision and the version in the run's
own commit, the registration after it.

In: the plan and the night's model. Out: rows of `yieldspark.promotion` and
`yieldspark.model_outbox`, checks of the run, aliases. A registry that is silent costs a warning:
the version waits in the outbox.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Connection, Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from forecasting.evaluation.promotion_policy import KEPT, PROMOTED, REFUSED
from forecasting.registry import decisions, outbox
from forecasting.registry.mlflow_registry import CHALLENGER, CHAMPION, Registry
from forecasting.run.plan import ForecastPlan
from forecasting.run.serving_model import Tonight

log = logging.getLogger(__name__)


def registry_checks(plan: ForecastPlan, night: Tonight) -> list[dict[str, Any]]:
    """Entries of the run's checks: what was wrong with registry or versions, the judgement of a
    refit, and whether a version serves.
    """
    problems = plan.serving.problems if plan.serving else ()
    entries = [_entry("model_registry", False, problem) for problem in problems] or [
        _entry("model_registry", True, "reached, its versions whole")
    ]
    judgement = night.refit.judgement if night.refit else None
    if judgement:
        entries.append(
            _entry(
                "model_judgement",
                judgement.decision != REFUSED,
                f"{judgement.decision}: {judgement.reason}",
            )
            | {"numbers": judgement.numbers}
        )
    if night.model:
        version = night.model.card.version
        entries.append(
            _entry(
                "model_serves",
                night.serves,
                (
                    f"{version} serves"
                    if night.serves
                    else f"persistence is served, {version} only watched"
                ),
            )
        )
    for entry in entries:
        if not entry["passed"]:
            log.warning("%s: %s", entry["name"], entry["found"])
    return entries


def _entry(name: str, passed: bool, found: str) -> dict[str, Any]:
    return {"name": name, "level": "batch", "severity": "warn", "passed": passed, "found": found}


def record_refit(
    connection: Connection, *, plan: ForecastPlan, night: Tonight, run_id: str
) -> None:
    """Inside the run's transaction: the decision on a version fitted tonight, the version itself,
    and that a champion which no longer passes loses its alias. On a past as-of day no decision is
    taken.
    """
    refit, serving = night.refit, plan.serving
    if not refit or not refit.archive or not refit.judgement or not serving:
        return
    judgement, card = refit.judgement, refit.archive.card
    champion = serving.champion.card.version if serving.champion else None
    alias = CHAMPION if judgement.decision == PROMOTED and serving.is_reached else CHALLENGER
    outbox.put(connection, refit.archive, None if serving.is_past else alias, run_id)
    if serving.is_past:
        return
    if judgement.decision == REFUSED and champion:
        outbox.put_withdrawal(connection, run_id, engine=card.engine, horizon=card.horizon_days)
    decisions.record(
        connection,
        engine=card.engine,
        horizon=card.horizon_days,
        decision=judgement.decision,
        challenger=card.version,
        champion=champion,
        serving_version={PROMOTED: card.version, KEPT: champion, REFUSED: None}[judgement.decision],
        reason=judgement.reason,
        numbers=judgement.numbers,
        as_of=plan.as_of,
        run_id=run_id,
    )


def register(settings: Settings, database: Engine, plan: ForecastPlan) -> None:
    """After the commit: what waits in the outbox is made in the registry, that of an earlier run or
    command that ended too soon as well.
    """
    registry = Registry(settings, engine=plan.engine, horizon=plan.folds.horizon)
    try:
        outbox.register_waiting(database, registry, engine=plan.engine, horizon=plan.folds.horizon)
    except (RegistryUnreachable, ModelRefused) as error:
        log.warning("%s", error)
