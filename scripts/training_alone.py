"""Training and nothing else, of the grid of `benchmark.py sweep`: no start-up, no run folders, no scores."""

import copy
import time
import warnings

import torch
from hydra import compose, initialize_config_dir
from joblib import Parallel, delayed
from sklearn.datasets import make_classification
from sklearn.neural_network import MLPClassifier

from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.population.member import Member
from backlight.population.training import Population
from backlight.processes import forked_map
from backlight.sweep.members import MemberBuilder

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)
SEEDS = 100
SETTINGS = [
    "data.n_samples=1000", "data.val_fraction=0", "data.test_fraction=0.2", "data.batch_size=32", "optimizer=sgd",
    "optimizer.momentum=0", "trainer.max_epochs=20",
]  # fmt: skip


def population_seconds() -> float:
    """Wall time of our training, as a sweep does it: one population for each core."""
    members, cores = _members(), torch.get_num_threads()

    def train(share: list[Member]) -> None:
        for _ in Population(torch.device("cpu"), len(share)).train(share):
            pass

    size = -(-len(members) // cores)
    started = time.perf_counter()
    forked_map(train, [members[start : start + size] for start in range(0, len(members), size)], cores)
    return time.perf_counter() - started


def scikit_learn_seconds() -> float:
    """The same of as many `MLPClassifier.fit`, on every core, by workers that are there already."""
    x, y = make_classification(800, 10, n_informative=5, random_state=0)

    def fit(lr: float, seed: int) -> None:
        warnings.simplefilter("ignore")
        MLPClassifier(
            [5], activation="logistic", solver="sgd", momentum=0, alpha=0, batch_size=32, max_iter=20,
            n_iter_no_change=1000, learning_rate_init=lr, random_state=seed,
        ).fit(x, y)  # fmt: skip

    with Parallel(n_jobs=-1) as workers:
        workers(delayed(fit)(0.1, seed) for seed in range(8))
        started = time.perf_counter()
        workers(delayed(fit)(lr, seed) for seed in range(SEEDS) for lr in RATES)
        return time.perf_counter() - started


def _members() -> list[Member]:
    builder = MemberBuilder()
    members = []
    for seed in range(SEEDS):
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            node = plain(task_of(compose("train", [*SETTINGS, f"seed={seed}"])))
        for lr in RATES:
            own = copy.deepcopy(node)
            own["optimizer"]["lr"] = lr
            member = builder.member(own)
            assert member is not None
            members.append(member)
    return members
