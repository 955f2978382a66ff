"""From the config of a run to its objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Literal, TypeVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from backlight.accelerator import Accelerator, require_accelerator
from backlight.callbacks.backprop import BackpropMonitor
from backlight.callbacks.checkpoints import Checkpoints, WholeCheckpointIO
from backlight.callbacks.decision_boundary import DecisionBoundary
from backlight.callbacks.evaluation_plots import EvaluationPlots
from backlight.callbacks.gradients import GradientMonitor
from backlight.callbacks.group_metrics import GroupMetrics
from backlight.callbacks.interrupt import InterruptBetweenBatches
from backlight.callbacks.metrics_file import MetricsFile
from backlight.callbacks.progress import ProgressReport
from backlight.callbacks.stop_hopeless import StopHopeless
from backlight.callbacks.tensorboard import RunDescription
from backlight.checkpoint import read_checkpoint
from backlight.classifier import Backward, Classifier
from backlight.config import build, check, choose, plain
from backlight.data.module import ClassificationData
from backlight.data.source import Part
from backlight.data.sources import SOURCES
from backlight.data.stored import Features
from backlight.errors import BacklightError, nearest
from backlight.loss import BinaryCrossEntropy
from backlight.model import SigmoidMLP
from backlight.optimizers import OPTIMIZERS, SCHEDULES
from backlight.processes import SpawnedDDP, leave_memory_as_it_is
from backlight.ranges import Count, Fraction, Natural, NonNegative, Positive
from backlight.run_folder import RunFolder

Node = dict[str, Any]
Option = TypeVar("Option")


@dataclass(frozen=True)
class Experiment:
    """What a run trains, on what, and who conducts it."""

    data: ClassificationData
    classifier: Classifier
    trainer: Trainer


def assemble(config: Node, folder: RunFolder, resumed: Mapping[str, Any] | None = None) -> Experiment:
    """Build every object of a run; nothing is written yet.

    Args:
        config: the resolved task config.
        folder: where the run writes.
        resumed: the checkpoint of a run that goes on.

    Raises:
        BacklightError: a key nobody reads, a value that does not fit, data that cannot be learned, a
            checkpoint of another network.
    """
    return build(_assemble, config, "", config=config, folder=folder, resumed=resumed)


def _assemble(
    config: Node,
    folder: RunFolder,
    resumed: Mapping[str, Any] | None,
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
) -> Experiment:
    data_module = build_data(data, run_seed=seed)
    data_module.setup()
    learner = build_learner(model, loss, optimizer, scheduler, trainer, data_module)
    classifier = build_classifier(learner)
    if resumed and resumed["architecture"] != classifier.model.architecture:
        raise BacklightError(
            f"{folder.checkpoint('last')}: holds the network {resumed['architecture']}, "
            f"but the config asks for {classifier.model.architecture}"
        )
    writers: list[Callback] = [
        RunDescription(OmegaConf.to_yaml(config)),
        MetricsFile(folder.metrics),
        Checkpoints(folder),
        GroupMetrics(),
        InterruptBetweenBatches(),
    ]
    logger = TensorBoardLogger(
        # Events after the checkpoint are of steps that will be done again: readers drop them.
        folder.tensorboard,
        name="",
        version="",
        default_hp_metric=False,
        purge_step=resumed and resumed["global_step"],
    )
    conductor = build(
        build_trainer,
        trainer_options(trainer),
        "trainer",
        folder=folder,
        callbacks=[*build_callbacks(callbacks, data_module), *writers],
        logger=logger,
    )
    return Experiment(data_module, classifier, conductor)


def build_data(node: Node, run_seed: int) -> ClassificationData:
    """The data module: keys that `ClassificationData` reads are its own, all others the source's."""
    source = choose(SOURCES, node.get("source"), "data.source")
    shared = set(signature(ClassificationData).parameters)
    options = {key: value for key, value in node.items() if key in shared}
    own = {key: value for key, value in node.items() if key not in shared | {"source"}}
    load = partial(build, source, own, "data", seed=node.get("seed", run_seed))
    return build(ClassificationData, options, "data", load=load, run_seed=run_seed)


