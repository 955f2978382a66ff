"""The experiments on real data beside what their users would otherwise take, on the same rows."""

import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from backlight.assemble import assemble
from backlight.backprop.sparse import Rows, SparseRows
from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.data.module import ClassificationData
from backlight.data.source import Part
from backlight.probabilities import labels_of
from backlight.run_folder import RunFolder

Trial = Callable[[int], Any]
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def logistic_regressions() -> dict[str, Trial]:
    """Logistic regression, its C to be tuned."""
    return {f"C={c:g}": partial(_logistic_regression, c) for c in STRENGTHS}


def networks(**options: Sequence[Any]) -> dict[str, Trial]:
    """scikit-learn's own multilayer perceptron: as many settings as the sweep of ours had, and of the same kind."""
    grid = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    return {
        " ".join(f"{name}={value}" for name, value in given.items()): partial(_network, given)
        for given in grid
    }


def _logistic_regression(c: float, seed: int) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=300)


def _network(options: Mapping[str, Any], seed: int) -> MLPClassifier:
    return MLPClassifier(**options, max_iter=60, random_state=seed)


@dataclass(frozen=True)
class Use:
    """An experiment, its metric, the peers, and how much better than the best of them ours shall be.

    Attributes:
        experiment: overrides.
        metric: of the test rows.
        peers: per name, the settings among which the validation rows of seed 0 choose, as they did for ours.
        least: what it shall reach in any case.
        margin: by which it shall be above the best peer.
    """

    experiment: list[str]
    metric: str
    peers: dict[str, dict[str, Trial]]
    least: float
    margin: float = 0.0


def uses() -> dict[str, Use]:
    """Every use by its name."""
    logistic = logistic_regressions()
    activations, rates, decays, batches = ("logistic", "relu"), (1e-3, 3e-3), (1e-4, 1e-2, 1.0), (32, 128)
    of_images, of_speech = (
        networks(
            hidden_layer_sizes=widths, activation=activations, learning_rate_init=rates, alpha=decays,
            batch_size=batches,
        )
        for widths in ((256, 512), (128, 256))
    )  # fmt: skip
    of_table = networks(
        hidden_layer_sizes=((64, 32), (64, 64), (128, 64), (64, 64, 32)), learning_rate_init=rates,
        alpha=(1e-4, 1e-2, 1e-1, 1.0),
    )  # fmt: skip
    return {
        "images": Use(["experiment=images"], "accuracy", {"MLPClassifier": of_images}, 0.93),
        "text": Use(["experiment=text"], "accuracy", {"LogisticRegression": logistic}, 0.0),
        "tagging": Use(["experiment=tagging"], "accuracy", {"LogisticRegression": logistic}, 0.90),
        "speech": Use(["experiment=speech"], "accuracy", {"MLPClassifier": of_speech}, 0.98),
        # One weight per user and one per film, and nothing else: the bias model.
        "ratings": Use(["experiment=ratings"], "auroc", {"user and item biases": logistic}, 0.0, 0.02),
        "clicks": Use(["experiment=clicks"], "hit_rate_10", {}, 0.60),
        "table": Use(
            ["experiment=table"], "auroc", {"LogisticRegression": logistic, "MLPClassifier": of_table}, 0.905
        ),
    }


@dataclass(frozen=True)
class Score:
    """What came of one fit: the metric, and the seconds of the fit."""

    value: float
    seconds: float


def trained(use: Use, seed: int) -> tuple[Score, ClassificationData]:
    """Train and test the experiment as a run does, and give its data."""
    with task([*use.experiment, f"seed={seed}"]) as config, tempfile.TemporaryDirectory() as folder:
        experiment = assemble(config, RunFolder(folder))
        started = time.perf_counter()
        experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
        seconds = time.perf_counter() - started
        best = RunFolder(folder).checkpoint("best")
        (values,) = experiment.trainer.test(
            experiment.classifier,
            datamodule=experiment.data,
            ckpt_path=best,
            verbose=False,
            weights_only=True,
        )
    return Score(values[f"test/{use.metric}"], seconds), experiment.data


def tuned(trials: dict[str, Trial], data: ClassificationData, metric: str) -> str:
    """Of the trials the one that is best on the validation rows."""
    return max(trials, key=lambda name: fitted(trials[name], data, metric, 0, "val").value)


def fitted(build: Trial, data: ClassificationData, metric: str, seed: int, part: Part = "test") -> Score:
    """Fit a peer on the training rows, as ours."""
    model = build(seed)
    (x, y), held_out = arrays(data, "train"), arrays(data, part)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    seconds = time.perf_counter() - started
    return Score(judge(model, *held_out, metric), seconds)


def judge(model: Any, x: Any, y: Any, metric: str) -> float:
    """The metric of a model of scikit-learn."""
    if metric == "accuracy":
        return float(model.score(x, y))
    return float(roc_auc_score(y, model.predict_proba(x)[:, 1]))


def arrays(data: ClassificationData, part: Part) -> tuple[Any, Any]:
    """X and class numbers as scikit-learn takes them."""
    x, y = data.part(part)
    return as_array(x[:]), labels_of(y).numpy()


def as_array(x: Rows) -> Any:
    """A SciPy matrix of sparse rows, else an array."""
    if not isinstance(x, SparseRows):
        return x.numpy()
    return csr_matrix((x.values.numpy(), x.columns.numpy(), x.starts.numpy()), shape=x.shape)


@contextmanager
def task(overrides: list[str]) -> Iterator[dict[str, Any]]:
    """The config of a run with these overrides, without pictures."""
    quiet = ["callbacks.progress=null", "callbacks.evaluation_plots=null", "callbacks.decision_boundary=null"]
    with initialize_config_dir(str(config_folder()), version_base=None):
        yield plain(task_of(compose("train", [*overrides, *quiet])))


def is_there(use: Use) -> bool:
    """Whether the data of the experiment has been brought by `get_data.py`."""
    with task(use.experiment) as config:
        return Path(config["data"]["path"]).exists()
