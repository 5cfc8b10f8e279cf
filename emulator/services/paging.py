"""Pages of lists: checks the size and the token of a request, and makes the token of the next page
(https://google.aip.dev/158). A token belongs to one list, so that it is valid with the same filter
and order only. Holds no state.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from emulator.services.http_service import ApiError, invalid_argument

Item = TypeVar("Item")

LARGEST_INT32 = 2**31 - 1

WHOLE_NUMBER = re.compile("-?[0-9]{1,10}")
"""Text of an int32. Python reads other digits than 0-9 too, and rejects very long numbers."""


@dataclass(frozen=True)
class Paging:
    """How a list method makes pages.

    Attributes:
        default_size: Items of a page if the request names no size, or 0.
        largest_size: Most items of a page.
        list_parameters: Parameters that select and order the list.
        size_parameter: Name of the page's size in the request.
        rejects_larger: Whether a size above the largest is an error; otherwise it is the largest.
        error: Makes the error of a wrong value from its message and the name of the field.
    """

    default_size: int
    largest_size: int
    list_parameters: tuple[str, ...] = ("filter", "orderBy")
    size_parameter: str = "pageSize"
    rejects_larger: bool = False
    error: Callable[[str, str], ApiError] = invalid_argument

    def page(
        self, items: Sequence[Item], parameters: Mapping[str, Any]
    ) -> tuple[Sequence[Item], str]:
        """Return one page of a list and the token of the next; empty for none.

        Args:
            items: All items.
            parameters: Query or body of the request.

        Raises:
            ApiError: 400, for a wrong size or token.
        """
        start = self.position(parameters, int) or 0
        if start < 0:
            raise self._invalid_token()
        end = start + self.size(parameters)
        return items[start:end], self.token(end, parameters) if end < len(items) else ""

    def size(self, parameters: Mapping[str, Any]) -> int:
        """Return the number of items of a page.

        Raises:
            ApiError: 400, for a size that is no int32, negative, or larger than allowed.
        """
        value = parameters.get(self.size_parameter, 0)
        size = _whole_number(value)
        if size is None or not 0 <= size <= LARGEST_INT32:
            raise self._invalid_size(value)
        if size > self.largest_size and self.rejects_larger:
            raise self._invalid_size(value)
        return min(size or self.default_size, self.largest_size)

    def position(self, parameters: Mapping[str, Any], kind: type[Item]) -> Item | None:
        """Return the position that the token of a request has; None without a token.

        Args:
            parameters: Query or body of the request.
            kind: Type of the positions.

        Raises:
            ApiError: 400, for a text that is no token, or the token of another list.
        """
        token = parameters.get("pageToken") or ""
        if token == "":
            return None
        try:
            position, list_key = json.loads(base64.urlsafe_b64decode(token))
        # RecursionError: deeply nested lists
        except (ValueError, TypeError, RecursionError):
            raise self._invalid_token() from None
        if type(position) is not kind:
            raise self._invalid_token()
        if list_key != self._list_key(parameters):
            raise self.error(
                "The page token belongs to a list with another filter or order.", "page_token"
            )
        return position

    def token(self, position: int | str, parameters: Mapping[str, Any]) -> str:
        """Return the token of the page that begins at a position of the list."""
        content = json.dumps([position, self._list_key(parameters)])
        return base64.urlsafe_b64encode(content.encode()).decode()

    def _list_key(self, parameters: Mapping[str, Any]) -> list[Any]:
        return [parameters.get(name) or "" for name in self.list_parameters]

    def _invalid_size(self, value: object) -> ApiError:
        field = re.sub("([A-Z])", r"_\1", self.size_parameter).lower()
        allowed = f"0 to {self.largest_size if self.rejects_larger else LARGEST_INT32}"
        return self.error(
            f"Invalid value at '{field}' (TYPE_INT32): {self.size_parameter} {str(value)[:60]} is"
            f" not allowed, only {allowed}",
            field,
        )

    def _invalid_token(self) -> ApiError:
        return self.error("The page token is not valid.", "page_token")


def _whole_number(value: object) -> int | None:
    """Return the number of a JSON value or a text; None for anything else."""
    if isinstance(value, str):
        return int(value) if WHOLE_NUMBER.fullmatch(value) else None
    # in Python, True is an int
    return value if isinstance(value, int) and not isinstance(value, bool) else None
