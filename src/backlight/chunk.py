"""How many optimizer steps one `training_step` makes."""

from lightning.pytorch import Callback, LightningModule, Trainer

CHUNK_WORK = 2**33
"""Multiply-adds of a chunk, about: 50 to 100 ms on a CPU, beside which Lightning's 0.5 ms are little."""
GPU_WORK = 256  # times as much, about, is as little for a GPU
LONGEST_CHUNK = 512  # steps; the smallest networks are bound by the overhead of their operations
STEP_HOOKS = (
    "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward",
    "on_after_backward", "on_before_optimizer_step",
)  # fmt: skip


def steps_at_once(trainer: Trainer, module: LightningModule, rows_per_step: int) -> int:
    """As many steps as make Lightning's own cost per call small; 1 where somebody counts on every call.

    Args:
        trainer: its callbacks and settings may need to see every step.
        module: its parameters tell the work of a step.
        rows_per_step: of one batch.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set in its __init__
    if any(map(_sees_every_step, callbacks)) or not _has_whole_epochs(trainer):
        return 1
    weights = sum(parameter.numel() for parameter in module.parameters())
    most = CHUNK_WORK * (GPU_WORK if module.device.type == "cuda" else 1)
    work = 3 * rows_per_step * weights // trainer.world_size  # forward, deltas, gradients
    return max(1, min(LONGEST_CHUNK, most // max(1, work)))


def _sees_every_step(callback: Callback) -> bool:
    """Whether a callback overrides a hook of steps, and does not say that it takes them in chunks."""
    overrides = any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in STEP_HOOKS)
    return overrides and not getattr(callback, "takes_chunks", False)


def _has_whole_epochs(trainer: Trainer) -> bool:
    """Whether nothing but the end of an epoch ends or interrupts the sequence of steps."""
    return (
        trainer.max_steps == -1
        and trainer.limit_train_batches == 1.0
        and trainer.val_check_interval == 1.0
        and trainer.precision == "32-true"
    )
