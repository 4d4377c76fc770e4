"""One file by HTTP into a file that a broken download leaves to go on from: also after the process has ended.

The hub's own library begins each file anew (2.4 gives its unfinished files a new name each time), and counts progress for
a terminal only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from service.errors import CannotRun

_ATTEMPTS = 5  # in a row without a single new byte
_PAUSE_S = 1.0
_TIMEOUT_S = 30.0


class DownloadRefused(CannotRun):
    """The server answered with a status that asking again will not mend; `code` is what the hub calls its reason."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"HTTP {status}" + (f" {code}" if code else ""))
        self.status = status
        self.code = code


def download(url: str, target: Path, headers: Mapping[str, str], told: Callable[[int], None]) -> None:
    """Put the file at `url` into `target`, from where an earlier try left `target` with the suffix `.begun`.

    `told` is given the bytes that are here. `headers` go to the first server only, not to where it redirects. Raises
    DownloadRefused, OSError of the disk, httpx.TransportError once no new byte has come in several attempts.
    """
    begun = target.with_name(target.name + ".begun")
    begun.parent.mkdir(parents=True, exist_ok=True)
    left = _ATTEMPTS
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}) as client:
        while True:
            before = _size(begun)
            try:
                _go_on(client, url, begun, headers, told)
            except httpx.TransportError:
                left = _ATTEMPTS if _size(begun) > before else left - 1
                if left <= 0:
                    raise
                time.sleep(_PAUSE_S)
            else:
                begun.replace(target)
                return


def _go_on(
    client: httpx.Client, url: str, begun: Path, headers: Mapping[str, str], told: Callable[[int], None]
) -> None:
    start = _size(begun)
    asked = {**headers, "Range": f"bytes={start}-"} if start else dict(headers)
    with client.stream("GET", url, headers=asked) as reply:
        if reply.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it is here: whoever asked checks its digest
        if not reply.is_success:
            raise DownloadRefused(reply.status_code, reply.headers.get("x-error-code", ""))
        is_rest = reply.status_code == httpx.codes.PARTIAL_CONTENT
        with begun.open("ab" if is_rest else "wb") as file:
            for piece in reply.iter_bytes():
                file.write(piece)
                told(file.tell())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
