"""What the OpenAPI document says of a handler's answers beside the usual one."""

from __future__ import annotations

from typing import Any

from litestar.openapi.datastructures import ResponseSpec


def also(status: int, said: str, content: Any = dict[str, Any]) -> dict[int, ResponseSpec]:
    """For a handler's `responses`: it answers with this status, too, and JSON of the type `content`."""
    return {status: ResponseSpec(content, generate_examples=False, description=said)}
