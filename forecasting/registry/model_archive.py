"""A model version as files: native LightGBM texts and the card that describes them.

Converts a `ModelArchive` to and from files by name (`card.json`, `apy-00.txt`, .., `tvl-00.txt`,
..) for the registry, or a zip for the database. Reading compares every text with the card's
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
from forecasting.monitoring.feature_reference import FeatureReference, Reference

CARD = "card.json"
TARGETS = ("apy", "tvl")
# a version has 5 MB; a zip may unpack to a thousand times its own size
MAX_UNPACKED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class ModelCard:
    """Description of a version.

    Attributes:
        version: origin and fingerprint, see `StackedModel.version`.
        origin: last UTC day of the training data.
        known: as-of day of the run that fitted it and validated it on the days between.
        data_first_day: first day of the metrics that the run read.
        data_rows: their number of pool-days.
        data_hash: hash of their values.
        settings: LightGBM's parameters and the training window; rows and hash of the transfer panel
            if the version learned from it.
        passed: the version beat persistence in its validation.
        scores: numbers of its validation, see `PromotionDecision.numbers`.
        gain: each feature's share of the gain, by target.
        reference: distribution of the training features, for drift.
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
    reference: Reference

    @property
    def features_hash(self) -> str:
        """Hash of the names of the features."""
        return features_hash(self.features)


@dataclass(frozen=True)
class ModelArchive:
    """A version's card and its native texts by target, in the order of the target's objectives."""

    card: ModelCard
    texts: Mapping[str, tuple[str, ...]]

    def files(self) -> dict[str, bytes]:
        """Returns the contents of the version's files by name."""
        texts = {}
        for target in TARGETS:
            for number, text in enumerate(self.texts[target]):
                texts[f"{target}-{number:02d}.txt"] = text.encode()
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
        card = json.dumps(asdict(self.card) | {"sha256": hashes}, default=str, indent=1)
        return {CARD: card.encode()} | texts

    def pack(self) -> bytes:
        """Returns the files as a zip."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files().items():
                archive.writestr(name, content)
        return buffer.getvalue()


def features_hash(features: Sequence[str]) -> str:
    """Returns the first 12 hexadecimal digits of the SHA-256 of the names in their order."""
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:12]


def from_files(files: Mapping[str, bytes], name: str) -> ModelArchive:
    """Reads a version from its files.

    Args:
        files: contents by name.
        name: the version's name in an error.

    Raises:
        ModelRefused: a file is missing, damaged or of another version of the product.
    """
    try:
        fields = json.loads(files[CARD])
        hashes = fields.pop("sha256")
        damaged = [
            file
            for file, digest in hashes.items()
            if hashlib.sha256(files.get(file, b"")).hexdigest() != digest
        ]
        days = {
            key: dt.date.fromisoformat(fields[key]) for key in ("origin", "known", "data_first_day")
        }
        reference = [FeatureReference(**entry) for entry in fields["reference"]]
        card = ModelCard(
            **fields | days | {"features": tuple(fields["features"]), "reference": reference}
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelRefused(
            f"model version {name} can't be read: its {CARD} is missing or damaged"
            f" ({type(error).__name__}: {error}). {NEXT_STEP}"
        ) from error
    if damaged:
        raise ModelRefused(
            f"model version {name} is damaged: {', '.join(sorted(damaged))} is not what was"
            f" registered. {NEXT_STEP}"
        )
    texts = {}
    for target in TARGETS:
        names = [file for file in sorted(hashes) if file.startswith(f"{target}-")]
        texts[target] = tuple(files[file].decode() for file in names)
    return ModelArchive(card, texts)


def unpack(content: bytes, name: str) -> ModelArchive:
    """Reads a version from a zip.

    Raises:
        ModelRefused: the zip or a file in it is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise ValueError(f"its files have {size:,} bytes, at most {MAX_UNPACKED_BYTES:,}")
            # zipfile reads no more of an entry than the size that it declares
            files = {file: archive.read(file) for file in archive.namelist()}
    # a damaged byte may raise anything in zipfile: zlib's error, EOFError, an error of encryption
    # or of a negative position
    except Exception as error:
        raise ModelRefused(
            f"model version {name} can't be read from yieldspark.model_outbox:"
            f" {type(error).__name__}: {error}. {NEXT_STEP}"
        ) from error
    return from_files(files, name)


NEXT_STEP = "`models list` shows the others, `models rollback` restores the one that served before"


def require_features(card: ModelCard, features: Sequence[str]) -> None:
    """Checks that a model was fitted with the features that this code computes.

    Raises:
        ModelRefused: the features differ; the message names those of either side.
    """
    if card.features == tuple(features):
        return
    removed = [name for name in card.features if name not in features]
    added = [name for name in features if name not in card.features]
    parts = []
    if removed:
        parts.append(f"only the model has {', '.join(removed)}")
    if added:
        parts.append(f"only the code has {', '.join(added)}")
    raise ModelRefused(
        f"model version {card.version} was fitted with other features than this code makes:"
        f" {'; '.join(parts) or 'the same in another order'}. The next forecast run fits a new"
        " version; `models promote` takes only versions of the code's features"
    )
