"""Secrets for every variable and file that can hold one, and a search for them in bytes.

Each secret has a mark of letters and digits, which quoting in URLs, JSON, SQL, shells and Python
leaves as it is, between signs that such quoting changes. The search also finds a mark in base64,
in hexadecimal and in UTF-16, and inside archives and compressed files.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

SIGNS = ("'\"\\ ", "%é&<")
"""What is before and after the mark of a secret that may have any sign."""

ZSTANDARD = b"\x28\xb5\x2f\xfd"
"""First bytes of a file in Zstandard, as Spark's event logs are."""

LOGIN = "postgresql://owner:{}@db.example/defi"

VALUES: Mapping[str, str] = {
    "DB_PASSWORD": "{any}",
    "PGPASSWORD": "{any}",
    "HTTP_PROXY": "http://proxyuser:{url}@127.0.0.1:1",
    "HTTPS_PROXY": "http://proxyuser:{url}@127.0.0.1:1",
    "ALL_PROXY": "http://proxyuser:{url}@127.0.0.1:1",
    "http_proxy": "http://proxyuser:{url}@127.0.0.1:1",
    "https_proxy": "http://proxyuser:{url}@127.0.0.1:1",
    "MLFLOW_TRACKING_USERNAME": "{bare}",
    "MLFLOW_TRACKING_PASSWORD": "{any}",
    "MLFLOW_TRACKING_TOKEN": "{bare}",
    "PIP_INDEX_URL": "https://reader:{url}@packages.example/simple",
    "PIP_EXTRA_INDEX_URL": "https://{bare}@packages.example/simple",
    "AWS_SECRET_ACCESS_KEY": "{bare}",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=models;AccountKey={bare}==",
    "CLOUDSDK_AUTH_ACCESS_TOKEN": "ya29.{bare}",
    "GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.{bare}",
    "OPENLINEAGE_API_KEY": "{any}",
    "GITHUB_TOKEN": "ghp_{bare}",
    "SLACK_WEBHOOK_URL": "https://hooks.example/services/T0/B0/{bare}",
    "SENTRY_DSN": "https://{bare}@errors.example/1",
}
"""Variables, with the form of their values. Some are of other programs: nothing may print the whole
environment.
"""

FILES: Mapping[str, str] = {
    "DB_PASSWORD_SECRET": "{any}",
    "GOOGLE_API_TOKEN_FILE": "{bare}",
    "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "{bare}",
    "GOOGLE_APPLICATION_CREDENTIALS": '{{"type": "service_account", "private_key": "{bare}"}}',
    "YIELDSPARK_IVY_SETTINGS": (
        '<ivysettings><credentials host="jars.example" realm="r" username="u" passwd="{bare}"/>'
        "</ivysettings>"
    ),
    "PGPASSFILE": "*:*:*:*:{bare}",
    "PGSERVICEFILE": "[defi]\npassword={bare}",
    "PGSSLKEY": "-----BEGIN PRIVATE KEY-----\n{bare}\n-----END PRIVATE KEY-----",
    ".env": "STRANGER_API_KEY={bare}",
}
"""Variables that name a file, or a secret of a store, with what it holds."""

NO_SECRET: Mapping[str, str] = {
    "NO_PROXY": "hosts",
    "PROXY": "the end of the names HTTP_PROXY and HTTPS_PROXY",
    "SSL_CERT_FILE": "certificates, which are public",
    "TRUST_STORE_PASSWORD": "a constant of the code: Java's store of public certificates needs one",
    "PGSSLKEYLOGFILE": "name of a file that is written; refused with DB_HOST",
}
"""Names that look like those of secrets and are not, with the reason."""

SETTINGS_WITHOUT_SECRET = frozenset(
    {
        # places, names and options; a URL or DSN with a login in one of them is refused or hidden,
        # which test_planted_secrets.py tests for each of them
        *("db_host", "db_name", "db_user", "db_schema", "metrics_table", "db_sslrootcert"),
        *("defillama_yields_url", "defillama_coins_url", "google_api_endpoint"),
        *("mlflow_tracking_uri", "mlflow_artifacts_uri", "monitoring_endpoint"),
        *("openlineage_url", "openlineage_namespace"),
        *("project_id", "region", "code_bucket", "staging_bucket", "workflow_name", "batch_id"),
        *("batch_service_account", "batch_subnetwork", "container_image", "code_version"),
        *("yieldspark_home", "jars_dir", "report_dir", "model_parameters_file"),
        *("spark_master", "spark_driver_memory", "check_severities"),
    }
)
"""Settings of free text that hold no secret. The others are in VALUES or FILES."""


