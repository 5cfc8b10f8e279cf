"""Objects of Cloud Storage in a folder: generations, preconditions, checksums. A name has one live
generation, as without versioning. One process owns the folder; a killed process leaves each object
as it was before or after a write.

Sources: https://cloud.google.com/storage/docs/request-preconditions,
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
    """The bucket does not exist."""


class NoSuchObject(Exception):
    """There is no such object, or not in the requested generation."""


class BucketExists(Exception):
    """A bucket of this name exists."""


class ConditionNotMet(Exception):
    """The live object does not meet a precondition."""


class Unchanged(ConditionNotMet):
    """The live object has the generation that the caller excluded."""


class ChecksumMismatch(Exception):
    """The bytes have another checksum than the upload; the message has both."""


def md5_hash(content: bytes) -> str:
    """Return the base64 digest of an object's `md5Hash`."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def crc32c(content: bytes) -> str:
    """Return the base64 big-endian value of an object's `crc32c`
    (https://cloud.google.com/storage/docs/data-validation).
    """
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def _creation_time(generation: int) -> str:
    """Return the time of a generation as the service shows it: RFC 3339 with milliseconds."""
    seconds, micros = divmod(generation, 1_000_000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{micros // 1000:03}Z", time.gmtime(seconds))


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object. Generations are microseconds since 1970 and only grow;
    `settings` has its other fields.
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
    """Preconditions on the live object; None is no condition. A missing object has generation 0."""

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    def check(self, live: StoredObject | None) -> None:
        """Check the live object.

        Raises:
            ConditionNotMet: A generation does not match.
            Unchanged: A generation is excluded.
        """
        generation, metageneration = (live.generation, live.metageneration) if live else (0, 0)
        required = (
            (self.generation_match, generation),
            (self.metageneration_match, metageneration),
        )
        excluded = (
            (self.generation_not_match, generation),
            (self.metageneration_not_match, metageneration),
        )
        if any(expected is not None and expected != actual for expected, actual in required):
            raise ConditionNotMet
        if any(expected is not None and expected == actual for expected, actual in excluded):
            raise Unchanged


@dataclass(frozen=True)
class Listing:
    """One page; `next_after` is the start of the next one, empty on the last."""

    objects: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_after: str = ""


class ObjectStore:
    """Buckets in a folder. Methods are thread-safe.

    On disk a bucket has `objects/` (a JSON file for each object) and `content/` (a file for each
    generation).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        self._last_generation = 0
        for path in sorted(folder.glob("*/objects")):
            payloads = (
                json.loads(payload.read_text(encoding="utf-8")) for payload in path.glob("*.json")
            )
            self._buckets[path.parent.name] = {
                payload["name"]: StoredObject(**payload) for payload in payloads
            }
            generations = [stored.generation for stored in self._buckets[path.parent.name].values()]
            self._last_generation = max([self._last_generation, *generations])

    def buckets(self) -> list[str]:
        """Return the names of the buckets, sorted."""
        return sorted(self._buckets)

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket.

        Raises:
            BucketExists: It exists.
        """
        with self._lock:
            if bucket in self._buckets:
                raise BucketExists
            for part in ("", bucket, f"{bucket}/objects", f"{bucket}/content"):
                private_folder(self._folder / part)
            self._buckets[bucket] = {}

    def objects_of(self, bucket: str) -> dict[str, StoredObject]:
        """Return the live objects by name.

        Raises:
            NoSuchBucket: The bucket does not exist.
        """
        if bucket not in self._buckets:
            raise NoSuchBucket
        return self._buckets[bucket]

    def check(self, bucket: str, name: str, conditions: Conditions) -> None:
        """Check the conditions of a later write.

        Raises:
            NoSuchBucket: The bucket does not exist.
            ConditionNotMet: The live object does not match.
        """
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
        """Write a new generation.

        Args:
            bucket: Name of the bucket.
            name: Name of the object.
            content: Its bytes.
            settings: Its other fields.
            conditions: Preconditions on the live object.
            expected: Checksums by field name, md5Hash or crc32c.

        Raises:
            NoSuchBucket: The bucket does not exist.
            ConditionNotMet: The live object does not match.
            ChecksumMismatch: A checksum differs; nothing is written.
        """
        checksums = {"md5Hash": md5_hash(content), "crc32c": crc32c(content)}
        for kind, value in expected.items():
            if value != checksums[kind]:
                raise ChecksumMismatch(
                    f'Provided {kind} "{value}" doesn\'t match calculated {kind}'
                    f' "{checksums[kind]}".'
                )
        with self._lock:
            live = self.objects_of(bucket).get(name)
            conditions.check(live)
            # a clock that goes back must not repeat a generation
            self._last_generation = max(self._last_generation + 1, time.time_ns() // 1000)
            stored = StoredObject(
                bucket,
                name,
                self._last_generation,
                len(content),
                checksums["md5Hash"],
                checksums["crc32c"],
                _creation_time(self._last_generation),
                settings,
            )
            self._save(stored, content)
            self._buckets[bucket][name] = stored
            # last: a process that is killed before leaves an unused file, and no object without its
            # bytes
            if live:
                self._content(live).unlink()
            return stored

    def _save(self, stored: StoredObject, content: bytes) -> None:
        """Write the files of a new generation."""
        record = self._record(stored.bucket, stored.name)
        draft = record.with_suffix(".draft")
        for path, data in (
            (self._content(stored), content),
            (draft, json.dumps(asdict(stored)).encode()),
        ):
            with open(path, "wb", opener=private_opener) as stream:
                stream.write(data)
        # the rename makes the generation live only after its content is complete
        draft.replace(record)

    def find(
        self, bucket: str, name: str, conditions: Conditions, generation: int | None = None
    ) -> StoredObject:
        """Return the live object.

        Args:
            bucket: Name of the bucket.
            name: Name of the object.
            conditions: Preconditions.
            generation: Requested generation; default: any.

        Raises:
            NoSuchBucket: The bucket does not exist.
            NoSuchObject: There is no such object or generation.
            ConditionNotMet: The live object does not match.
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
        """Return the live object and its bytes; as `find`."""
        with self._lock:
            live = self.find(bucket, name, conditions, generation)
            return live, self._content(live).read_bytes()

    def delete(
        self, bucket: str, name: str, conditions: Conditions, generation: int | None = None
    ) -> None:
        """Delete the live object; as `find`."""
        with self._lock:
            live = self.find(bucket, name, conditions, generation)
            # the record first: content without a record is no object
            self._record(bucket, name).unlink()
            del self._buckets[bucket][name]
            self._content(live).unlink()

    def list(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        """Return a page of at most `limit` objects and prefixes, ordered by the bytes of their
        names.

        Raises:
            NoSuchBucket: The bucket does not exist.
        """
        with self._lock:
            stored = dict(self.objects_of(bucket))
        page, last = Listing(), after
        for name in sorted((name for name in stored if name.startswith(prefix)), key=str.encode):
            head, separator, _ = (
                name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            )
            entry = prefix + head + delimiter if separator else name
            # on an earlier page, or another object under the same prefix
            if entry.encode() <= last.encode():
                continue
            if len(page.objects) + len(page.prefixes) == limit:
                return Listing(page.objects, page.prefixes, last)
            last = entry
            if separator:
                page.prefixes.append(entry)
            else:
                page.objects.append(stored[name])
        return page

    def _record(self, bucket: str, name: str) -> Path:
        """Return an object's file. It is named by a hash, because an object's name can be too long
        for a file or the folder of another's.
        """
        return (
            self._folder / bucket / "objects" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
        )

    def _content(self, stored: StoredObject) -> Path:
        return self._folder / stored.bucket / "content" / str(stored.generation)
