"""Parser of Dockerfiles and the rules that ours follows, similar to hadolint's
(https://github.com/hadolint/hadolint/wiki). Supports continued lines and comments between them; no
here-documents or parser directives.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from workflows.releases.code_archive import job_paths

NAMES = (
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "RUN",
    "USER",
    "WORKDIR",
)

BATCH_PACKAGES = ("libgomp1", "procps", "tini")
"""Dataproc's scripts call the last two; LightGBM is linked with the first."""

UID = "1099"


@dataclass(frozen=True)
class Instruction:
    """One instruction on one line.

    `words` are its arguments without options; `options` have no dashes.
    """

    name: str
    text: str

    @property
    def options(self) -> dict[str, str]:
        return (
            dict(word[2:].partition("=")[::2] for word in self._words if word.startswith("--"))
            if self.name in ("COPY", "FROM", "RUN")
            else {}
        )

    @property
    def words(self) -> list[str]:
        return [word for word in self._words if not word.startswith("--")]

    @property
    def _words(self) -> list[str]:
        return self.text.split()

    @property
    def commands(self) -> list[list[str]]:
        """Return the arguments of each command of a RUN."""
        return [shlex.split(command) for command in self.text.split("&&")]


@dataclass(frozen=True)
class Stage:
    """FROM image AS name, and its instructions."""

    image: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile and the folder of its build."""

    stages: tuple[Stage, ...]
    context: Path

    @property
    def instructions(self) -> list[Instruction]:
        return list(chain.from_iterable(stage.instructions for stage in self.stages))

    def whole(self, name: str) -> Stage:
        """Return a stage with the instructions of the stages below it.

        Raises:
            KeyError: There is no such stage.
        """
        stage = {stage.name: stage for stage in self.stages}[name]
        if stage.image not in [other.name for other in self.stages]:
            return stage
        below = self.whole(stage.image)
        return Stage(below.image, name, below.instructions + stage.instructions)


def parse(text: str, context: Path) -> Dockerfile:
    """Parse a Dockerfile.

    Raises:
        ValueError: It has an unsupported construct.
    """
    stages: list[Stage] = []
    for instruction in _instructions(text):
        if instruction.name not in NAMES:
            raise ValueError(f"{instruction.name} is no instruction that these rules know")
        if instruction.name == "FROM":
            image, _, name = (*instruction.words, "", "")[:3]
            stages.append(Stage(image, name, ()))
        elif not stages:
            raise ValueError(f"{instruction.name} before the first FROM")
        else:
            last = stages.pop()
            stages.append(Stage(last.image, last.name, (*last.instructions, instruction)))
    return Dockerfile(tuple(stages), context)


def _instructions(text: str) -> Iterator[Instruction]:
    if "<<" in text:
        raise ValueError("here-documents are not understood")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield Instruction(name.upper(), " ".join(rest.split()))


def bases_are_pinned(file: Dockerfile) -> Iterator[str]:
    outside = {stage.image for stage in file.stages} - {stage.name for stage in file.stages}
    yield from (
        f"{image} is not pinned by digest"
        for image in outside
        if not re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image)
    )
    yield from (f"{image} is `latest`" for image in outside if ":latest" in image)
    if len(outside) > 1:
        yield f"more than one base: {sorted(outside)}"


def nothing_is_added(file: Dockerfile) -> Iterator[str]:
    yield from (
        f"ADD {instruction.text}: COPY has no surprises (URLs, archives)"
        for instruction in file.instructions
        if instruction.name == "ADD"
    )


def apt_is_lean(file: Dockerfile) -> Iterator[str]:
    for run in (instruction for instruction in file.instructions if instruction.name == "RUN"):
        installs = [command for command in run.commands if command[:2] == ["apt-get", "install"]]
        yield from (
            f"{command} without --no-install-recommends"
            for command in installs
            if "--no-install-recommends" not in command
        )
        yield from (
            f"{command} without --yes waits for an answer"
            for command in installs
            if "--yes" not in command
        )
        if installs and run.commands[0] != ["apt-get", "update"]:
            yield f"{run.text} installs from old lists"
        if installs and ["rm", "-rf", "/var/lib/apt/lists/*"] not in run.commands:
            yield f"{run.text} leaves apt's lists in the image"
        yield from (
            f"{command[0]} is for people, apt-get for scripts"
            for command in run.commands
            if command[0] in ("apt", "aptitude")
        )


def pip_takes_locked_files_only(file: Dockerfile) -> Iterator[str]:
    options = ("--no-cache-dir", "--require-hashes", "--no-deps", "--requirement")
    for command in _commands(file, "pip") + _commands(file, "pip3"):
        yield from (
            f"pip without {option}: {' '.join(command)}"
            for option in options
            if option not in command
        )
        if not {"--only-binary=:all:", "--no-build-isolation"} & set(command):
            yield f"pip may fetch build tools without a hash: {' '.join(command)}"
        unexpected = [
            word
            for word in command[2:]
            if "index" in word or word == "--trusted-host" or not word.startswith(("-", "/"))
        ]
        yield from (f"pip with {word!r}: packages come from the locked file" for word in unexpected)
    yield from (
        f"{' '.join(command)}: call pip by its name"
        for command in _commands(file, "python")
        if "-m" in command
    )


def nothing_else_is_fetched(file: Dockerfile) -> Iterator[str]:
    programs = ("curl", "wget", "git", "conda", "npm", "sudo", "ssh")
    for program in programs:
        yield from (f"{program} in a RUN" for _ in _commands(file, program))


def a_failure_ends_the_build(file: Dockerfile) -> Iterator[str]:
    for run in (instruction for instruction in file.instructions if instruction.name == "RUN"):
        yield from (
            f"{sign!r} hides what failed before it: {run.text}"
            for sign in ("|", ";")
            if sign in run.text
        )


def user_has_id_of_spark(file: Dockerfile) -> Iterator[str]:
    for name in ("batch", "cloud-run"):
        users = [instruction.text for instruction in file.whole(name).all("USER")]
        if users[-1:] != [UID]:
            yield f"{name} runs as {users[-1:] or 'root'}, and the service wants {UID}"
    user_commands = [
        command
        for command in _commands(file, "useradd")
        if {"--uid", "--gid", UID, "--create-home", "spark"} <= set(command)
    ]
    if not user_commands or not any(
        {"--gid", UID, "spark"} <= set(command) for command in _commands(file, "groupadd")
    ):
        yield f"no user and group spark of {UID} with a home folder"


def batch_fits_dataproc(file: Dockerfile) -> Iterator[str]:
    batch = file.whole("batch")
    installed = set()
    for command in _run_commands(batch.instructions):
        if command[:2] == ["apt-get", "install"]:
            installed |= set(command[2:])
    yield from (f"{name} is missing in batch" for name in BATCH_PACKAGES if name not in installed)
    for run in batch.all("RUN"):
        match = re.search(r"\b(openjdk|jdk|jre|java|temurin|pyspark|cloud-run\.txt)", run.text)
        if match:
            yield f"batch has {match[0]}, and Dataproc mounts its own Java and Spark"
    if not any(instruction.text.startswith("PYSPARK_PYTHON=/") for instruction in batch.all("ENV")):
        yield "batch has no PYSPARK_PYTHON: Dataproc would take the Python of its own image"
    if batch.all("ENTRYPOINT") or batch.all("CMD"):
        yield "batch has a program of its own, and Dataproc starts Spark's"


def working_folders_are_absolute(file: Dockerfile) -> Iterator[str]:
    yield from (
        f"WORKDIR {instruction.text} is relative"
        for instruction in file.instructions
        if instruction.name == "WORKDIR" and not instruction.text.startswith("/")
    )


def has_no_secret(file: Dockerfile) -> Iterator[str]:
    for instruction in (
        instruction
        for instruction in file.instructions
        if instruction.name in ("ENV", "ARG", "LABEL")
    ):
        for word in instruction.words:
            name, _, value = word.partition("=")
            if re.search(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL", name, re.IGNORECASE) or re.search(
                r"://[^/]*@", value
            ):
                yield (
                    f"{instruction.name} {name} looks like a secret: an image's history shows it to"
                    " everyone"
                )


def copied_files_exist(file: Dockerfile) -> Iterator[str]:
    stages = {stage.name for stage in file.stages}
    copies = [instruction for instruction in file.instructions if instruction.name == "COPY"]
    yield from (
        f"COPY --from={instruction.options['from']}: no such stage"
        for instruction in copies
        if instruction.options.get("from", next(iter(stages))) not in stages
    )
    sources = set(_copied_sources(file))
    yield from (
        f"{source} is not in the build's folder"
        for source in sorted(sources)
        if not (file.context / source).is_file()
    )
    ignored = (file.context / ".dockerignore").read_text(encoding="utf-8").splitlines()
    passed = {line[1:] for line in ignored if line.startswith("!")}
    if [line for line in ignored if line and line[0] not in "#!"] != ["*"] or passed != sources:
        yield f".dockerignore lets through {sorted(passed)}, and {sorted(sources)} are copied"


def product_code_is_not_copied(file: Dockerfile) -> Iterator[str]:
    sources = _copied_sources(file)
    for source in sources:
        if source.removeprefix("./").split("/")[0] in (*job_paths(), "", ".", "*"):
            yield f"{source} is copied: code comes with a release, or a rollback would not reach it"


def starts_one_process(file: Dockerfile) -> Iterator[str]:
    starts = [
        instruction
        for instruction in file.instructions
        if instruction.name in ("ENTRYPOINT", "CMD")
    ]
    if [instruction.name for instruction in starts] != ["ENTRYPOINT"] or starts != file.whole(
        "cloud-run"
    ).all("ENTRYPOINT"):
        names = [instruction.name for instruction in starts]
        yield f"one ENTRYPOINT, in cloud-run, is required, and there are {names}"
    for instruction in starts:
        try:
            program = json.loads(instruction.text)
        except ValueError:
            yield (
                f"{instruction.name} {instruction.text} is in shell form: signals would not reach"
                " the job"
            )
            continue
        if any(
            Path(word).name in ("sh", "bash", "supervisord") or "&" in word for word in program
        ) or not program[0].startswith("/"):
            yield f"{instruction.name} {instruction.text} is not one program by its absolute path"


def _commands(file: Dockerfile, program: str) -> list[list[str]]:
    commands = _run_commands(file.instructions)
    return [command for command in commands if command and Path(command[0]).name == program]


def _run_commands(instructions: Iterable[Instruction]) -> list[list[str]]:
    runs = [instruction.commands for instruction in instructions if instruction.name == "RUN"]
    return list(chain.from_iterable(runs))


def _copied_sources(file: Dockerfile) -> list[str]:
    """Return the files that COPY takes from the folder of the build."""
    copies = [instruction for instruction in file.instructions if instruction.name == "COPY"]
    sources = [copy.words[:-1] for copy in copies if "from" not in copy.options]
    return list(chain.from_iterable(sources))


RULES: tuple[Callable[[Dockerfile], Iterator[str]], ...] = (
    bases_are_pinned,
    nothing_is_added,
    apt_is_lean,
    pip_takes_locked_files_only,
    nothing_else_is_fetched,
    a_failure_ends_the_build,
    user_has_id_of_spark,
    batch_fits_dataproc,
    working_folders_are_absolute,
    has_no_secret,
    copied_files_exist,
    product_code_is_not_copied,
    starts_one_process,
)


def faults(file: Dockerfile) -> dict[str, list[str]]:
    """Return the messages of each broken rule by its name."""
    return {rule.__name__: messages for rule in RULES if (messages := list(rule(file)))}
