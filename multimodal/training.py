"""The only training loop: a model, its loss and batches in; a trained, evaluated, resumable run directory out.

Exact resume rests on two rules. Batches are a pure function of their index, so the data order needs no state. The
random state is set from (seed, step) at every step, so dropout and relaxed samples need none either. What is left,
weights, optimisers, average and step, is one file written in one move: a run killed at any moment has a whole one.
"""

import contextlib
import dataclasses
import json
import math
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from multimodal import checkpoint, cli, devices, distributed, optim
from multimodal.cli import Failed, UserError
from multimodal.config import TrainConfig

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STATE, LOCK = "state/last.pt", "state/lock"
Batch = dict[str, object]
Loss = Callable[[nn.Module, Batch, int], tuple[Tensor, dict[str, float | Tensor]]]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    steps: int
    minutes: float
    stopped: str
    """steps, minutes or signal: which bound ended it."""
    metrics: dict[str, float]
    """The last evaluation, and the last training loss."""


def shuffled(index: int, batch_size: int, length: int, seed: int) -> list[int]:
    """Items of batch `index`: every epoch is its own permutation of 0 .. length-1, and batches run across epochs."""
    if length < 1:
        raise UserError("there is nothing to train on: 0 examples were found.")
    items: list[int] = []
    while len(items) < batch_size:
        epoch, offset = divmod(index * batch_size + len(items), length)
        order = _permutation(length, seed, epoch)
        items += order[offset : offset + batch_size - len(items)].tolist()
    return items


_last_permutation: dict[tuple[int, int, int], Tensor] = {}


def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    key = (length, seed, epoch)
    if key not in _last_permutation:
        if len(_last_permutation) > 3:  # one run needs the present epoch and the next
            _last_permutation.clear()
        generator = torch.Generator().manual_seed(hash((seed, epoch)) & 0x7FFFFFFFFFFFFFFF)
        _last_permutation[key] = torch.randperm(length, generator=generator)
    return _last_permutation[key]


def _prefetched(batches: Callable[[int], Batch], start: int) -> Iterator[Batch]:
    """Batch after batch from `start`, the next one being made while the present one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batches, start)
        while True:
            start += 1
            ready, coming = coming.result(), pool.submit(batches, start)
            yield ready


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """SIGINT and SIGTERM fill the list, so that the step in hand ends and is saved; a second SIGINT interrupts."""
    seen: list[int] = []

    def note(number, frame):
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread (a test, a notebook): signals are somebody else's
        before = {}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reload_metrics(path: Path, step: int) -> None:
    """Keeps the lines up to `step`: a killed run may have written later ones, or half a line."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    checkpoint.write_text(path, "".join(f"{line}\n" for line in kept))


def check_run(run: Path, resume: bool) -> None:
    """Raises UserError when `run` holds a run or a model that would be lost, or none to resume."""
    exists = (Path(run) / STATE).exists()
    if exists and not resume:
        raise UserError(f"{run} already holds a run: --resume continues it, or choose another --out.")
    if resume and not exists:
        raise UserError(f"--resume: {run} holds no run to continue (no {STATE}); leave --resume out to start.")
    if not exists and (Path(run) / "model.safetensors").exists():
        raise UserError(f"{run} already holds a model, which would be overwritten: choose another --out.")


_held: dict[Path, IO[bytes]] = {}  # runs of this process, until it ends


def lock(run: Path) -> None:
    """Keeps other processes out of the run. Raises UserError where one is in it."""
    run = Path(run).resolve()
    if run in _held or fcntl is None:
        return
    (run / STATE).parent.mkdir(parents=True, exist_ok=True)
    file = open(run / LOCK, "ab")  # noqa: SIM115 - what holds the lock is that it stays open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{run} is being trained by another process: wait for it, or choose another --out.") from None
    except OSError:  # a file system without locks
        pass
    _held[run] = file


