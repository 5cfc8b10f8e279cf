"""Recognises files that are neither Parquet nor delimited text by their first bytes.

Raises an error that names the format and the next step. Decodes and unpacks nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import InputError

HEAD_BYTES = 4_096

UNPACK = "unpack it first"
AS_CSV = "save its table as CSV in UTF-8"
AS_PARQUET = "export its table as Parquet or CSV"
FETCH_AGAIN = "fetch the file itself again"
AS_UTF_8 = "save it as CSV in UTF-8"

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"\x1f\x8b", "compressed (gzip)", UNPACK),
    (b"BZh", "compressed (bzip2)", UNPACK),
    (b"\xfd7zXZ\x00", "compressed (xz)", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", UNPACK),
    (b"\x04\x22\x4d\x18", "compressed (lz4)", UNPACK),
    (b"\x1f\x9d", "compressed (compress)", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", AS_CSV),
    (b"%PDF", "a PDF document", AS_CSV),
    (b"{\\rtf", "a text document (RTF)", AS_CSV),
    (b"<stata_dta>", "a Stata file", AS_PARQUET),
    (b"$FL2@", "an SPSS file", AS_PARQUET),
    (b"SQLite format 3", "an SQLite database", AS_PARQUET),
    (b"PGDMP", "a PostgreSQL dump", "restore it with pg_restore and export the table as CSV"),
    (b"ORC", "an ORC file", AS_PARQUET),
    (b"Obj\x01", "an Avro file", AS_PARQUET),
    (b"ARROW1", "an Arrow (Feather) file", AS_PARQUET),
    (b"FEA1", "an Arrow (Feather) file", AS_PARQUET),
    (b"\x89HDF", "an HDF5 file", AS_PARQUET),
    (b"\x93NUMPY", "a NumPy file", AS_PARQUET),
    (b"\x80\x04", "a Python pickle", AS_PARQUET),
    (b"\x80\x05", "a Python pickle", AS_PARQUET),
    (b"\x89PNG", "a picture", FETCH_AGAIN),
    (b"\xff\xfe\x00\x00", "text in UTF-32", AS_UTF_8),
    (b"\xff\xfe", "text in UTF-16", AS_UTF_8),
    (b"\xfe\xff", "text in UTF-16", AS_UTF_8),
    (b"version https://git-lfs", "a Git LFS pointer and not the file", "run `git lfs pull`"),
)
"""First bytes, name of the format, next step. Of two entries with the same beginning the longer one
is first.
"""

SIGNATURES_INSIDE = (
    (8, b"DUCK", "a DuckDB database", AS_PARQUET),
    (257, b"ustar", "a tar archive", UNPACK),
)
"""The same with the place of the bytes."""

CONVERT_JSON = "convert its rows to Parquet or CSV, or have `ingest` fetch pools from DefiLlama"

NAMES_IN_BRACKETS = re.compile(rb"<[^<>\r\n]+>([,;\t|]<[^<>\r\n]+>)+[,;\t|]?[\r\n]")
"""A header line as Stooq and MetaTrader write it: `<DATE>,<TIME>,<CLOSE>`."""

SQL = re.compile(rb"--(?!-)|/\*|(CREATE|INSERT|COPY|SET|BEGIN|DROP|SELECT)\s", re.IGNORECASE)


def refuse_other_formats(path: Path, head: bytes) -> None:
    """Reject a file of another format.

    Args:
        path: the file, for the message.
        head: its first HEAD_BYTES.

    Raises:
        InputError: the file is neither Parquet nor delimited text.
    """
    recognised = _binary_format(head) or _text_format(head)
    if recognised:
        name, next_step = recognised
        raise InputError(f"{path} is {name}, and a Parquet or CSV file is needed: {next_step}")


def _binary_format(head: bytes) -> tuple[str, str] | None:
    for signature, name, next_step in SIGNATURES:
        if head.startswith(signature):
            return name, next_step
    # workbooks are ZIP archives with these names inside
    if head.startswith(b"PK\x03\x04"):
        parts = (b"[Content_Types].xml", b"xl/", b"opendocument", b"Index/Document.iwa")
        is_workbook = any(part in head for part in parts)
        return (
            ("an Excel, Calc or Numbers workbook", AS_CSV)
            if is_workbook
            else ("a ZIP archive", UNPACK)
        )
    for start, signature, name, next_step in SIGNATURES_INSIDE:
        if head[start:].startswith(signature):
            return name, next_step
    # no CSV has a NUL, and UTF-16 has one in every ASCII character
    if b"\0" in head and not head.startswith(b"PAR1"):
        return "binary, or text in UTF-16", AS_UTF_8
    return None


def _text_format(head: bytes) -> tuple[str, str] | None:
    # a byte-order mark may precede any of them
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<") and not NAMES_IN_BRACKETS.match(text):
        is_page = b"<html" in text.lower() or b"<!doctype html" in text.lower()
        if is_page:
            return "a web page (HTML)", f"look at it in a browser, and {FETCH_AGAIN}"
        return "XML", AS_CSV
    if text.startswith((b"{", b"[")):
        return "JSON", CONVERT_JSON
    if SQL.match(text):
        return "SQL", "run it in a database and export the table as CSV"
    return None
