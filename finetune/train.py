"""One training job, from a frozen spec to a complete adapter.

Read `_train` first: it is the whole of it. A job that ends anywhere is started again with the same spec and ends as it
would have: what it computes depends on the spec and the step alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch
import transformers
from torch.nn.utils import clip_grad_norm_

from finetune import adapter, checkpoint, durable, plan, scoring
from finetune.checkpoint import Evaluation, Progress
from finetune.encoding import EncodedRow, RefusedError, encode_rows
from finetune.events import Events
from finetune.guard import Guard
from finetune.packing import pack, packs
from finetune.plan import JobSpec
from prompts import chat
from prompts.errors import BadInput, TurnoutError

FINISHED, REFUSED, FAILED = 0, 2, 4
CANARY_TEXT = "The quick brown fox jumps over the lazy dog."
_CANARY_LOGITS = 16
_LOCK_WAIT_S = 10.0  # as long as a process that is being cancelled may take to end, and then some
_SAME_FP32 = 1e-3  # how far packed hidden states may be from the same rows alone, as a share of their norm
_SAME_BF16 = 0.05


class BusyError(TurnoutError):
    """Another process runs this job."""


class DivergedError(TurnoutError):
    """The loss is no number any more."""


def run_file(path: Path, guard: Guard) -> int:
    """Run the job that a spec file describes; gives the exit code."""
    try:
        spec = plan.read_spec(path)
    except BadInput as error:
        print(json.dumps({"type": "refused", "reasons": [str(error)]}), file=sys.stderr)  # noqa: T201  no events yet
        return REFUSED
    return run(spec, guard)


def run(spec: JobSpec, guard: Guard) -> int:
    """Run one job; whatever goes wrong becomes an event and an exit code."""
    try:
        with _only_here(spec.output_dir):
            if not _tell_again(spec):
                _train(spec, Events(spec.output_dir / "events.jsonl"), guard)
    except BusyError as error:  # the events belong to the other process
        print(json.dumps({"type": "failed", "message": str(error)}), file=sys.stderr)  # noqa: T201
        return FAILED
    except RefusedError as error:
        return _end(spec, REFUSED, "refused", reasons=list(error.reasons))
    except BadInput as error:
        return _end(spec, REFUSED, "refused", reasons=[str(error)])
    except durable.DiskFullError as error:
        return _end(spec, FAILED, "failed", message=str(error), bytes_needed=error.bytes_needed)
    except TurnoutError as error:
        return _end(spec, FAILED, "failed", message=str(error))
    except Exception as error:  # noqa: BLE001  the process ends here: its parent reads events, not tracebacks
        traceback.print_exc()
        return _end(spec, FAILED, "failed", message=f"{type(error).__name__}: {error}")
    return FINISHED


def _train(spec: JobSpec, events: Events, guard: Guard) -> None:
    device = _prepare(spec)
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder, local_files_only=True)
    train, dev = _encode(spec, tokenizer)
    model = _load(spec, device)
    _check_packing(model, train)

    job = _Job(spec, model, tokenizer, train, dev, events, guard)
    job.require_disk()
    job.resume_or_begin()
    while True:
        if job.evaluation_is_due():
            job.evaluate()
        if job.has_ended():
            break
        if job.checkpoint_is_due():
            job.save()
        job.take_step()
    job.finish()


# ------------------------------------------------------------------------------------------------ before the first step


def _prepare(spec: JobSpec) -> torch.device:
    """Set what torch shares in a process, and choose the device: CUDA, then MPS, then the CPU."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    name: str = spec.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cpu":  # elsewhere it forbids the fast attention kernels
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time; unstubbed
    torch.manual_seed(spec.recipe.seed)
    return torch.device(name)


def _encode(spec: JobSpec, tokenizer: Any) -> tuple[list[EncodedRow], list[EncodedRow]]:
    """Token ids of train and dev. Raises RefusedError with the reasons of both."""
    context_tokens = _context_tokens(spec.base_folder)
    parts: list[list[EncodedRow]] = []
    reasons = [] if spec.train else ["no rows to train on"]
    for part, rows in (("train", spec.train), ("dev", spec.dev)):
        try:
            limits = {"context_tokens": context_tokens, "max_new_tokens": spec.max_new_tokens}
            parts.append(encode_rows(tokenizer, rows, part=part, **limits))
        except RefusedError as error:
            reasons += error.reasons
    if reasons:
        raise RefusedError(reasons)
    return parts[0], parts[1]


