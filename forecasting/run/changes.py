"""Why a forecast run has work: what differs from the inputs of the last run.

Reads the run ledger and the digests of `run_inputs`; returns sentences, none if the run would
publish what is published already. A doubt is a reason to run. Starts no Spark session.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from common.horizons import NEXT_DAY
from common.jobs import FORECAST_POOLS
from config_spark import Settings
from database.connections.engine import checked_connection
from database.schema.own_tables import GOOD, run_ledger
from forecasting.run.run_inputs import (
    RunInputs,
    code_versions,
    pending_versions,
    read_inputs,
    result_settings,
)

INPUTS = "inputs"
"""Key of the inputs in the ledger's `plan`."""

CHANGED_TABLES = {
    "pools": "the active pools or their last values changed",
    "market": "prices changed",
    "history": "the forecast history changed",
    "forecasts": "the published forecasts changed after the last run",
}


@dataclass(frozen=True)
class Changes:
    """The result of a comparison with the last run.

    Attributes:
        reasons: why the run has work; empty if nothing changed.
        last_run_id: the run that is compared with; None before the first one.
        inputs: the inputs, if nothing changed.
    """

    reasons: tuple[str, ...]
    last_run_id: str | None = None
    inputs: RunInputs | None = None

    def summary(self) -> dict[str, Any]:
        """Returns `nothing_to_do` and `reasons`, as a plan prints them."""
        unchanged = f"nothing has changed since run {self.last_run_id}"
        return {
            "nothing_to_do": not self.reasons,
            "reasons": list(self.reasons) or [unchanged],
        }


def find_changes(
    settings: Settings,
    database: Engine,
    *,
    as_of: dt.date,
    engine: str,
    new_actuals: int,
    full_refresh: bool = False,
    run_id: str | None = None,
) -> Changes:
    """Compares the inputs of a run with those of the last one.

    Args:
        as_of: as-of day of the run.
        engine: name of the forecasting engine.
        new_actuals: actual values of past forecasts that are new to the forecast history.
        full_refresh: the user asks for a run without changes too.
        run_id: the open run, which is not compared with itself.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    # now, not when the run ends: a source file that is edited meanwhile has not been used
    code = code_versions(settings)
    with checked_connection(database) as connection:
        last = _last_run(connection, run_id)
    if last is None:
        return Changes(("no forecast run is recorded yet",))
    inputs = _recorded_inputs(last["plan"])
    reasons = _requested(full_refresh, new_actuals) + _unusable(last, inputs)
    if reasons or inputs is None:
        return Changes(reasons, last["run_id"])
    # digests of another day or engine are no evidence, and cost a pass over the metrics
    if reasons := _other_run(inputs, settings, code, as_of, engine):
        return Changes(reasons, last["run_id"])
    # before the registry: a version that leaves the outbox in between is seen there
    with checked_connection(database) as connection:
        waiting = pending_versions(connection, engine=engine, horizons=settings.horizons)
    if waiting:
        reason = "model versions or decisions wait for the registry"
        return Changes((reason,), last["run_id"])
    current = read_inputs(settings, database, as_of=as_of, engine=engine)
    if current is None:
        return Changes(("the model registry does not answer",), last["run_id"])
    reasons = _changed_rows(inputs, current)
    return Changes(reasons, last["run_id"], None if reasons else current)


def record_inputs(database: Engine, run_id: str, inputs: RunInputs) -> None:
    """Adds the inputs to the plan of a run that is committed and registered.

    A run that ends before has none, so the next one has work.
    """
    plan = run_ledger.c.plan.op("||")({INPUTS: inputs.to_json()})
    with checked_connection(database) as connection:
        connection.execute(
            update(run_ledger).where(run_ledger.c.run_id == run_id).values(plan=plan)
        )


def _last_run(connection: Connection, run_id: str | None) -> Mapping[str, Any] | None:
    newest = (
        select(run_ledger.c.run_id, run_ledger.c.status, run_ledger.c.plan)
        .where(run_ledger.c.job == FORECAST_POOLS.name)
        .order_by(run_ledger.c.started_at.desc())
        .limit(1)
    )
    if run_id:
        newest = newest.where(run_ledger.c.run_id != run_id)
    row = connection.execute(newest).mappings().first()
    return dict(row) if row else None


def _recorded_inputs(plan: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    inputs: Mapping[str, Any] | None = (plan or {}).get(INPUTS)
    return inputs


def _requested(full_refresh: bool, new_actuals: int) -> tuple[str, ...]:
    reasons = ["--full-refresh"] if full_refresh else []
    if new_actuals:
        reasons.append(f"{new_actuals:,} actual values of past forecasts are new")
    return tuple(reasons)


def _unusable(last: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Why the last run is no evidence."""
    if last["status"] not in GOOD:
        return (f"the last run {last['run_id']} is {last['status']}",)
    if inputs is None:
        return (f"the last run {last['run_id']} did not record its inputs",)
    if inputs["refit_is_due"]:
        return ("a refit is due: the last run fitted no version",)
    return ()


def _other_run(
    inputs: Mapping[str, Any],
    settings: Settings,
    code: Mapping[str, str],
    as_of: dt.date,
    engine: str,
) -> tuple[str, ...]:
    """Differences that need no read of the metrics."""
    reasons = []
    if inputs["as_of"] != as_of.isoformat():
        reasons.append(f"new as-of day {as_of}, after {inputs['as_of']}")
    if inputs["engine"] != engine:
        reasons.append(f"engine changed from {inputs['engine']} to {engine}")
    if changed := _differences(inputs["settings"], result_settings(settings)):
        reasons.append(f"settings changed: {changed}")
    if changed := _differences(inputs["code"], code):
        reasons.append(f"code changed: {changed}")
    return tuple(reasons)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Names and values that differ, as text; empty if none does."""
    # as the ledger returns them: JSON has no tuples
    after = json.loads(json.dumps(after))
    names = sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or before[name] != after[name]
    )
    return ", ".join(f"{name} {before.get(name)} -> {after.get(name)}" for name in names)


def _changed_rows(before: Mapping[str, Any], current: RunInputs) -> tuple[str, ...]:
    """What differs in registry and tables."""
    reasons = [
        _registry_change(int(horizon), before["registry"][horizon], state)
        for horizon, state in current.registry.items()
        if state != before["registry"][horizon]
    ]
    buckets = current.metrics.keys() | before["metrics"].keys()
    changed = [
        bucket for bucket in buckets if current.metrics.get(bucket) != before["metrics"].get(bucket)
    ]
    if changed:
        reasons.append(f"the metrics of {len(changed)} or more pools changed")
    reasons += [
        sentence
        for name, sentence in CHANGED_TABLES.items()
        if current.tables.get(name) != before["tables"].get(name)
    ]
    return tuple(reasons)


def _registry_change(horizon: int, before: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    old, new = (state["aliases"].get("champion") for state in (before, current))
    of_horizon = "" if horizon == NEXT_DAY else f" at {horizon} days"
    if old != new:
        return f"the champion{of_horizon} changed from {old} to {new}"
    return f"versions or aliases of the model registry{of_horizon} changed"
