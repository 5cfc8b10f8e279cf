"""Tests pipeline.yaml in two independent interpreters, ours and the PyPI emulator, against the
fakes over real HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.emulator_process import Emulator, emulator_python
from tests.support.scenario_checks import Scenario
from tests.support.workflow_scenarios import SCENARIOS
from tests.support.workflow_services import PIPELINE, by_interpreter


@pytest.fixture(scope="module")
def emulator(processes: None) -> Iterator[Emulator]:
    running = Emulator(emulator_python())
    yield running
    running.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_in_the_interpreter(scenario: Scenario, tmp_path: Path) -> None:
    scenario(tmp_path, by_interpreter, PIPELINE)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_in_the_emulator(scenario: Scenario, tmp_path: Path, emulator: Emulator) -> None:
    """The emulator also checks the source against Google's JSON schema."""
    scenario(tmp_path, emulator, PIPELINE)
