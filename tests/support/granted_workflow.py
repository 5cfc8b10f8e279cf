"""Executions of pipeline.yaml on the doubles of `workflow_world.py`, where the workflow's account
has the rights that were applied, and each call needs one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from emulator.control_plane.method_permissions import Needed, needed
from emulator.control_plane.policies import Policies
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.http_service import Request
from emulator.workflow_engine import Transport, VirtualClock, execute, hosts_at
from tests.support.emulated_project import PROJECT as APPLIED
from tests.support.emulated_project import AppliedProject
from tests.support.workflow_services import BUCKET, PIPELINE, PROJECT, Log, Outcome, world

MEMBER = f"serviceAccount:yieldspark-workflow@{PROJECT}.iam.gserviceaccount.com"

ON_CLOUD_RUN = {"platform": {"calculate_metrics": "cloud_run", "forecast_pools": "cloud_run"}}
SCENARIOS: tuple[tuple[str, Any, Mapping[str, Any]], ...] = (
    ("SUCCEEDED", None, {}),
    ("SUCCEEDED", ON_CLOUD_RUN, {}),
    ("FAILED", None, {"dataproc": BatchScript(end=None, keeps_ttl=False), "deadline": 1800}),
    (
        "FAILED",
        ON_CLOUD_RUN,
        {"cloud_run": BatchScript(end=None, keeps_ttl=False), "deadline": 1800},
    ),
)
"""How an execution ends, its argument, and what its batches or jobs do: each call of the workflow
is in one of them.
"""


class Rights:
    """The grants of an applied project, moved to the project of the doubles.

    Args: without is a permission that no role gives.
    """

    def __init__(self, applied: AppliedProject, without: str = "") -> None:
        self._without = without
        self._roles = {
            self._moved(applied, role): permissions
            for role, permissions in applied.custom_roles.items()
        }
        self._policies = Policies(self._roles.get, lambda email: True)
        for resource, bindings in self._bindings(applied).items():
            self._policies.set(resource, {"version": 3, "bindings": bindings})
        self.used: set[str] = set()
        self.refused: list[Needed] = []

    def granted(self, member: str) -> set[str]:
        """Every permission that a role of the member's has."""
        roles = {grant["role"] for grant in self._policies.grants() if grant["member"] == member}
        return {one for role in roles for one in self._policies.permissions_of(role)}

    def allows(self, wanted: Needed) -> bool:
        allowed = wanted.permission != self._without and self._policies.allows(
            MEMBER, wanted.permission, wanted.resource
        )
        if allowed:
            self.used.add(wanted.permission)
        else:
            self.refused.append(wanted)
        return allowed

    def _bindings(self, applied: AppliedProject) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for grant in json.loads(self._moved(applied, json.dumps(applied.grants))):
            binding = {"role": grant["role"], "members": [grant["member"]]}
            if "condition" in grant:
                binding["condition"] = {"expression": grant["condition"]}
            found.setdefault(grant["resource"], []).append(binding)
        return found

    @staticmethod
    def _moved(applied: AppliedProject, words: str) -> str:
        return (
            words.replace(applied.outputs["buckets"]["code"], BUCKET)
            .replace("yieldspark-batch@", "batch@")
            .replace(APPLIED, PROJECT)
        )


def executions(folder: Path, rights: Rights) -> Iterable[tuple[str, Outcome]]:
    """Each scenario: how it has to end, and how it ended."""
    for number, (state, argument, script) in enumerate(SCENARIOS):
        with world(folder / str(number), _executor(rights), PIPELINE, **script) as made:
            yield state, made.run(argument)


def _executor(rights: Rights) -> Callable[..., Any]:
    def run(
        source: str,
        argument: Any,
        environment: Mapping[str, str],
        url: str,
        clock: VirtualClock,
        log: Log,
    ) -> Any:
        def checked_log(entry: dict[str, Any]) -> None:
            assert rights.allows(Needed("logging.logEntries.create", f"projects/{PROJECT}"))
            log(entry)

        return execute(
            source,
            argument,
            environment=environment,
            transport=_checked(hosts_at(url), rights),
            clock=clock,
            log=checked_log,
        )

    return run


def _checked(transport: Transport, rights: Rights) -> Transport:
    def send(
        method: str,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        path = "/" + url.partition(".googleapis.com/")[2]
        wanted = needed(Request(method, path, query, headers, body or b""), lambda *_: False)[1]
        granted = [rights.allows(one) for one in wanted]
        if not all(granted):
            return 403, {"content-type": "application/json"}, b'{"error": {"code": 403}}'
        return transport(method, url, headers, query, body, timeout)

    return send
