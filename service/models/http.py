"""aiohttp, whose two TLS contexts read the system's certificates when an address is first asked by https.

aiohttp fills both when it is imported. That is a tenth of the start of a run, and most runs need neither: theirs is a
server in the same network, or the embedded engine.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any


def _read_later(context: ssl.SSLContext) -> None:
    """In place of `set_default_verify_paths`, which is then done before the first connection that the context secures."""
    secured = context.wrap_bio

    def wrap_bio(*given: Any, **options: Any) -> ssl.SSLObject:
        context.set_default_verify_paths()
        vars(context).pop("wrap_bio", None)
        return secured(*given, **options)

    context.wrap_bio = wrap_bio  # type: ignore[method-assign]  # asyncio secures connections by this method alone


@contextlib.contextmanager
def _certificates_on_demand() -> Iterator[None]:
    """Contexts that are made within trust nobody until they are used, and then whom the system trusts."""
    ssl.SSLContext.set_default_verify_paths = _read_later  # type: ignore[method-assign, assignment]  # until the block ends
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # what `_ssl` has comes back


with _certificates_on_demand():
    import aiohttp

__all__ = ["aiohttp"]