def begin(settings: Any, free: Sequence[str] = ()) -> None:
    """Before any work: `check_run` of settings.out; tells the settings and keeps them as RUN/settings.json.

    A run is resumed as what it began as: of the settings only `train` may change, and is told, and what is `free`, where
    the run has kept its own. Raises UserError otherwise.
    """
    run, free = Path(settings.out), {"out", "resume", "device", "debug", "half", *free}
    check_run(run, settings.resume)
    lock(run)
    described = json.dumps(dataclasses.asdict(settings), default=str, indent=2) + "\n"
    cli.say(described)
    kept = run / "settings.json"
    if settings.resume and kept.is_file():
        before, now = json.loads(kept.read_text(encoding="utf-8")), json.loads(described)
        for name in now:
            if name not in free and before.get(name) != now[name]:
                for old, new, field in _changes(before.get(name), now[name], name):
                    if name != "train":
                        raise UserError(
                            f"--resume: the run began with {field} {old}, but {new} is asked for; give the preset and "
                            "the settings it began with, or another --out."
                        )
                    cli.say(f"--resume: {field} was {old}, and is {new} from here on.")
    checkpoint.write_text(kept, described)


def _changes(before: Any, now: Any, name: str) -> list[tuple[Any, Any, str]]:
    """(before, now, name) of every setting that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change for key in {**before, **now} for change in _changes(before.get(key), now.get(key), f"{name}.{key}")
        ]
    return [(before, now, name)] if before != now else []


def fit(
    model: nn.Module,
    loss: Loss,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    run: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    save: Callable[[nn.Module], None] | None = None,
    anneal: Callable[[float], None] | None = None,
) -> Outcome:
    """Trains `model` in place and leaves the run directory whole at every moment.

    loss(model, batch, step) -> (scalar, metrics); it is averaged over `optim.passes(step, config)` batches a step.
    batches(index) -> dict, a pure function of the index that uses no global random state (it runs in a thread).
    evaluate(model) -> metrics, logged as val_*; it may write samples. save(model) writes what others load.
    anneal(part) hears before every step which part of the run is behind, 0 to 1, as the schedule counts it.
    Raises Failed when the loss stops being a number; the last good checkpoint is kept.
    """
    run, where = Path(run), devices.pick(device)
    state_file, metrics_file = run / STATE, run / "metrics.jsonl"
    check_run(run, resume)
    state_file.parent.mkdir(parents=True, exist_ok=True)
    for left in (*run.glob(".*.part"), *state_file.parent.glob(".*.part")):
        left.unlink()  # half a file of a process that was killed
    devices.keep_memory(where)
    model.to(where).train()
    # measured where it is left to us, so one process's word goes for all of them
    half = distributed.first(float(devices.precision(where, config.precision) == "bf16"))
    auto, config = config.precision == "auto", dataclasses.replace(config, precision="bf16" if half else "fp32")
    optimizers = optim.optimizers(model, config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters] if config.ema else []
    step, seconds_before = 0, 0.0
    if resume:
        try:
            state = torch.load(state_file, map_location=where, weights_only=True)
            if auto:  # it is measured once a run
                config = dataclasses.replace(config, precision=state.get("precision", config.precision))
                optimizers = optim.optimizers(model, config)
            model.load_state_dict(state["model"])
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
                optimizer.load_state_dict(saved)
                for group, asked in zip(optimizer.param_groups, groups, strict=True):
                    group |= asked  # what is remembered are the moments; rates and decay are those asked for now
            for kept, saved in zip(average, state["average"], strict=True):
                kept.copy_(saved)
            step, seconds_before = state["step"], state["seconds"]
        except (RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(
                f"--resume: the state in {run} does not fit these settings ({str(error).splitlines()[0]}); give the preset "
                "and the settings that the run began with, or another --out to start anew."
            ) from None
    _reload_metrics(metrics_file, step)
    began = time.monotonic()
    count = sum(p.numel() for p in parameters)
    cli.say(f"{count:,} parameters, {where}, {config.precision}, {torch.get_num_threads()} threads; {run}")

    def seconds() -> float:
        return seconds_before + time.monotonic() - began

    def progress() -> float:
        # of several processes one clock counts, so that all end at the same step
        by_clock = distributed.first(seconds() / (60 * config.minutes)) if config.minutes else 0.0
        return max(step / config.steps, by_clock)

    @contextlib.contextmanager
    def averaged():
        """The averaged weights in the model's place, when there is an average."""
        kept = [p.detach().clone() for p in parameters] if average else []
        with torch.no_grad():
            for parameter, value in zip(parameters, average, strict=False):
                parameter.copy_(value)
            yield
            for parameter, value in zip(parameters, kept, strict=False):
                parameter.copy_(value)

    def save_all() -> None:
        state = {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "average": average,
            "step": step,
            "seconds": seconds(),
            "precision": config.precision,
        }
        with checkpoint.replacing(state_file) as aside:
            torch.save(state, aside)
        if save is not None:
            with averaged():
                save(model)

    def judge() -> dict[str, float]:
        if evaluate is None:
            return {}
        torch.manual_seed(seed)
        with averaged(), torch.no_grad(), devices.autocast(where, config.precision):
            model.eval()
            found = {f"val_{name}": float(value) for name, value in evaluate(model).items()}
            model.train()
        return found

    before = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    record = before[-1] if before else {}
    judged = [{k: v for k, v in line.items() if k.startswith("val_")} for line in before]
    last = next(filter(None, reversed(judged)), {})
    if resume and save is not None:  # a run killed between its two files: what others load is behind the state
        with averaged():
            save(model)
    stopped, ending = "steps", step > 0 and progress() >= 1  # however little time: a run has a step
    total = round(config.minutes * 60) if config.minutes else config.steps
    shown = cli.bar(total=total, initial=min(total, round(seconds_before) if config.minutes else step),
                    unit="s" if config.minutes else "step", desc=run.name)  # fmt: skip
    source = _prefetched(batches, sum(optim.passes(i, config) for i in range(step)))
    with shown, _stop_on_signal() as signals, open(metrics_file, "a", buffering=1) as log, contextlib.closing(source):
        while step < config.steps and not ending:
            now = progress()
            if anneal is not None:
                anneal(now)
            torch.manual_seed(seed * 1_000_003 + step)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * optim.rate(now, config) * group.get("scale", 1.0)
                    if "momentum" in group:
                        group["momentum"] = optim.momentum(now)
            record = {"step": step + 1, "loss": 0.0}
            passes = optim.passes(step, config)
            for _ in range(passes):
                batch = {k: v.to(where) if isinstance(v, Tensor) else v for k, v in next(source).items()}
                with devices.autocast(where, config.precision):
                    value, metrics = loss(model, batch, step)
                (value / passes).backward()
                for name, metric in {"loss": value, **metrics}.items():
                    record[name] = (
                        record.get(name, 0.0)
                        + float(metric.detach() if isinstance(metric, Tensor) else metric) / passes
                    )
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip))
            if not (math.isfinite(record["loss"]) and math.isfinite(norm)):
                what_now = (
                    f"the checkpoint in {run} is from before; resume with a smaller --train.lr."
                    if state_file.exists()
                    else "nothing was saved yet; start anew with a smaller --train.lr."
                )
                raise Failed(
                    f"the loss is no longer a number at step {step + 1} (loss {record['loss']}, gradient norm {norm}): "
                    + what_now
                )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if average:
                decay = min(config.ema, step / (step + 9))  # a young average must not hold on to the start
                torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
            signalled = distributed.anywhere(bool(signals))
            ending = step >= config.steps or signalled or progress() >= 1
            record["seconds"] = round(seconds(), 3)
            evaluated = not signalled and (ending or step % config.evaluate_every == 0)
            if evaluated:
                last = judge()
                record |= last
            log.write(json.dumps(record) + "\n")
            if evaluated:
                talk = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in ("step", "seconds"))
                shown.clear()
                cli.say(f"step {step}, {seconds() / 60:.1f} min: {talk}")
            shown.update(max(0, min(total, round(seconds()) if config.minutes else step) - shown.n))
            shown.set_postfix_str(f"loss {record['loss']:.3f}, step {step}", refresh=False)
            signalled = distributed.anywhere(bool(signals))  # while judging, too
            if ending or signalled or step % config.save_every == 0:
                log.flush()
                os.fsync(log.fileno())
                save_all()
            if signalled:
                stopped = "signal"
                cli.say(f"stopped by a signal at step {step}; --resume continues.")
                break
        else:
            stopped = "steps" if step >= config.steps else "minutes"
    return Outcome(step, seconds() / 60, stopped, last | {k: record[k] for k in ("loss",) if k in record})
