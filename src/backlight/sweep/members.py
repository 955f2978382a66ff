"""From the configs of trials to the members of a population."""

import json

from lightning.pytorch.callbacks import EarlyStopping

from backlight.accelerator import device_of
from backlight.assemble import (
    Node,
    build_callbacks,
    build_data,
    build_learner,
    build_trainer,
    trainer_options,
)
from backlight.callbacks.backprop import BackpropMonitor
from backlight.callbacks.stop_hopeless import StopHopeless
from backlight.config import build, check_node
from backlight.data.module import ClassificationData
from backlight.population.member import Member
from backlight.population.optimizers import STACKED
from backlight.ranges import Natural


class MemberBuilder:
    """Builds what each trial trains; trials that read the same rows share them."""

    def __init__(self) -> None:
        self._data: dict[str, ClassificationData] = {}

    def member(self, node: Node) -> Member | None:
        """What the trial of this config trains; None where it must be trained alone.

        Raises:
            BacklightError: as `backlight.assemble.assemble`.
        """
        return build(self._member, node, "")

    def _member(
        self,
        *,
        seed: Natural,
        name: str,
        data: Node,
        model: Node,
        loss: Node,
        optimizer: Node,
        scheduler: Node,
        trainer: Node,
        callbacks: Node,
    ) -> Member | None:
        options = trainer_options(trainer)
        check_node(build_trainer, options, "trainer", ("folder", "callbacks", "logger"))
        device = device_of(options.get("accelerator", "auto"), "trainer.accelerator")
        if trainer.get("cuda_graphs") and device.type != "cuda":  # alone it is refused
            return None
        if options.get("devices", 1) != 1 or optimizer.get("name") not in STACKED:
            return None
        rows = self._rows(data, seed)
        if not rows.is_dense:  # a first layer that is large, or many rows: stacking saves nothing
            return None
        learner = build_learner(model, loss, optimizer, scheduler, trainer, rows)
        member = Member(
            learner.network,
            optimizer["name"],
            learner.optimizer,
            learner.schedule,
            learner.loss,
            rows,
            seed,
            options["max_epochs"],
            learner.backward,
            learner.gradient_clip_val,
        )
        for callback in build_callbacks(callbacks, rows):
            if isinstance(callback, BackpropMonitor):
                member.monitor = callback
            elif isinstance(callback, StopHopeless):
                member.stop_hopeless = callback
            elif isinstance(callback, EarlyStopping):
                member.early_stopping = callback
        return member

    def _rows(self, data: Node, seed: int) -> ClassificationData:
        key = json.dumps([data, data.get("seed", seed)], sort_keys=True, default=str)
        if key not in self._data:
            rows = build_data(data, run_seed=seed)
            rows.setup()
            self._data[key] = rows
        return self._data[key]
