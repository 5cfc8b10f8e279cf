"""Executions of pipeline.yaml on the fakes of `workflow_services.py` with the permissions of the
applied configuration, where each call needs one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from emulator.control_plane.method_permissions import Needed, needed
from emulator.control_plane.policies import Policies
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.http_service import Request
from emulator.workflow_engine import Transport, VirtualClock, execute, route_to
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
"""End of an execution, its argument, and the behaviour of its batches or jobs. Together they make
each call of the workflow.
"""


class Rights:
    """Grants of an applied project, moved to the project of the fakes.

    Args:
        applied: The applied project.
        without: A permission that no role gives.
    """

    def __init__(self, applied: AppliedProject, without: str = "") -> None:
        self._without = without
        self._roles = {
            self._move(applied, role): permissions
            for role, permissions in applied.custom_roles.items()
        }
        self._policies = Policies(self._roles.get, lambda email: True)
        for resource, bindings in self._bindings(applied).items():
            self._policies.set(resource, {"version": 3, "bindings": bindings})
        self.used: set[str] = set()
        self.refused: list[Needed] = []

    def granted(self, member: str) -> set[str]:
        """Return every permission of the member's roles."""
        roles = {grant.role for grant in self._policies.grants() if grant.member == member}
        return set(chain.from_iterable(map(self._policies.permissions_of, roles)))

    def allows(self, permission: Needed) -> bool:
        allowed = permission.permission != self._without and self._policies.allows(
            MEMBER, permission.permission, permission.resource
        )
        if allowed:
            self.used.add(permission.permission)
        else:
            self.refused.append(permission)
        return allowed

    def _bindings(self, applied: AppliedProject) -> dict[str, list[dict[str, Any]]]:
        bindings: dict[str, list[dict[str, Any]]] = {}
        for grant in json.loads(self._move(applied, json.dumps(applied.grants))):
            binding = {"role": grant["role"], "members": [grant["member"]]}
            if "condition" in grant:
                binding["condition"] = {"expression": grant["condition"]}
            bindings.setdefault(grant["resource"], []).append(binding)
        return bindings

    @staticmethod
    def _move(applied: AppliedProject, text: str) -> str:
        return (
            text.replace(applied.outputs["buckets"]["code"], BUCKET)
            .replace("yieldspark-batch@", "batch@")
            .replace(APPLIED, PROJECT)
        )


def execution(folder: Path, rights: Rights, scenario: int) -> Outcome:
    """Return the outcome of the scenario of this number, which runs in a folder of its own."""
    _, argument, script = SCENARIOS[scenario]
    with world(folder / str(scenario), _executor(rights), PIPELINE, **script) as cloud:
        return cloud.run(argument)


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
            transport=_checked(route_to(url), rights),
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
        permissions = needed(Request(method, path, query, headers, body or b""), lambda *_: False)[
            1
        ]
        granted = [rights.allows(permission) for permission in permissions]
        if not all(granted):
            return 403, {"content-type": "application/json"}, b'{"error": {"code": 403}}'
        return transport(method, url, headers, query, body, timeout)

    return send