def rows_of_run(
    folder: RunFolder, checkpoint: str, part: Part
) -> tuple[ClassificationData, Features, Tensor]:
    """The data of a run, and x and y of one of its parts.

    Raises:
        BacklightError: the part has no rows, or the data is not what it was.
    """
    config = plain(folder.read_config())
    data = build_data(config["data"], run_seed=config["seed"])
    data.setup()
    data.load_state_dict(read_checkpoint(folder.checkpoint(checkpoint))["ClassificationData"])
    if not data.has(part):
        raise BacklightError(f"part={part}: the run has no such rows (data.{part}_fraction=0)")
    return data, *data.part(part)


def build_network(node: Node, data: ClassificationData) -> SigmoidMLP:
    """The network that the `model` node describes, with as many inputs and outputs as the data has."""
    options = {key: value for key, value in node.items() if key != "backward"}
    for key in ("hidden", "activation"):  # a default would not be told by the config of the run
        if key not in options:
            raise BacklightError(f"model.{key}: a value is needed")
    return build(SigmoidMLP, options, "model", num_features=data.num_features, num_outputs=data.num_outputs)


@dataclass(frozen=True)
class Learner:
    """A network and how it learns."""

    network: SigmoidMLP
    optimizer: Optimizer
    schedule: LRScheduler | None
    loss: BinaryCrossEntropy
    backward: Backward
    gradient_clip_val: float | None
    cuda_graphs: bool


def build_learner(
    model: Node, loss: Node, optimizer: Node, scheduler: Node, trainer: Node, data: ClassificationData
) -> Learner:
    """What learns data that has been set up."""
    backward, clip = model.get("backward", "equations"), trainer.get("gradient_clip_val")
    check("model.backward", backward, Backward)
    check("trainer.gradient_clip_val", clip, Positive | None)
    graphs = trainer.get("cuda_graphs", False)
    check("trainer.cuda_graphs", graphs, bool)
    check("trainer.max_epochs", trainer.get("max_epochs"), Count)
    network = build_network(model, data)
    algorithm, options = _named(OPTIMIZERS, optimizer, "optimizer")
    if data.is_sparse and optimizer["name"] != "lbfgs":  # which wants all parameters as one vector
        network.gather_inputs()
    descent = build(algorithm, options, "optimizer", parameters=list(network.parameters()))
    decay, options = _named(SCHEDULES, scheduler, "scheduler")
    schedule = build(decay, options, "scheduler", optimizer=descent, epochs=trainer["max_epochs"])
    objective = build(build_loss, loss, "loss", data=data)
    return Learner(network, descent, schedule, objective, backward, clip, graphs)


def build_classifier(learner: Learner) -> Classifier:
    """The LightningModule."""
    return Classifier(
        learner.network,
        learner.optimizer,
        learner.schedule,
        learner.loss,
        backward=learner.backward,
        gradient_clip_val=learner.gradient_clip_val,
        cuda_graphs=learner.cuda_graphs,
    )


def _named(options: Mapping[str, Option], node: Node, key: str) -> tuple[Option, Node]:
    """The option that `node.name` chooses, and what else the node says."""
    chosen = choose(options, node.get("name"), f"{key}.name")
    return chosen, {name: value for name, value in node.items() if name != "name"}


