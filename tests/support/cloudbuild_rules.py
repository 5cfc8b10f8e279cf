"""Rules for cloudbuild.yaml; each yields a message for each fault. Besides Google's rules
(https://cloud.google.com/build/docs/build-config-file-schema), releasing anything but the commit
and passing on a secret are faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from workflows.deployment.__main__ import STEPS

SUITE_MINUTES = 18
"""Duration of the whole suite with two workers on 2 cores."""
SUITE_GB = 7
"""Its peak of memory there."""

MACHINES = {
    "E2_MEDIUM": (1, 4.0),
    "E2_STANDARD_2": (2, 8.0),
    "N1_HIGHCPU_8": (8, 7.2),
    "E2_HIGHCPU_8": (8, 8.0),
    "N1_HIGHCPU_32": (32, 28.8),
    "E2_HIGHCPU_32": (32, 32.0),
}
"""vCPUs and GB of memory (https://cloud.google.com/compute/docs/machine-resource)."""

NEW_PROJECT_CPUS = 10
"""Concurrent CPUs that a new project's builds have in a region
(https://cloud.google.com/build/quotas).
"""

BUILT_IN = frozenset({"COMMIT_SHA", "PROJECT_ID", "LOCATION", "BUILD_ID", "TRIGGER_NAME"})
"""Substitutions of Cloud Build that a triggered build has."""
SUBSTITUTION = re.compile(r"(?<!\$)\$(?:\{(\w+)\}|(\w+))")
SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|API_KEY", re.IGNORECASE)
USER_IN_URI = re.compile(r"://[^/@\s]*:[^/@\s]+@")
PINNED = re.compile(r"[a-z0-9./-]+:(?!latest\b)[\w.-]+@sha256:[0-9a-f]{64}")
RESERVED = ("/workspace", "/builder", "/var/run", "/dev", "/proc", "/sys")
BEFORE = {
    "settings": {"check"},
    "test": {"check"},
    "images": {"check", "settings", "test"},
    "release": {"check", "settings", "test", "images"},
    "deploy": {"release"},
    "verify": {"deploy"},
}
"""Steps that must have ended when a step begins."""
COMMIT_STEPS = ("check", "release", "verify")
SUITE = ["bash", ".ci/run"]


@dataclass(frozen=True)
class BuildFile:
    """`text` is the file's, `root` the checkout."""

    text: str
    root: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = yaml.safe_load(self.text)
        return value

    @property
    def steps(self) -> list[dict[str, Any]]:
        value: list[dict[str, Any]] = self.document["steps"]
        return value

    @property
    def options(self) -> dict[str, Any]:
        value: dict[str, Any] = self.document.get("options", {})
        return value


def variables_of(lines: list[str]) -> dict[str, str]:
    """Return names and values of `env`."""
    return dict(line.split("=", 1) for line in lines)


def step_ids(file: BuildFile) -> list[str]:
    return [str(step.get("id")) for step in file.steps]


def steps_are_named(file: BuildFile) -> Iterator[str]:
    names = step_ids(file)
    expected = ["check", "settings", "test", *list(STEPS)[2:]]
    if names != expected:
        yield f"the steps are {names}, and not {expected}"


def a_step_waits_for_steps_before_it(file: BuildFile) -> Iterator[str]:
    for number, step in enumerate(file.steps):
        waits = step.get("waitFor") or []
        earlier = step_ids(file)[:number] if number else ["-"]
        if not waits or not set(waits) <= set(earlier):
            yield f"{step.get('id')} waits for {waits}, and before it are {earlier}"


def nothing_begins_too_early(file: BuildFile) -> Iterator[str]:
    ended: dict[str, set[str]] = {}
    for step in file.steps:
        waits = set(step.get("waitFor") or [])
        ended[str(step.get("id"))] = waits.union(*(ended.get(name, set()) for name in waits))
    for name, required in BEFORE.items():
        missing = sorted(required - ended.get(name, set()))
        if missing:
            yield f"{name} begins before {', '.join(missing)} is over"


def a_step_is_a_script_of_the_repository(file: BuildFile) -> Iterator[str]:
    for step in file.steps:
        command = [step.get("entrypoint"), *step.get("args", [])]
        ours = command == ["python3", "-m", "workflows.deployment", step.get("id")]
        if command == SUITE and (file.root / SUITE[1]).is_file() and step.get("id") == "test":
            continue
        if not ours or step.get("id") not in STEPS or "script" in step:
            yield f"{step.get('id')} runs {command}, which is no step of workflows/deployment"


def builders_are_pinned(file: BuildFile) -> Iterator[str]:
    for step in file.steps:
        if not PINNED.fullmatch(step.get("name", "")):
            yield f"{step.get('id')} runs in {step.get('name')}: NAME:TAG@sha256:.. is allowed"
    if "gcr.io" in file.text:
        yield "gcr.io stands in the file; Container Registry has ended, images are in pkg.dev"


def substitutions_are_defined_used_and_explained(file: BuildFile) -> Iterator[str]:
    body = yaml.safe_dump({name: file.document[name] for name in ("steps", "options")})
    used = {first or second for first, second in SUBSTITUTION.findall(body)}
    own_names = {name for name in used if name.startswith("_")}
    defined = file.document.get("substitutions", {})
    for name in sorted(own_names ^ set(defined)):
        yield f"{name} is used and not defined, or defined and not used"
    for name in sorted(used - own_names - BUILT_IN):
        yield f"{name} is no substitution of a build that a trigger started"
    head = file.text.partition("\nsubstitutions:")[0]
    for name in sorted(used):
        if name not in head:
            yield f"{name} is not explained at the head of the file"
    for name, value in defined.items():
        if value:
            yield f"{name} has the default {value!r}: the trigger says it"


def the_commit_reaches_its_steps(file: BuildFile) -> Iterator[str]:
    for step in file.steps:
        if step.get("id") in COMMIT_STEPS:
            value = variables_of(step.get("env", [])).get("COMMIT_SHA")
            if value != "$COMMIT_SHA":
                yield f"{step['id']} has COMMIT_SHA={value}"


def no_secret_is_in_it(file: BuildFile) -> Iterator[str]:
    for name in ("secrets", "availableSecrets"):
        if name in file.document:
            yield f"{name}: a deployment needs no secret; jobs fetch the password themselves"
    for where, environment in _environments(file):
        for name in environment:
            if SECRET.search(name):
                yield f"{where} has {name}"
    for step in file.steps:
        if "secretEnv" in step:
            yield f"{step['id']} has secretEnv"
    if USER_IN_URI.search(file.text):
        yield "a URL with credentials"


def nothing_is_handed_on_in_the_checkout(file: BuildFile) -> Iterator[str]:
    volumes = [volume["path"] for volume in file.options.get("volumes", [])]
    for path in volumes:
        if path.startswith(RESERVED):
            yield f"the volume {path} is where Cloud Build has its own files"
    for where, environment in _environments(file):
        for name in ("DEPLOYMENT_FOLDER", "JARS_DIR"):
            folder = environment.get(name)
            if folder and not any(Path(folder).is_relative_to(path) for path in volumes):
                yield f"{where} has {name}={folder}, which is in no volume"
    if "DEPLOYMENT_FOLDER" not in variables_of(file.options.get("env", [])):
        yield "DEPLOYMENT_FOLDER is not set for all steps"


def logs_and_account_are_right(file: BuildFile) -> Iterator[str]:
    logging = file.options.get("logging")
    if logging != "CLOUD_LOGGING_ONLY" or "logsBucket" in file.document:
        yield f"logging is {logging}: an account of one's own needs CLOUD_LOGGING_ONLY"
    if "serviceAccount" in file.document:
        yield "serviceAccount: Cloud Build ignores it in a triggered build, the trigger names it"


def time_and_machine_fit_the_suite(file: BuildFile) -> Iterator[str]:
    times = {str(step.get("id")): _seconds(step.get("timeout")) for step in file.steps}
    for name, seconds in times.items():
        if not seconds:
            yield f"{name} has no timeout"
    if _seconds(file.document.get("timeout")) < sum(times.values()):
        yield f"the build ends after {file.document.get('timeout')}, and its steps may take longer"
    cpus, memory = MACHINES.get(file.options.get("machineType", ""), (0, 0.0))
    if not 2 <= cpus <= NEW_PROJECT_CPUS or memory < SUITE_GB + 1:
        yield f"the machine has {cpus} CPUs and {memory} GB: the suite takes {SUITE_GB} GB"
    # a machine below 10 GB has one worker
    if times.get("test", 0) < 2 * SUITE_MINUTES * 60:
        yield f"the suite ends after {times.get('test')} s: with one worker it takes longer"


def _seconds(duration: Any) -> int:
    match = re.fullmatch(r"(\d+)s", str(duration))
    return int(match[1]) if match else 0


def _environments(file: BuildFile) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "options", variables_of(file.options.get("env", []))
    for step in file.steps:
        yield str(step.get("id")), variables_of(step.get("env", []))


RULES: tuple[Callable[[BuildFile], Iterator[str]], ...] = (
    steps_are_named,
    a_step_waits_for_steps_before_it,
    nothing_begins_too_early,
    a_step_is_a_script_of_the_repository,
    builders_are_pinned,
    substitutions_are_defined_used_and_explained,
    the_commit_reaches_its_steps,
    no_secret_is_in_it,
    nothing_is_handed_on_in_the_checkout,
    logs_and_account_are_right,
    time_and_machine_fit_the_suite,
)


def faults(file: BuildFile) -> dict[str, list[str]]:
    """Return the messages of each broken rule by its name."""
    return {rule.__name__: messages for rule in RULES if (messages := list(rule(file)))}
