"""A model version outside any process: its native LightGBM texts, and the card that says what they
were made of and what they were worth.

In and out: `ModelArchive`, as files by name (`card.json`, `apy-00.txt`, .., `tvl-00.txt`, ..) for
the registry, or packed into a zip for the database. Reading checks every text against the card's
SHA-256: a damaged model is refused, never loaded.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.errors import ModelRefused

CARD = "card.json"
TARGETS = ("apy", "tvl")
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""A version of the product has 5 MB; a zip may unpack to a thousand times its own size."""


@dataclass(frozen=True)
class ModelCard:
    """What a version is. `origin`: it knows nothing after this day; `known`: as-of day of the run
    that fitted it and judged it on the days between.

    `data_hash` is of the metrics that the fitting run read from `data_first_day` on; `settings` are
    LightGBM's parameters and the training window; `scores` is the judgement
    (`judgement.PromotionDecision.numbers`) and `passed` whether it beat persistence then; `gain` is each
    feature's share, by target; `reference` the training features' distribution, for drift.
    """

    version: str
    engine: str
    horizon_days: int
    interval_level: float
    origin: dt.date
    known: dt.date
    data_first_day: dt.date
    data_rows: int
    data_hash: str
    features: tuple[str, ...]
    settings: Mapping[str, Any]
    code_version: str
    passed: bool
    scores: Mapping[str, Any]
    gain: Mapping[str, Any]
    reference: list[dict[str, Any]]

    @property
    def features_hash(self) -> str:
        return features_hash(self.features)


@dataclass(frozen=True)
class ModelArchive:
    """Native texts by target, each target's in the order of its objectives."""

    card: ModelCard
    texts: Mapping[str, tuple[str, ...]]

    def files(self) -> dict[str, bytes]:
        texts = {
            f"{target}-{number:02d}.txt": text.encode()
            for target in TARGETS
            for number, text in enumerate(self.texts[target])
        }
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
        return {
            CARD: json.dumps(asdict(self.card) | {"sha256": hashes}, default=str, indent=1).encode()
        } | texts

    def pack(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files().items():
                archive.writestr(name, content)
        return buffer.getvalue()


def features_hash(features: Sequence[str]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the names in their order."""
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:12]


def from_files(files: Mapping[str, bytes], name: str) -> ModelArchive:
    """Args: name is how the version is called in an error. Raises: ModelRefused where a file is
    missing, damaged or of another version's making.
    """
    try:
        document = json.loads(files[CARD])
        hashes = document.pop("sha256")
        damaged = [
            name
            for name, wanted in hashes.items()
            if hashlib.sha256(files.get(name, b"")).hexdigest() != wanted
        ]
        days = {
            key: dt.date.fromisoformat(document[key])
            for key in ("origin", "known", "data_first_day")
        }
        card = ModelCard(**document | days | {"features": tuple(document["features"])})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelRefused(
            f"model version {name} can't be read: its {CARD} is missing or damaged"
            f" ({type(error).__name__}: {error}). {NEXT}"
        ) from error
    if damaged:
        raise ModelRefused(
            f"model version {name} is damaged: {', '.join(sorted(damaged))} is not what was"
            f" registered. {NEXT}"
        )
    texts = {
        target: tuple(files[one].decode() for one in sorted(hashes) if one.startswith(f"{target}-"))
        for target in TARGETS
    }
    return ModelArchive(card, texts)


def unpack(content: bytes, name: str) -> ModelArchive:
    """Raises: as `from_files`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise ValueError(f"its files have {size:,} bytes, at most {MAX_UNPACKED_BYTES:,}")
            # zipfile reads no more of an entry than the size that it declares
            files = {one: archive.read(one) for one in archive.namelist()}
    # a damaged byte may be anything to zipfile: zlib's error, EOFError, an encrypted file, a
    # negative place
    except Exception as error:
        raise ModelRefused(
            f"model version {name} can't be read from yieldspark.model_outbox:"
            f" {type(error).__name__}: {error}. {NEXT}"
        ) from error
    return from_files(files, name)


NEXT = "`models list` shows the others, `models rollback` goes back to the one that served before"


def require_features(card: ModelCard, features: Sequence[str]) -> None:
    """Raises: ModelRefused, with what either list has that the other lacks, where the model was
    fitted with other features than this code makes.
    """
    if card.features == tuple(features):
        return
    gone = [name for name in card.features if name not in features]
    new = [name for name in features if name not in card.features]
    parts = [
        f"{words} {', '.join(names)}"
        for words, names in (("it alone has", gone), ("the code alone has", new))
        if names
    ]
    raise ModelRefused(
        f"model version {card.version} was fitted with other features than this code makes:"
        f" {'; '.join(parts) or 'the same in another order'}. The next forecast run fits a new"
        " version; `models promote` takes only versions of the code's features"
    )
