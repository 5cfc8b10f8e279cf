"""Computes the scores of the page Quality once for each version of the data.

They are computed in a process of the lowest priority, whose memory (1.4 GB at 20,000 pools) is free
again when it ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ProcessLost, YieldSparkError
from config_spark import Settings
from reporting.dashboard.connection import DataVersion, connected
from reporting.dashboard.score_process import Message
from reporting.dashboard.scores import Scores

CODE_ROOT = Path(__file__).resolve().parents[2]
MODULE = "reporting.dashboard.score_process"
REPEAT_SECONDS = 30.0
"""Time until scores that could not be computed are computed again."""
KEPT_VERSIONS = 2


@dataclass
class Scoring:
    """The scores of one version of the data, and the way to them.

    Attributes:
        started: time.monotonic() of its start.
        step: index in `scores.STEPS` of the step that runs.
        scores: None before the end, or without a scored forecast.
        error: why there are none, since failed_at.
        ended: is set when scores or error are.
    """

    started: float = field(default_factory=time.monotonic)
    step: int = 0
    scores: Scores | None = None
    error: Exception | None = None
    failed_at: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def is_to_repeat(self) -> bool:
        """Whether it failed some time ago."""
        return self.error is not None and time.monotonic() - self.failed_at > REPEAT_SECONDS


_lock = threading.Lock()
_kept: dict[DataVersion, Scoring] = {}
_children: set[subprocess.Popen[bytes]] = set()


def scoring_of(version: DataVersion) -> Scoring:
    """Return the scoring of a version, and start it if there is none."""
    with _lock:
        scoring = _kept.get(version)
        if scoring is None or scoring.is_to_repeat:
            scoring = Scoring()
            _keep(version, scoring)
            arguments = (scoring, connected().settings)
            threading.Thread(target=_run, args=arguments, name="scores", daemon=True).start()
        return scoring


def keep(version: DataVersion, scores: Scores | None) -> None:
    """Keep scores that were computed elsewhere."""
    scoring = Scoring(scores=scores)
    scoring.ended.set()
    with _lock:
        _keep(version, scoring)


def end_processes() -> None:
    """End the processes that still compute."""
    with _lock:
        for child in _children:
            child.kill()


def _keep(version: DataVersion, scoring: Scoring) -> None:
    _kept[version] = scoring
    while len(_kept) > KEPT_VERSIONS:
        del _kept[next(iter(_kept))]


def _run(scoring: Scoring, settings: Settings) -> None:
    try:
        scoring.scores = _computed(scoring, settings)
    except Exception as error:
        scoring.error, scoring.failed_at = error, time.monotonic()
    scoring.ended.set()


def _computed(scoring: Scoring, settings: Settings) -> Scores | None:
    path = os.pathsep.join(filter(None, [str(CODE_ROOT), os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C of a terminal ends the server, which ends this process
        start_new_session=True,
    )
    with _lock:
        _children.add(child)
    try:
        return _result_of(child, scoring, settings)
    finally:
        child.kill()
        child.wait()
        with _lock:
            _children.discard(child)
        for pipe in (child.stdin, child.stdout):
            # what a killed process did not read is still to be written
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()


def _result_of(
    child: subprocess.Popen[bytes], scoring: Scoring, settings: Settings
) -> Scores | None:
    assert child.stdin is not None
    assert child.stdout is not None
    # a process that is killed early closes its end of the pipe
    with suppress(BrokenPipeError):
        pickle.dump(settings, child.stdin)
        child.stdin.flush()
    # standard input stays open: its end would end the process
    while True:
        try:
            message: Message = pickle.load(child.stdout)
        except EOFError:
            raise ProcessLost(
                f"the process that scores the forecasts ended with exit code {child.wait()}: it was"
                " killed, or ran out of memory. Free memory, and reload the page"
            ) from None
        if isinstance(message, YieldSparkError):
            raise message
        if not isinstance(message, int):
            return message
        scoring.step = message
