"""What the process that jobs are forked from imports, in the environment that a job would give it."""

from __future__ import annotations

import importlib

from finetune.__main__ import settle_environment

settle_environment()
for _name in ("finetune.train", "finetune.measure"):
    importlib.import_module(_name)
