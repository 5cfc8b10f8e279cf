"""Objects of Cloud Storage in a folder: generations, preconditions, checksums. No HTTP;
`storage_double.py` speaks that.

In: buckets, names, bytes, conditions. Out: `StoredObject`s; a name has one live generation, as in a
bucket without versioning. On disk a bucket is a folder with `objects/` (one JSON document an
object) and `content/` (one file a generation). The document is put in place by a rename, after its
content is whole: a process that is killed leaves the object as it was before or as it is after. One
process owns the folder. Rules: https://cloud.google.com/storage/docs/request-preconditions,
https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import google_crc32c

from common.private_files import private_folder, private_opener


class NoSuchBucket(Exception):
    pass


class NoSuchObject(Exception):
    pass


class BucketExists(Exception):
    pass


class ConditionNotMet(Exception):
    pass


class Unchanged(ConditionNotMet):
    """The live object is the one that the caller did not want."""


class ChecksumMismatch(Exception):
    pass


def md5_hash(content: bytes) -> str:
    """As in an object's `md5Hash`: base64 of the digest."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def crc32c(content: bytes) -> str:
    """As in an object's `crc32c`: base64 of the big-endian value
    (https://cloud.google.com/storage/docs/data-validation).
    """
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object. Generations are microseconds since 1970 and only grow, as the
    service's do; settings are its other fields.
    """

    bucket: str
    name: str
    generation: int
    size: int
    md5_hash: str
    crc32c: str
    created: str
    settings: Mapping[str, object]
    metageneration: int = 1


@dataclass(frozen=True)
class Conditions:
    """What has to be true of the live object; None asks nothing. A generation of 0 is that of an
    object that does not exist.
    """

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    def check(self, live: StoredObject | None) -> None:
        """Raises: ConditionNotMet, Unchanged."""
        generation, metageneration = (live.generation, live.metageneration) if live else (0, 0)
        wanted = ((self.generation_match, generation), (self.metageneration_match, metageneration))
        unwanted = (
            (self.generation_not_match, generation),
            (self.metageneration_not_match, metageneration),
        )
        if any(asked is not None and asked != found for asked, found in wanted):
            raise ConditionNotMet
        if any(asked is not None and asked == found for asked, found in unwanted):
            raise Unchanged


@dataclass(frozen=True)
class Listing:
    """One page; next_after is what the next page starts after, empty on the last."""

    objects: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_after: str = ""


class ObjectStore:
    """The buckets in a folder. Every method is safe in several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        self._last_generation = 0
        for path in sorted(folder.glob("*/objects")):
            documents = (
                json.loads(document.read_text(encoding="utf-8")) for document in path.glob("*.json")
            )
            self._buckets[path.parent.name] = {
                document["name"]: StoredObject(**document) for document in documents
            }
            generations = [stored.generation for stored in self._buckets[path.parent.name].values()]
            self._last_generation = max([self._last_generation, *generations])

    def buckets(self) -> list[str]:
        return sorted(self._buckets)

    def create_bucket(self, bucket: str) -> None:
        """Raises: BucketExists."""
        with self._lock:
            if bucket in self._buckets:
                raise BucketExists
            for part in ("", bucket, f"{bucket}/objects", f"{bucket}/content"):
                private_folder(self._folder / part)
            self._buckets[bucket] = {}

    def objects_of(self, bucket: str) -> dict[str, StoredObject]:
        """The live objects by name. Raises: NoSuchBucket."""
        if bucket not in self._buckets:
            raise NoSuchBucket
        return self._buckets[bucket]

    def check(self, bucket: str, name: str, conditions: Conditions) -> None:
        """Raises: NoSuchBucket, ConditionNotMet."""
        with self._lock:
            conditions.check(self.objects_of(bucket).get(name))

    def write(
        self,
        bucket: str,
        name: str,
        content: bytes,
        settings: Mapping[str, object],
        conditions: Conditions,
        expected: Mapping[str, str],
    ) -> StoredObject:
        """Make a new generation. Args: expected are checksums by their field's name, md5Hash or
        crc32c.

        Raises: NoSuchBucket, ConditionNotMet, ChecksumMismatch (nothing is written).
        """
        found = {"md5Hash": md5_hash(content), "crc32c": crc32c(content)}
        for kind, value in expected.items():
            if value != found[kind]:
                raise ChecksumMismatch(
                    f'Provided {kind} "{value}" doesn\'t match calculated {kind} "{found[kind]}".'
                )
        with self._lock:
            live = self.objects_of(bucket).get(name)
            conditions.check(live)
            self._last_generation = max(self._last_generation + 1, time.time_ns() // 1000)
            seconds, micros = divmod(self._last_generation, 1_000_000)
            created = time.strftime(f"%Y-%m-%dT%H:%M:%S.{micros // 1000:03}Z", time.gmtime(seconds))
            stored = StoredObject(
                bucket,
                name,
                self._last_generation,
                len(content),
                found["md5Hash"],
                found["crc32c"],
                created,
                settings,
            )
            document = self._document(bucket, name)
            draft = document.with_suffix(".draft")
            for path, written in (
                (self._content(stored), content),
                (draft, json.dumps(asdict(stored)).encode()),
            ):
                with open(path, "wb", opener=private_opener) as stream:
                    stream.write(written)
            draft.replace(document)
            self._buckets[bucket][name] = stored
            if live:
                self._content(live).unlink()
            return stored

    def find(
        self, bucket: str, name: str, conditions: Conditions, generation: int | None = None
    ) -> StoredObject:
        """The live object. Args: generation is the one asked for, None for any. Raises:
        NoSuchBucket, NoSuchObject, ConditionNotMet.
        """
        with self._lock:
            live = self.objects_of(bucket).get(name)
            if live is None or generation not in (None, live.generation):
                raise NoSuchObject
            conditions.check(live)
            return live

    def read(
        self, bucket: str, name: str, conditions: Conditions, generation: int | None = None
    ) -> tuple[StoredObject, bytes]:
        """The live object and its bytes. Raises: as `find`."""
        with self._lock:
            live = self.find(bucket, name, conditions, generation)
            return live, self._content(live).read_bytes()

    def delete(
        self, bucket: str, name: str, conditions: Conditions, generation: int | None = None
    ) -> None:
        """Raises: as `find`."""
        with self._lock:
            live = self.find(bucket, name, conditions, generation)
            self._document(bucket, name).unlink()
            del self._buckets[bucket][name]
            self._content(live).unlink()

    def list(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        """A page of at most `limit` objects and prefixes together, in the order of their names'
        bytes. Raises: NoSuchBucket.
        """
        with self._lock:
            stored = dict(self.objects_of(bucket))
        page, last = Listing(), after
        for name in sorted((name for name in stored if name.startswith(prefix)), key=str.encode):
            head, found, _ = (
                name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            )
            entry = prefix + head + delimiter if found else name
            if entry.encode() <= last.encode():
                continue
            if len(page.objects) + len(page.prefixes) == limit:
                return Listing(page.objects, page.prefixes, last)
            last = entry
            if found:
                page.prefixes.append(entry)
            else:
                page.objects.append(stored[name])
        return page

    def _document(self, bucket: str, name: str) -> Path:
        """Named by a hash: an object's name may be longer than a file's, and be a folder of
        another's.
        """
        return (
            self._folder / bucket / "objects" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
        )

    def _content(self, stored: StoredObject) -> Path:
        return self._folder / stored.bucket / "content" / str(stored.generation)
