"""Room for a training on a device that engines of this home serve from: they give memory back for as long as it lasts.

An engine is asked with a request that stays open. It ends with whoever holds it, so that an engine whose trainer died takes
its reserve again by itself.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from service.engine_gauges import Place, places

_WAIT_S = 30.0  # for an engine in the midst of a step
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Share:
    """What one engine gives back of its `device` and what its weights go on to take. `fault` says why it gives nothing."""

    model: str
    device: str = ""
    weights_bytes: int = 0
    given_back_bytes: int = 0
    fault: str = ""

    def __str__(self) -> str:
        if self.fault:
            return f"shared with the engine of {self.model!r}, which keeps its memory: {self.fault}"
        return (
            f"shared with the engine of {self.model!r} on {self.device}: {self.weights_bytes / _GIB:.2f} GiB of weights stay,"
            f" {self.given_back_bytes / _GIB:.2f} GiB of its reserve are given back while the training runs"
        )


@contextmanager
def shared(run_dir: Path, device: str) -> Iterator[Sequence[Share]]:
    """The engines below `run_dir` on `device` (`auto` is any) give memory back until the context ends."""
    with ExitStack() as held:
        asked = [_asked(held, place, device) for place in places(run_dir)]
        yield [share for share in asked if share is not None]


def on_device(shares: Sequence[Share], device: str) -> list[Share]:
    """Those that a training on `device`, as torch names it, shares memory with."""
    return [share for share in shares if _is_on(share.device, device)]


def _is_on(one: str, other: str) -> bool:
    kinds = {name.partition(":")[0] for name in (one, other)}
    return len(kinds) == 1 or not kinds.isdisjoint({"auto", ""})


def _asked(held: ExitStack, place: Place, device: str) -> Share | None:
    """None where no engine listens any more, or it is on another device: then it takes its reserve again at once."""
    try:
        with ExitStack() as opened:
            told = json.loads(opened.enter_context(_open(place)).readline())
            share = Share(place.model, str(told["device"]), int(told["weights_bytes"]), int(told["given_back_bytes"]))
            if not _is_on(share.device, device):
                return None
            held.push(opened.pop_all())
            return share
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        if isinstance(getattr(error, "reason", None), ConnectionRefusedError):
            return None
        return Share(place.model, fault=f"it did not say what it holds ({error})")


def _open(place: Place) -> Any:
    headers = {"Authorization": f"Bearer {place.token}"}
    request = urllib.request.Request(f"{place.base_url}/share", headers=headers)  # noqa: S310  what an engine wrote
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_WAIT_S)