def _context_tokens(base_folder: Path) -> int:
    """The longest row: what the positions reach, and no more than a sliding window sees at once."""
    config = transformers.AutoConfig.from_pretrained(base_folder, local_files_only=True).get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return int(min(config.max_position_embeddings, window or math.inf))


def _load(spec: JobSpec, device: torch.device) -> Any:
    """The base model with a fresh LoRA on every linear layer but the head: bf16 on CUDA, else fp32; the LoRA fp32."""
    base = transformers.AutoModelForCausalLM.from_pretrained(
        spec.base_folder,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        attn_implementation="sdpa",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    recipe = spec.recipe
    lora = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=sorted(_linear_names(base)),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for a property by its former name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return peft.get_peft_model(base, lora).to(device)


def _linear_names(base: Any) -> set[str]:
    """Last parts of the names of all linear layers but the head, which is how adapters of others name them too."""
    head = base.get_output_embeddings()
    linears = (
        name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    )
    return {name.rpartition(".")[2] for name in linears}


@torch.no_grad()
def _check_packing(model: Any, rows: list[EncodedRow]) -> None:
    """Refuse a model that, packed, does not see what it sees row by row: a recurrent one, say."""
    base, two = model.get_base_model().eval(), sorted(rows, key=lambda row: len(row.ids))[:2]
    device = next(base.parameters()).device
    with _precision(device):
        packed = scoring.label_hidden(base, pack(two, device)).float()
        alone = torch.cat([scoring.label_hidden(base, pack([row], device)) for row in two]).float()
    difference = float((packed - alone).norm() / alone.norm())
    if not difference <= (_SAME_BF16 if device.type == "cuda" else _SAME_FP32):
        reason = f"this model's architecture cannot be packed: its states differ by {difference:.1%}"
        raise RefusedError([reason])


def _precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On CUDA the LoRA is computed in bf16 from its fp32 master."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


# ------------------------------------------------------------------------------------------------ the job


class _Job:
    """A job under way. Its state changes only while `guard.changing` is held, so that it can be saved at any moment."""

    def __init__(
        self,
        spec: JobSpec,
        model: Any,
        tokenizer: Any,
        train: list[EncodedRow],
        dev: list[EncodedRow],
        events: Events,
        guard: Guard,
    ) -> None:
        self.spec, self.recipe = spec, spec.recipe
        self.model, self.base, self.tokenizer = model, model.get_base_model(), tokenizer
        self.train, self.dev = train, dev
        self.events, self.guard = events, guard
        self.device = next(model.parameters()).device
        self.params = {
            name.replace(".default.", "."): param  # PEFT's names of the files it writes
            for name, param in model.named_parameters()
            if param.requires_grad
        }
        self.optimizer = torch.optim.AdamW(
            self.params.values(), lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True
        )
        self.steps = plan.total_steps(self.recipe, len(train))
        self.checkpoints = spec.output_dir / "checkpoints"
        self.spec_digest = durable.sha256_of_bytes(spec.model_dump_json(exclude={"output_dir"}).encode())
        self.progress = Progress()
        self.saved_step = -1
        self.started_s = time.monotonic()

    # -- beginning

    def require_disk(self) -> None:
        """Raise DiskFullError now rather than hours later."""
        needed = plan.disk_bytes(sum(param.numel() for param in self.params.values()))
        if shutil.disk_usage(self.spec.output_dir).free < needed:
            raise durable.DiskFullError(self.spec.output_dir, needed)

    def resume_or_begin(self) -> None:
        found = checkpoint.load(self.checkpoints, self.spec_digest, self.params, self.optimizer)
        if found is None:
            durable.remove(self.checkpoints)  # torn ones, or those of another spec
            self.events.cut(0)
            self._tell_started()
        else:
            self.progress, told = found
            self.saved_step = self.progress.step
            self.events.cut(told)
            self.events.tell("resumed", step=self.progress.step)
        self.started_s -= self.progress.seconds
        self.guard.on_stop = self.cancel

    def _tell_started(self) -> None:
        self.events.tell(
            "started",
            job_id=self.spec.job_id,
            device=str(self.device),
            dtype=str(next(self.base.parameters()).dtype).removeprefix("torch."),
            parameters=sum(param.numel() for param in self.base.parameters()) - self._trainable(),
            trainable=self._trainable(),
            rows={"train": len(self.train), "dev": len(self.dev)},
            tokens=sum(len(row.ids) for row in self.train),
            steps=self.steps,
        )

    def _trainable(self) -> int:
        return sum(param.numel() for param in self.params.values())

    # -- one step

    def take_step(self) -> None:
        """One optimizer step on the next batch; its loss is the mean over the batch's labelled tokens."""
        step = self.progress.step + 1
        lr = plan.learning_rate_at(self.recipe, step, self.steps)
        rows = self._batch(step)
        wall_s, cpu_s = time.monotonic(), time.process_time()
        torch.manual_seed(self.recipe.seed + step)  # dropout's numbers follow from the step
        self.optimizer.zero_grad()
        loss, packed_tokens = self._accumulate(rows)
        norm = float(clip_grad_norm_(self.params.values(), self.recipe.max_grad_norm))
        if not math.isfinite(loss + norm):
            why = f"step {step} gave the loss {loss} and the gradient norm {norm}"
            raise DivergedError(f"{why}: choose a learning rate below {self.recipe.lr}")
        with self.guard.changing:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self.progress.step, self.progress.loss = step, loss
            tokens = sum(len(row.ids) for row in rows)
            self.events.tell(
                "step",
                step=step,
                of=self.steps,
                loss=loss,
                lr=lr,
                tokens=tokens,
                packed_tokens=packed_tokens,
                tokens_per_s=round(tokens / (time.monotonic() - wall_s), 1),
                tokens_per_cpu_s=round(tokens / max(time.process_time() - cpu_s, 1e-9), 1),
            )

    def _batch(self, step: int) -> list[EncodedRow]:
        """The rows of step 1, 2, …: each epoch is one shuffle that follows from the seed and the epoch's number."""
        size = self.recipe.batch_size
        epoch, place = divmod(step - 1, plan.steps_per_epoch(self.recipe, len(self.train)))
        generator = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.train), generator=generator).tolist()
        return [self.train[at] for at in order[place * size : (place + 1) * size]]

    def _accumulate(self, rows: list[EncodedRow]) -> tuple[float, int]:
        """Add the gradient of the mean loss of `rows`; gives that loss and the tokens that were computed."""
        self.base.train()
        labels = sum(len(row.labels) for row in rows)
        total, tokens = torch.zeros((), device=self.device), 0
        for one in packs(rows, self.spec.pack_tokens, self.device):
            with _precision(self.device):
                loss = scoring.loss_sum(self.base, one) / labels
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += loss.detach()
            tokens += one.tokens
        return float(total), tokens

    # -- dev scores

    def evaluation_is_due(self) -> bool:
        """`evals_per_epoch` times an epoch and at the end; where `min_steps` stretches the run, as often in all."""
        step, done = self.progress.step, [one.step for one in self.progress.evaluations]
        if not self.dev or step == 0 or step in done:
            return False
        every = max(1.0, self.steps / (self.recipe.epochs * self.recipe.evals_per_epoch))
        return step == self.steps or int(step / every) > int((step - 1) / every)

    def evaluate(self) -> None:
        self.base.eval()
        with _precision(self.device):
            score = scoring.score(
                self.base,
                self.tokenizer,
                self.dev,
                max_new_tokens=self.spec.max_new_tokens,
                pack_tokens=self.spec.pack_tokens,
            )
        best = self.progress.best_evaluation
        better = best is None or (score.exact, -score.loss) > (best.dev_exact, -best.dev_loss)
        with self.guard.changing:
            done = Evaluation(self.progress.step, score.exact, score.loss, better)
            self.progress.evaluations.append(done)
            if better:
                self.progress.best = {name: param.detach().cpu().clone() for name, param in self.params.items()}
            self.events.tell("eval", **asdict(done))

    def has_ended(self) -> bool:
        """After the last step, a perfect dev score twice in a row, or `patience` evaluations without a better one."""
        done = self.progress.evaluations
        perfect = len(done) >= 2 and all(one.dev_exact == 1.0 for one in done[-2:])
        best_at = max((at for at, one in enumerate(done) if one.best), default=0)
        stale = 0 < self.recipe.patience <= len(done) - 1 - best_at
        return perfect or stale or self.progress.step >= self.steps

    # -- durability

    def checkpoint_is_due(self) -> bool:
        every = self.spec.checkpoint_every_steps
        return every > 0 and self.progress.step % every == 0 and self.progress.step > max(0, self.saved_step)

    def save(self) -> None:
        with self.guard.changing:
            before = self.events.length_bytes()
            self.events.tell("checkpoint", step=self.progress.step)
            self.progress.seconds = time.monotonic() - self.started_s
            told = self.events.length_bytes()
            try:
                checkpoint.save(self.checkpoints, self.spec_digest, self.progress, self.params, self.optimizer, told)
            except (OSError, TurnoutError):
                self.events.cut(before)
                raise
            self.saved_step = self.progress.step

    def cancel(self) -> None:
        """Called while the guard holds the state: save it unless that is done."""
        with contextlib.suppress(OSError, TurnoutError):  # the process ends in any case, with the checkpoint before
            if self.progress.step > max(0, self.saved_step):
                self.save()
            self.events.tell("cancelled", step=max(0, self.saved_step))

    # -- the end

    def finish(self) -> None:
        """Write the best adapter, its manifest last."""
        with self.guard.changing, torch.no_grad():
            for name, value in self.progress.best.items():
                self.params[name].copy_(value)
            manifest = adapter.write(
                self.spec.output_dir / "adapter",
                safetensors.torch.save(
                    {name: param.detach().cpu().contiguous() for name, param in self.params.items()}, {"format": "pt"}
                ),
                _peft_config(self.model, self.spec.base_folder),
                self._manifest(),
            )
            _tell_finished(self.events, manifest, time.monotonic() - self.started_s)
            durable.remove(self.checkpoints)

    def _manifest(self) -> adapter.Manifest:
        best, folder = self.progress.best_evaluation, self.spec.base_folder
        return adapter.Manifest(
            name=self.spec.adapter_name or self.spec.job_id,
            base=adapter.Base(name=folder.name, digest=adapter.base_digest(folder)),
            created_at=self.spec.created_at,
            lineage=self.spec.lineage,
            recipe=self.recipe.model_dump(),
            scores={
                "steps": self.progress.step,
                "best_step": best.step if best else self.progress.step,
                "dev_exact": best.dev_exact if best else None,
                "dev_loss": best.dev_loss if best else None,
                "train_loss": self.progress.loss,
            },
            canary=self._canary(),
        )

    def _canary(self) -> adapter.Canary:
        self.base.eval()
        ids = _canary_ids(self.tokenizer)
        logits = self._first_logits(ids)
        with self.model.disable_adapter():
            base_logits = self._first_logits(ids)
        return adapter.Canary(ids=ids, logits=logits, base_logits=base_logits)

    def _first_logits(self, ids: tuple[int, ...]) -> tuple[float, ...]:
        with _precision(self.device):
            logits = self.base(input_ids=torch.tensor([ids], device=self.device), use_cache=False).logits
        return tuple(logits[0, -1, :_CANARY_LOGITS].float().tolist())


