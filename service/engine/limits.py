"""How much an engine takes on at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

KEPT_SHARE = 8  # of the reserve an eighth is left: answers go on, fewer at a time


@dataclass(frozen=True, slots=True)
class Limits:
    """`rows` decode together, and `reserve` more for requests that somebody waits for; `kv_bytes` bound their keys and
    values, `prefix_bytes` those of prefixes. `max_queue` answers may be asked for at a time, with `queue_bytes` of
    messages; those that nobody waits for may fill three quarters of either."""

    max_queue: int = 4096
    queue_bytes: int = 64 << 20
    rows: int = 64
    reserve: int = 4
    kv_bytes: int = 2 << 30
    prefix_bytes: int = 256 << 20

    def shared(self, used_bytes: int) -> Limits:
        """While something is trained on the device: a part of the reserve, and never less than answers under way use."""
        kept = max(used_bytes, self.kv_bytes // KEPT_SHARE)
        return replace(self, kv_bytes=min(kept, self.kv_bytes), prefix_bytes=self.prefix_bytes // KEPT_SHARE)

    @classmethod
    def for_device(cls, device: torch.device, max_queue: int) -> Limits:
        if device.type != "cuda":
            return cls(max_queue)
        free, _ = torch.cuda.mem_get_info(device)
        return cls(max_queue, rows=256, reserve=16, kv_bytes=free // 3, prefix_bytes=free // 8)
