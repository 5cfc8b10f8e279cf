"""Draws docs/architecture.svg: `python -m docs.draw_architecture`. A test compares the file with
what this draws.

In: the code's own names (jobs, platforms, files of a release, calls of pipeline.yaml, tables,
commands, the Dockerfile's targets). Out: one SVG of plain rectangles, lines and text. A name that
is gone, has no place or does not fit into its box is an error here, and not a wrong picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import typer
import yaml

from config_spark import Settings
from database import tables
from workflows import entry
from workflows.app import app
from workflows.batches.platforms import JOBS, TABLE
from workflows.releases import release_names

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
PIPELINE = ROOT / "workflows" / "pipeline.yaml"

COMMANDS = {
    "releases": ("release", "versions", "rollback", "prune"),
    "pipeline": ("run",),
    "inside": ("operator",),
    "batches": ("submit", "wait", "status", "list", "cancel", "cost", "logs"),
    "here": ("check", "local"),
}
"""Every command by what it works on."""

WIDTH, HEIGHT = 1400, 770
LINE = 18
LETTER = 6.7
BOLD_LETTER = 8.4
"""Mean widths of a letter of 12 px, and of a bold one of 13 px, in the fonts named below."""

STYLE = """
    text { font: 12px Verdana, "DejaVu Sans", sans-serif; fill: #222 }
    .title { font-weight: bold; font-size: 13px }
    .on-line { fill: #1a4f8b; text-anchor: middle }
    rect { fill: #fff; stroke: #555; rx: 6 }
    .page { fill: #fff; stroke: none }
    .around { fill: #f3f6fa; stroke-dasharray: 5 4 }
    .store { fill: #fdf6e3 }
    .work { fill: #e8f3ea }
    path { fill: none; stroke: #1a4f8b; stroke-width: 1.5 }
"""


@dataclass(frozen=True)
class Box:
    """A rectangle with a title and lines under it. Raises: ValueError where they are larger than
    it.
    """

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str] = ()
    kind: str = "store"

    def __post_init__(self) -> None:
        wide = [line for line in self.lines if len(line) * LETTER > self.width - 16]
        wide += [self.title] if len(self.title) * BOLD_LETTER > self.width - 16 else []
        if wide or (len(self.lines) + 1) * LINE + 12 > self.height:
            raise ValueError(
                f"the box {self.title!r} is too small: {wide or f'{len(self.lines)} lines'}; make"
                " it larger in docs/draw_architecture.py"
            )

    def svg(self) -> Iterator[str]:
        yield (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}"'
            f' height="{self.height}"/>'
        )
        yield _text(self.x + 10, self.y + 20, self.title, "title")
        for number, line in enumerate(self.lines, 1):
            yield _text(
                self.x + 10 + LETTER * (len(line) - len(line.lstrip())),
                self.y + 20 + number * LINE,
                line.strip(),
            )


@dataclass(frozen=True)
class Arrow:
    """A line through points, with a head at its end and words at a place of its own."""

    points: Sequence[tuple[int, int]]
    words: Sequence[str]
    at: tuple[int, int]

    def svg(self) -> Iterator[str]:
        path = " L ".join(f"{x} {y}" for x, y in self.points)
        yield f'<path d="M {path}" marker-end="url(#head)"/>'
        for number, line in enumerate(self.words):
            yield _text(self.at[0], self.at[1] + number * 15, line, "on-line")


def draw() -> str:
    """The picture's text. Raises: ValueError where a name is gone or has no place."""
    parts: list[Box | Arrow] = [*_boxes(), *_arrows()]
    shapes = [shape for part in parts for shape in part.svg()]
    head = (
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M 0 0 L 10 5 L 0 10 z" '
    )
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            ' aria-label="YieldSpark on Google Cloud">'
        ),
        f"<style>{STYLE}</style>",
        f'<defs>{head}style="fill: #1a4f8b; stroke: none"/></marker></defs>',
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        *shapes,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _boxes() -> list[Box]:
    pipeline = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))
    entries = [f"  {release_names.entry_name(job)}" for job in JOBS]
    files = [
        f"  {name}"
        for name in (
            release_names.CODE,
            release_names.OPERATOR_CODE,
            release_names.jar_name("*.jar"),
            release_names.BATCHES,
            release_names.MANIFEST,
        )
    ]
    version = release_names.object_name("<version>", "")
    return [
        Box(
            20,
            110,
            230,
            90,
            "operator",
            [
                f"python -m {entry.__package__} ..",
                f"on this machine: {', '.join(COMMANDS['here'])}",
            ],
            "work",
        ),
        Box(20, 450, 230, 60, "every night", ["a schedule"], "work"),
        Box(
            370,
            110,
            260,
            205,
            f"gs://{_setting('code_bucket')}",
            [version, *entries, *files, release_names.LATEST],
        ),
        Box(
            370,
            360,
            260,
            325,
            f"Workflow {_default('workflow_name')}",
            [PIPELINE.name, *_calls(pipeline)],
            "work",
        ),
        Box(730, 110, 330, 420, "the jobs, one after the other", JOBS, "around"),
        Box(750, 190, 290, 145, "Dataproc Serverless", _platforms(), "work"),
        Box(
            750,
            410,
            290,
            90,
            "Cloud Run jobs",
            [
                "one container each, with local[*]",
                *(f"  {job}" for job in map(release_names.cloud_run_job, JOBS)),
            ],
            "work",
        ),
        Box(
            730,
            555,
            260,
            84,
            "Cloud Run, inside the network",
            [f"  {job}" for job in release_names.CONTAINER_ARGUMENTS],
            "work",
        ),
        Box(
            730,
            685,
            330,
            70,
            "container images",
            [
                f"container/Dockerfile: {', '.join(_targets())}",
                f"{_setting('container_image')}, pinned",
            ],
        ),
        Box(1150, 40, 230, 376, f"Cloud SQL, {_setting('db_host')}", _tables()),
        Box(1150, 420, 230, 50, "Secret Manager", [_setting("db_password_secret")]),
        Box(1150, 490, 230, 50, f"gs://{_setting('staging_bucket')}", ["what the drivers wrote"]),
    ]


def _arrows() -> list[Arrow]:
    releases, pipeline, inside, batches = (
        _commands(where) for where in ("releases", "pipeline", "inside", "batches")
    )
    return [
        Arrow([(250, 145), (370, 145)], releases, (310, 137 - 15 * (len(releases) - 1))),
        Arrow([(250, 180), (310, 180), (310, 390), (370, 390)], pipeline, (290, 300)),
        Arrow(
            [(135, 110), (135, 60), (1100, 60), (1100, 265), (1040, 265)],
            [", ".join(batches)],
            (600, 52),
        ),
        Arrow([(250, 480), (370, 480)], ["starts"], (310, 472)),
        Arrow(
            [(20, 155), (8, 155), (8, 725), (700, 725), (700, 615), (730, 615)], inside, (310, 718)
        ),
        Arrow([(135, 510), (135, 700), (680, 700), (680, 580), (730, 580)], ["starts"], (310, 693)),
        Arrow([(500, 360), (500, 315)], ["reads one version"], (563, 342)),
        Arrow(
            [(630, 420), (650, 420), (650, 265), (750, 265)],
            ["create,", "look at,", "cancel"],
            (685, 340),
        ),
        Arrow([(630, 455), (750, 455)], ["or: run"], (680, 447)),
        Arrow([(630, 150), (730, 150)], ["code, jars"], (680, 142)),
        Arrow([(860, 685), (860, 639)], ["packages"], (895, 668)),
        Arrow([(1025, 685), (1025, 530)], ["packages"], (1060, 610)),
        Arrow([(1060, 150), (1150, 150)], ["rows"], (1125, 142)),
        Arrow([(1150, 445), (1060, 445)], ["password"], (1108, 437)),
        Arrow([(1060, 515), (1150, 515)], ["output"], (1105, 507)),
        Arrow([(990, 570), (1072, 570), (1072, 400), (1150, 400)], ["rows"], (1110, 392)),
    ]


def _setting(field: str) -> str:
    """A setting's name as the user writes it."""
    if field not in Settings.model_fields:
        raise ValueError(f"there is no setting {field} any more; correct docs/draw_architecture.py")
    return field.upper()


def _default(field: str) -> str:
    _setting(field)
    return str(Settings.model_fields[field].default)


def _platforms() -> list[str]:
    lines = []
    for row in TABLE:
        lines += [row.pair, f"  runtime {row.runtime}: Spark {row.spark}, Scala {row.scala}"]
    return lines


def _tables() -> list[str]:
    """The owner's tables, then ours with their schema."""
    own = sorted(
        f"{tables.OWN_SCHEMA}.{name.partition('.')[2]}" for name in tables.own_metadata.tables
    )
    return [*tables.owner_metadata.tables, *own]


def _commands(where: str) -> list[str]:
    """Those of COMMANDS, which must be all that there are."""
    there = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # a group has commands
    placed = {name for names in COMMANDS.values() for name in names}
    if there != placed:
        raise ValueError(
            f"of the commands {sorted(there ^ placed)} are new or gone; correct COMMANDS in"
            " docs/draw_architecture.py"
        )
    return list(COMMANDS[where])


def _targets() -> list[str]:
    """The last two stages of the Dockerfile: what is built for use."""
    return re.findall(
        r"^FROM \S+ AS (\S+)$",
        (ROOT / "container" / "Dockerfile").read_text(encoding="utf-8"),
        re.MULTILINE,
    )[1:]


def _calls(pipeline: dict[str, Any]) -> list[str]:
    """The subworkflows that `main` calls, in order; what is in a loop is indented, under what the
    loop goes over.
    """
    return [
        line
        for line in _calls_of(pipeline["main"]["steps"], pipeline, "")
        if not line.endswith(" note")
    ]


def _calls_of(steps: Any, pipeline: dict[str, Any], indent: str) -> Iterator[str]:
    for step in steps:
        for body in step.values():
            called = body.get("call", "")
            if called in pipeline:
                yield f"{indent} {called}"
                if called.startswith("run_"):
                    yield from _calls_of(pipeline[called]["steps"], pipeline, f"{indent}  ")
            if "for" in body:
                yield f"{indent} for each job:"
                yield from _calls_of(body["for"]["steps"], pipeline, f"{indent}  ")
            yield from _calls_of(
                body.get("steps", body.get("try", {}).get("steps", [])), pipeline, indent
            )


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.0f}" y="{y:.0f}">{escape(words)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