def build_loss(
    data: ClassificationData,
    *,
    label_smoothing: Fraction = 0.0,
    class_weight: list[Positive] | Literal["balanced"] | None = None,
) -> BinaryCrossEntropy:
    """The BCE loss.

    Args:
        data: gives the class frequencies.
        label_smoothing: ε; targets become ε/2 and 1 − ε/2.
        class_weight: factor on the loss of the rows of each class, of two classes the negative one's first;
            `balanced` is all training rows over those of the class, over the number of classes (King & Zeng 2001).
    """
    if class_weight is None:
        return BinaryCrossEntropy(label_smoothing)
    if class_weight == "balanced":
        return BinaryCrossEntropy(label_smoothing, data.class_weight())
    classes = len(data.class_names)
    if len(class_weight) != classes:
        raise ValueError(f"class_weight={class_weight}: must be {classes} numbers, one per class")
    return BinaryCrossEntropy(label_smoothing, torch.tensor(class_weight, dtype=torch.float32))


def early_stopping(
    *,
    monitor: Literal["train/loss", "val/loss"] = "val/loss",
    patience: Natural = 10,
    min_delta: NonNegative = 0.0,
) -> EarlyStopping:
    """Stop when the loss has not improved by `min_delta` for `patience` epochs (Prechelt 1998)."""
    return EarlyStopping(
        monitor, patience=patience, min_delta=min_delta, check_on_train_epoch_end=True, verbose=False
    )


CALLBACKS: dict[str, Callable[..., Callback]] = {
    "progress": ProgressReport,
    "backprop": BackpropMonitor,
    "gradients": GradientMonitor,
    "evaluation_plots": EvaluationPlots,
    "decision_boundary": DecisionBoundary,
    "stop_hopeless": StopHopeless,
    "early_stopping": early_stopping,
}


def build_callbacks(node: Node, data: ClassificationData) -> list[Callback]:
    """The callbacks that the config names; one that is null is off."""
    built = []
    for name, options in node.items():
        if name not in CALLBACKS:
            raise BacklightError(f"callbacks.{name}: no such callback{nearest(name, CALLBACKS)}")
        check(f"callbacks.{name}", options, Node | None)
        if options is not None:
            built.append(build(CALLBACKS[name], options, f"callbacks.{name}"))
            if isinstance(built[-1], EarlyStopping) and "val" in built[-1].monitor and not data.has("val"):
                raise BacklightError(
                    "callbacks.early_stopping.monitor=val/loss: data.val_fraction=0 leaves no rows to validate on; "
                    "allowed: train/loss"
                )
    return built


def trainer_options(node: Node) -> Node:
    """What of the `trainer` node `build_trainer` reads; the rest is for `build_learner`."""
    return {key: value for key, value in node.items() if key not in ("gradient_clip_val", "cuda_graphs")}


def build_trainer(
    folder: RunFolder,
    callbacks: list[Callback],
    logger: TensorBoardLogger,
    *,
    max_epochs: Count = 100,
    accelerator: Accelerator = "auto",
    devices: Count | Literal["auto"] = 1,
    log_every_n_steps: Count = 10,
    deterministic: bool = True,
) -> Trainer:
    """Lightning's Trainer.

    Args:
        max_epochs: passes over the training rows.
        accelerator: `auto` takes a GPU where there is one.
        devices: processes that share each batch, one per device; `auto` takes every GPU.
        log_every_n_steps: optimizer steps between two values of step-wise scalars.
        deterministic: only algorithms that give the same bits each time.

    Raises:
        BacklightError: the accelerator is not there.
    """
    require_accelerator(accelerator, "trainer.accelerator")
    leave_memory_as_it_is()
    try:
        return Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            default_root_dir=folder.path,
            strategy="auto" if devices == 1 else SpawnedDDP(),
            plugins=[WholeCheckpointIO()],
            callbacks=callbacks,
            logger=logger,
            log_every_n_steps=log_every_n_steps,
            # Not True: metrics, which training does not depend on, may use what has no deterministic form.
            deterministic="warn" if deterministic else False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # TrainingBatches shares the rows itself
            enable_progress_bar=False,  # ProgressReport counts epochs instead
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise BacklightError(f"trainer: {' '.join(str(error).split())}") from error