def _canary_ids(tokenizer: Any) -> tuple[int, ...]:
    try:
        return tuple(chat.encode_prompt(tokenizer, [{"role": "user", "content": CANARY_TEXT}]))
    except BadInput:  # a template that asks for more than a user's message; plain text will do
        return tuple(tokenizer(CANARY_TEXT, add_special_tokens=False)["input_ids"])


def _peft_config(model: Any, base_folder: Path) -> dict[str, Any]:
    """What peft and vLLM need to know, without the fields in which others may name code."""
    lora = model.peft_config["default"]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": int(lora.lora_alpha) if lora.lora_alpha == int(lora.lora_alpha) else lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": sorted(lora.target_modules),
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": base_folder.name,
        "peft_version": peft.__version__,
    }


# ------------------------------------------------------------------------------------------------ the ends of a run


@contextlib.contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    """Hold a job's folder against a second process, which may be the former one on its way out."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise BusyError(f"another process holds {folder}: wait for it, or cancel it") from None
                time.sleep(0.1)
        yield


def _tell_again(spec: JobSpec) -> bool:
    """Whether the job was done before; if it was killed between the adapter and the last event, tell that now."""
    folder, path = spec.output_dir / "adapter", spec.output_dir / "events.jsonl"
    if not adapter.is_complete(folder):
        return False
    if not path.is_file() or b'"type": "finished"' not in path.read_bytes():
        _tell_finished(Events(path), adapter.verify(folder), None)
    return True


def _tell_finished(events: Events, manifest: adapter.Manifest, seconds: float | None) -> None:
    scores = {key: manifest.scores[key] for key in ("best_step", "dev_exact", "dev_loss")}
    events.tell("finished", digest=manifest.digest, seconds=seconds and round(seconds, 3), **scores)


def _end(spec: JobSpec, code: int, kind: str, **details: Any) -> int:
    """Tell how a run ended: to the events, and to standard error where a full disk keeps none."""
    print(json.dumps({"type": kind, **details}, ensure_ascii=False), file=sys.stderr)  # noqa: T201  the last resort
    with contextlib.suppress(OSError):
        Events(spec.output_dir / "events.jsonl").tell(kind, **details)
    return code
