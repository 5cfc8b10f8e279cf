"""Tests that a model version is written and read again whole, or refused with the name of the
broken part.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ModelRefused
from forecasting.registry import model_archive
from forecasting.registry.model_archive import (
    CARD,
    ModelArchive,
    features_hash,
    from_files,
    require_features,
    unpack,
)
from tests.support.model_archives import archive

VERSION = archive()
PACKED = VERSION.pack()
Files = dict[str, bytes]


def test_a_version_comes_back_from_its_files_and_from_its_zip() -> None:
    files = VERSION.files()
    assert list(files) == [
        CARD,
        *(f"apy-{number:02d}.txt" for number in range(12)),
        *(f"tvl-{number:02d}.txt" for number in range(3)),
    ]
    assert from_files(dict(reversed(files.items())), "v") == unpack(PACKED, "v") == VERSION
    assert (
        VERSION.card.features_hash
        == features_hash(VERSION.card.features)
        != features_hash(VERSION.card.features[::-1])
    )


def test_a_version_without_a_model_of_tvl_comes_back() -> None:
    without = ModelArchive(VERSION.card, {"apy": VERSION.texts["apy"], "tvl": ()})
    assert unpack(without.pack(), "v") == without


def _changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {name: change(files[name])}


def _without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: content for name, content in files.items() if name not in names}


def _card(**changes: object) -> Callable[[Files], Files]:
    return _changed(CARD, lambda content: json.dumps(json.loads(content) | changes).encode())


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            _changed("tvl-01.txt", lambda content: bytes([content[0] ^ 1]) + content[1:]),
            "is damaged: tvl-01.txt is not what was registered",
        ),
        (_changed("apy-03.txt", lambda content: content[:-1]), "is damaged: apy-03.txt is not"),
        (
            _changed("apy-03.txt", lambda content: b"\xff" + content),
            "is damaged: apy-03.txt is not",
        ),
        (_without("apy-11.txt"), "is damaged: apy-11.txt is not"),
        (_without("tvl-00.txt", "apy-00.txt"), "is damaged: apy-00.txt, tvl-00.txt is not"),
        (_without(CARD), "can't be read: its card.json is missing or damaged"),
        (_changed(CARD, lambda content: content[:-20]), "can't be read: its card.json"),
        (_changed(CARD, lambda _: b""), "can't be read: its card.json"),
        (_changed(CARD, lambda _: b"[]"), "can't be read: its card.json"),
        (_changed(CARD, lambda _: b"[" * 100_000), "can't be read: its card.json"),
        (
            _changed(CARD, lambda content: content.replace(b'"sha256"', b'"md5"')),
            "can't be read: its card.json",
        ),
        (_card(known="yesterday"), "can't be read: its card.json"),
        (_card(of_a_later_version=1), "can't be read: its card.json"),
        (_card(sha256=[]), "can't be read: its card.json"),
    ],
)
def test_a_damaged_file_is_refused(break_it: Callable[[Files], Files], message: str) -> None:
    with pytest.raises(ModelRefused, match=f"model version the-version {message}.*models rollback"):
        from_files(break_it(VERSION.files()), "the-version")


@pytest.mark.parametrize(
    "content",
    [b"", b"no zip", PACKED[:-30], PACKED[: len(PACKED) // 2]],
    ids=["empty", "text", "cut", "half"],
)
def test_a_broken_zip_is_refused(content: bytes) -> None:
    with pytest.raises(
        ModelRefused, match=r"model version the-version can't be read from yieldspark\.model_outbox"
    ):
        unpack(content, "the-version")


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_zip_with_any_byte_changed_is_whole_or_refused(place: int, change: int) -> None:
    """Some bytes, such as a file's date, do not describe the model."""
    with suppress(ModelRefused):
        assert (
            unpack(
                PACKED[:place] + bytes([PACKED[place] ^ change]) + PACKED[place + 1 :],
                "the-version",
            )
            == VERSION
        )


def test_a_zip_that_unpacks_to_more_than_a_model_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = VERSION.files()
    monkeypatch.setattr(model_archive, "MAX_UNPACKED_BYTES", sum(map(len, files.values())))
    assert unpack(PACKED, "v") == VERSION
    buffer = io.BytesIO(PACKED)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("apy-99.txt", b"0" * 100_000)
    with pytest.raises(ModelRefused, match=r"can't be read .*bytes, at most"):
        unpack(buffer.getvalue(), "v")


def test_a_zip_with_a_text_of_another_version_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in (
            VERSION.files() | {"apy-00.txt": archive("b").files()["apy-00.txt"]}
        ).items():
            packed.writestr(name, content)
    with pytest.raises(ModelRefused, match=r"apy-00\.txt is not what was registered"):
        unpack(buffer.getvalue(), "the-version")


def test_other_features_are_named_on_both_sides() -> None:
    card = replace(VERSION.card, features=("a", "b", "c"))
    require_features(card, ["a", "b", "c"])
    for features, difference in (
        (("a", "d", "e"), "only the model has b, c; only the code has d, e."),
        (("a", "b"), "only the model has c."),
        (("a", "b", "c", "d"), "only the code has d."),
        (("a", "c", "b"), "the same in another order."),
    ):
        with pytest.raises(ModelRefused) as caught:
            require_features(card, features)
        assert (
            f"model version {card.version} was fitted with other features than this code makes:"
            f" {difference} The next forecast run" in str(caught.value)
        )
