"""Checks, decision and registration of a run's model version.

Writes `yieldspark.promotion` and `yieldspark.model_outbox` in the run's own transaction, and the
registry after it. If the registry does not answer, the version stays in the outbox and the run
logs a warning.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Connection, Engine

from common.errors import ModelRefused, RegistryUnreachable
from config_spark import Settings
from database.ledger.check_result import CheckResult
from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import PROMOTED, REFUSED
from forecasting.registry import decisions, outbox
from forecasting.registry.mlflow_registry import Registry
from forecasting.run.plan import HorizonPlan
from forecasting.run.serving_model import ServingModel

log = logging.getLogger(__name__)


def model_checks(plan: HorizonPlan, serving: ServingModel) -> list[CheckResult]:
    """Returns checks of registry and versions, the decision on a refit and what is published.

    The checks are `model_registry`, `model_decision` and `model_serves`; all are warnings.
    """
    problems = plan.serving.problems if plan.serving else ()
    results = [_result("model_registry", False, problem) for problem in problems] or [
        _result("model_registry", True, "the registry answers and its versions are intact")
    ]
    promotion = serving.refit.promotion if serving.refit else None
    if promotion:
        results.append(
            _result(
                "model_decision",
                promotion.decision != REFUSED,
                f"{promotion.decision}: {promotion.reason}",
                numbers=promotion.numbers,
            )
        )
    if serving.model:
        version = serving.model.card.version
        line = (
            f"persistence is published; {version} is only recorded"
            if serving.is_shadow
            else f"{version} serves"
        )
        results.append(_result("model_serves", not serving.is_shadow, line))
    return results


def _result(name: str, passed: bool, message: str, **figures: Any) -> CheckResult:
    return CheckResult(name, passed, "warn", message, "batch", figures=figures)


def record_refit(
    connection: Connection, *, plan: HorizonPlan, serving: ServingModel, run_id: str
) -> None:
    """Records a new version and the decision on it, inside the run's transaction.

    A champion that no longer passes loses its alias. For a past as-of day the version is stored
    without a decision.
    """
    refit, versions = serving.refit, plan.serving
    if not refit or not refit.archive or not refit.promotion or not versions:
        return
    promotion, card = refit.promotion, refit.archive.card
    champion = versions.champion.card.version if versions.champion else None
    # without the registry another champion may exist: the version waits as a challenger
    is_champion = promotion.decision == PROMOTED and versions.is_reached
    alias = CHAMPION if is_champion else CHALLENGER
    outbox.enqueue(connection, refit.archive, None if versions.is_past else alias, run_id)
    if versions.is_past:
        return
    if promotion.decision == REFUSED and champion:
        outbox.enqueue_withdrawal(connection, run_id, engine=card.engine, horizon=card.horizon_days)
    decisions.record_decision(
        connection,
        engine=card.engine,
        horizon=card.horizon_days,
        decision=promotion.decision,
        challenger=card.version,
        champion=champion,
        serving_version=promotion.serving_version(card.version, champion),
        reason=promotion.reason,
        numbers=promotion.numbers,
        as_of=plan.as_of,
        run_id=run_id,
    )


def register_versions(settings: Settings, database: Engine, plan: HorizonPlan) -> None:
    """Registers the versions of the outbox, after the commit; those of earlier runs too."""
    registry = Registry(settings, engine=plan.engine, horizon=plan.horizon)
    try:
        outbox.register_pending(database, registry, engine=plan.engine, horizon=plan.horizon)
    except (RegistryUnreachable, ModelRefused) as error:
        # the forecasts are committed: the next command or run registers the version
        log.warning("%s", error)
