"""Shared parts of the fuzz runs: numbered cases that follow from a seed, the length of a run, and
the rules for every case.

A part, the seed and its number identify a case, which depends on no earlier one. FUZZ_SEED sets the
seed (default: a new one, which is printed), FUZZ_CASE runs that number alone, and FUZZ_MINUTES is
the time of all parts together (default 30).
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from common.errors import MAX_MESSAGE_CHARACTERS, YieldSparkError, summarize_error

CASE_SECONDS = 600
"""A case takes a tenth of a second to a few seconds: one that takes so long hangs, on a busy
machine too.
"""

MAX_FAILURES = 12
"""After so many the run ends: they are of few kinds."""

SECRET = "the-pässword-of-this-fuzz"


@dataclass(frozen=True)
class Case:
    part: str
    seed: int
    number: int

    @property
    def random(self) -> random.Random:
        """Return a new generator, the same for the same case."""
        return random.Random(f"{self.part} {self.seed} {self.number}")


@dataclass
class FuzzRun:
    """The cases of one part, their outcomes, and the failures with the variables that
    repeat them.
    """

    part: str
    seed: int
    seconds: float = 0.0
    last: int | None = None
    only: int | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def cases(self) -> Iterator[Case]:
        number = self.only or 0
        while self._goes_on(number):
            yield Case(self.part, self.seed, number)
            number += 1

    def _goes_on(self, number: int) -> bool:
        if self.only is not None:
            return number == self.only
        if len(self.failures) >= MAX_FAILURES:
            return False
        if self.last is not None:
            return number < self.last
        return time.monotonic() - self.began < self.seconds

    @contextmanager
    def watched(self, case: Case) -> Iterator[None]:
        """Record an exception of the block as a failure; end a block that hangs."""
        before = signal.signal(signal.SIGALRM, _hang)
        signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
        try:
            yield
        except Exception as error:
            if self.only is not None:
                raise
            message = " ".join(f"{type(error).__name__}: {error}".split())
            self.failures.append(f"FUZZ_SEED={case.seed} FUZZ_CASE={case.number}: {message[:700]}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def report(self) -> str:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(self.outcomes.items()))
        return (
            f"{self.part}: seed {self.seed}, {sum(self.outcomes.values()):,} outcomes in"
            f" {time.monotonic() - self.began:.0f} s: {outcomes}"
        )


def fuzz_run(part: str, *, share: float) -> FuzzRun:
    """The long run of a part.

    Args: share of the minutes of all parts.
    """
    only = os.environ.get("FUZZ_CASE")
    return FuzzRun(
        part,
        int(os.environ.get("FUZZ_SEED") or secrets.randbelow(10**6)),
        seconds=60 * share * float(os.environ.get("FUZZ_MINUTES") or 30),
        only=int(only) if only else None,
    )


def short_run(part: str, cases: int) -> FuzzRun:
    """The first cases of one seed, which the regular suite runs."""
    return FuzzRun(part, seed=1, last=cases)


def require_sentence(error: BaseException) -> str:
    """Return the sentence of a product error; fails for any other error."""
    if not isinstance(error, YieldSparkError):
        raise AssertionError(f"{type(error).__name__} left the product: {error}") from error
    sentence = summarize_error(error)
    assert sentence, "the error says nothing"
    assert len(sentence) <= MAX_MESSAGE_CHARACTERS, sentence
    assert SECRET not in sentence
    return sentence


def require_contract(finished: subprocess.CompletedProcess[str], *, as_json: bool) -> None:
    """Check the output of a command: a documented exit code, no traceback, short sentences on
    stderr, and with `--json` one document on stdout.
    """
    output = f"{finished.stdout}\n{finished.stderr}"
    assert "Traceback" not in output, output[-700:]
    assert finished.returncode in {0, 1, 2}, (finished.returncode, output[-700:])
    longest = max(map(len, finished.stderr.splitlines()), default=0)
    assert longest <= MAX_MESSAGE_CHARACTERS + len("  error: "), finished.stderr[:700]
    if finished.returncode:
        # the document of `doctor --json` names the failed checks
        assert finished.stderr.strip() or as_json, "it fails without a message"
    if as_json:
        document = json.loads(finished.stdout)
        error = document.get("error") if isinstance(document, dict) else None
        assert error is None or len(error) <= MAX_MESSAGE_CHARACTERS, error


def _hang(signum: int, frame: FrameType | None) -> NoReturn:
    raise AssertionError(f"the case has not ended after {CASE_SECONDS} s")