@dataclass(frozen=True)
class Secret:
    """A planted secret.

    Attributes:
        name: variable or file that holds it.
        mark: the letters and digits by which it is found.
        form: its value, with a place for the secret.
    """

    name: str
    mark: str
    form: str

    @cached_property
    def clear(self) -> str:
        """The secret itself, with all signs that its place allows."""
        return self.mark.join(SIGNS) if "{any}" in self.form or "{url}" in self.form else self.mark

    @cached_property
    def value(self) -> str:
        """The value of the variable, or the content of the file."""
        return self.form.format(any=self.clear, url=quote(self.clear, safe=""), bare=self.mark)

    @cached_property
    def encoded(self) -> frozenset[bytes]:
        """The mark in every encoding of the search, in lower case."""
        mark = self.mark.encode()
        forms = {mark, binascii.hexlify(mark), self.mark.encode("utf-16-le")}
        for shift in range(3):
            # the characters of base64 that depend on neighbours of the mark are cut off
            padded = b"\0" * shift + mark
            forms.add(base64.b64encode(padded)[-(-shift * 8 // 6) : len(padded) * 8 // 6])
        return frozenset(form.lower() for form in forms)


def _mark(number: int, name: str) -> str:
    # never a part of a word or of another mark
    return f"zQ{number:02d}{re.sub('[^a-z]', '', name.lower())[:10]}7Xk"


SECRETS: Mapping[str, Secret] = {
    name: Secret(name, _mark(number, name), form)
    for number, (name, form) in enumerate({**VALUES, **FILES}.items())
    if name != "PGPASSWORD"
}
"""By variable or file. PGPASSWORD has to equal DB_PASSWORD."""


def variables(folder: Path) -> dict[str, str]:
    """Return every variable with its secret; files are written to `folder`."""
    values = {name: SECRETS[name].value for name in VALUES if name != "PGPASSWORD"}
    folder.mkdir(exist_ok=True)
    for name in FILES:
        if name not in ("DB_PASSWORD_SECRET", ".env"):
            path = folder / name.lower()
            path.write_text(SECRETS[name].value, encoding="utf-8")
            values[name] = str(path)
    return values


def found_in(content: bytes, *, where: str) -> Iterator[str]:
    """Yield a sentence for each secret in the content, and in archives and packed parts of it."""
    if content.startswith(b"PK") and b"META-INF/" in content[:4096]:
        # a jar of 100 MB, of others and compared with its checksum
        return
    for number, part in enumerate(parts(content)):
        lower = part.lower()
        for secret in SECRETS.values():
            if form := next((form for form in secret.encoded if form in lower), None):
                begin = lower.index(form)
                around = part[max(0, begin - 60) : begin + len(form) + 30]
                place = f"{where} (unpacked)" if number else where
                yield f"{secret.name} in {place}: {around!r}"


def parts(content: bytes) -> Iterator[bytes]:
    """Yield the content, and everything that is packed in it."""
    yield content
    with suppress(zipfile.BadZipFile, ValueError):
        if content[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    yield name.encode()
                    yield from parts(archive.read(name))
    if content.startswith(ZSTANDARD):
        yield b"".join(_zstandard_blocks(content))
    for unpack in (gzip.decompress, bz2.decompress, lzma.decompress, zlib.decompress):
        with suppress(OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
            unpacked = unpack(content)
            yield unpacked
            with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(unpacked)) as members:
                for member in members.getmembers():
                    if file := members.extractfile(member):
                        yield from parts(file.read())


def _zstandard_blocks(content: bytes) -> Iterator[bytes]:
    # a log whose session was killed ends within a frame
    with suppress(OSError), pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        while block := stream.read(1 << 20):
            yield block
