"""Planted illnesses and healthy runs, from configuration alone, and what is said of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from sklearn.datasets import load_digits, make_classification, make_moons
from sklearn.metrics import log_loss

from backlight import early_warning
from backlight.assemble import assemble
from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.diagnose import diagnosis_of
from backlight.diagnosis.finding import Finding
from backlight.diagnosis.remedies import REMEDIES
from backlight.diagnosis.symptoms import SYMPTOMS
from backlight.examination import Evidence, examine_kin, read_series
from backlight.run_folder import RunFolder
from tests.conftest import Call, TrainedRun
from tests.test_tensorboard import events, events_in

Train = Callable[..., TrainedRun]


QUICK = [
    f"callbacks.{name}=null" for name in ("backprop", "gradients", "evaluation_plots", "decision_boundary")
]


SICK = {
    "underfitting": ["data=circles", "model.hidden=[2]", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60"],
    "label_noise": ["data=moons", "data.label_noise=0.3", "model.hidden=[10]", "optimizer=adam", "trainer.max_epochs=20"],
    "batch_too_small": [
        "data=moons", "data.n_samples=400", "data.batch_size=1", "data.noise=0.5", "optimizer.lr=0.3", "model.hidden=[8]",
        "trainer.max_epochs=12",
    ],
    "learning_rate_too_low": ["experiment=reference", "trainer.max_epochs=100"],
    "vanishing_gradient": ["experiment=vanishing_gradients", "trainer.max_epochs=10"],
    "too_few_epochs": [
        "data=hastie", "data.n_samples=1500", "optimizer.lr=0.1", "model.hidden=[24,24]", "model.activation=tanh",
        "trainer.max_epochs=5",
    ],
    "symmetric_neurons": ["data=moons", "model.init=constant", "trainer.max_epochs=10"],
    "dead_units": [
        "data=circles", "model.activation=relu", "model.hidden=[40,40]", "optimizer.lr=3", "trainer.max_epochs=10",
    ],
    "saturated_neurons": ["data=circles", "model.init=normal", "model.init_scale=100", "trainer.max_epochs=10"],
    "exploding_gradient": [
        "data=moons", "model.activation=relu", "model.hidden=[20,20,20]", "model.init=normal",
        "model.init_scale=3", "optimizer.lr=1e-5",
    ],
    "unscaled_features": ["data=wine", "data.standardize=false", "trainer.max_epochs=30"],
    "diverging": ["data=moons", "optimizer.lr=1000", "trainer.max_epochs=20"],
    "oscillating": ["data=moons", "optimizer=rmsprop", "optimizer.lr=1", "trainer.max_epochs=40"],
    "plateau": ["data=xor", "optimizer.lr=0.01", "optimizer.momentum=0", "trainer.max_epochs=30"],
    "class_imbalance": ["data=blobs", "data.imbalance=0.04", "data.cluster_std=4", "trainer.max_epochs=20"],
    "overfitting": [
        "data.n_samples=120", "data.flip_y=0.3", "data.val_fraction=0.4", "model.hidden=[100]", "optimizer=adam",
        "optimizer.lr=0.03", "trainer.max_epochs=150",
    ],
}  # fmt: skip


HEALTHY = [
    ["experiment=solved"],
    ["experiment=xor", "trainer.max_epochs=50"],
    ["data=moons", "optimizer=adam", "optimizer.lr=0.05", "model.hidden=[16]", "trainer.max_epochs=40"],
    ["data=iris", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60"],
    ["data=digits", "model.hidden=[32]", "optimizer=adamw", "optimizer.lr=0.01", "trainer.max_epochs=20"],
    ["data=breast_cancer", "model.hidden=[8]", "trainer.max_epochs=30"],
    [
        "data=circles",
        "model.activation=tanh",
        "model.hidden=[16,16]",
        "optimizer.lr=0.1",
        "trainer.max_epochs=40",
    ],
    ["data=moons", "model.activation=relu", "model.hidden=[20]", "optimizer.lr=0.1", "trainer.max_epochs=40"],
]


def diagnosis(run: TrainedRun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.summary["diagnosis"]
    return found


@pytest.mark.parametrize("symptom", SICK)
def test_planted_illness_is_the_main_finding(train: Train, symptom: str) -> None:
    run = train(*QUICK, *SICK[symptom])
    found = diagnosis(run)
    assert found, "called healthy"
    assert found[0]["symptom"] == symptom, found
    assert found[0]["evidence"]
    assert found[0]["remedies"]
    words = symptom.replace("_", " ")
    assert f"verdict      {words}" in run.result.out
    assert f"try          {found[0]['remedies'][0]}" in run.result.out


@pytest.mark.parametrize(
    ("symptom", "arguments"),
    [
        # Both learn in spite of how they start.
        ("saturated_neurons", "data=xor model.init=normal model.init_scale=150 model.hidden=[20] seed=7004"),
        (
            "exploding_gradient",
            "data=xor model.activation=gelu model.hidden=[30,30,30,30] model.init=normal model.init_scale=2 "
            "optimizer.lr=1e-8 trainer.max_epochs=100 seed=7003",
        ),
        # Slow, but five epochs settle nothing where the neighbours know every class.
        ("too_few_epochs", "data=spirals optimizer=adam model.hidden=[32] model.activation=tanh trainer.max_epochs=5"),
        ("learning_rate_too_low", "data=moons optimizer=adam optimizer.lr=1e-6 model.hidden=[20]"),
        # It began above the loss of the class shares, and is not yet quite down to it.
        (
            "learning_rate_too_low",
            "experiment=reference optimizer.lr=0.02 model.hidden=[8] trainer.max_epochs=100 seed=143609",
        ),
        # It has not even learned how frequent each class is, which its last bias alone would do.
        (
            "learning_rate_too_low",
            "data=circles data.noise=0.08 data.n_samples=1200 model.hidden=[8,8] optimizer=rmsprop optimizer.lr=1e-6 "
            "trainer.max_epochs=10 seed=872455",
        ),
        # It rests beside a straight border for a moment.
        (
            "too_few_epochs",
            "data=spirals data.n_samples=1200 model.activation=tanh model.hidden=[32] optimizer=adam optimizer.lr=0.003 "
            "trainer.max_epochs=3 seed=844339",
        ),
        # The mean over the steps of an epoch hides how far each is off.
        (
            "oscillating",
            "data=hastie data.n_samples=3000 model.hidden=[12] optimizer=adam optimizer.lr=1 trainer.max_epochs=35 "
            "seed=920124",
        ),
        # A straight border. The few rows held out happen to be easier than the others.
        (
            "underfitting",
            "data=moons model.hidden=[1] optimizer=adam optimizer.lr=0.03 trainer.max_epochs=60 seed=7400",
        ),
        # It knows what the neighbours know; that its loss still falls a little does not hide the labels.
        ("label_noise", "data=wine data.label_noise=0.3 model.hidden=[8] optimizer=adam trainer.max_epochs=20 seed=7001"),
    ],
)  # fmt: skip
def test_planted_illness_is_found_where_others_hide_it(train: Train, symptom: str, arguments: str) -> None:
    assert symptom in [found["symptom"] for found in diagnosis(train(*QUICK, *arguments.split()))]


def test_wrong_labels_are_told_from_neighbours_that_are_lost(train: Train) -> None:
    classes = (
        "data.n_classes=3 model.hidden=[32] model.activation=tanh optimizer=adam trainer.max_epochs=30 seed=1"
    )
    assert diagnosis(train(*QUICK, *classes.split())) == []
    # What a network knows by heart it contradicts nowhere; so others are asked.
    by_heart = train(
        *QUICK, "data=breast_cancer", "data.label_noise=0.25", "model.hidden=[128]", "model.activation=relu",
        "optimizer=adam", "optimizer.lr=0.005", "trainer.max_epochs=80", "seed=1", folder="by_heart",
    )  # fmt: skip
    assert read_series(by_heart.path / "metrics.csv")["train/accuracy"][-1] > 0.9
    assert "label_noise" in [found["symptom"] for found in diagnosis(by_heart)]


def test_neurons_beside_one_that_has_run_away_are_no_copies(train: Train) -> None:
    run = train(
        *QUICK, "data=moons", "data.noise=0.4", "model.activation=relu", "optimizer.lr=30", "model.hidden=[20]",
        "trainer.max_epochs=20",
    )  # fmt: skip
    symptoms = [found["symptom"] for found in diagnosis(run)]
    assert "diverging" in symptoms and "symmetric_neurons" not in symptoms


def test_pixels_of_the_border_are_not_unscaled(train: Train, tmp_path: Path) -> None:
    x, y = load_digits(return_X_y=True)
    border = np.random.default_rng(0).integers(0, 2, (len(x), 10, 10))
    border[:, 1:-1, 1:-1] = 15 * x.reshape(-1, 8, 8)
    border[::50, 0] = 255  # so that half of the others lie close together
    np.savez(tmp_path / "digits.npz", x=border.astype(np.uint8), y=y)
    images = ["data=images", "data.path=digits.npz", "data.size=10", "model.hidden=[32]", "optimizer=adamw"]
    assert diagnosis(train(*QUICK, *images, "trainer.max_epochs=20")) == []


@pytest.mark.parametrize("arguments", HEALTHY, ids=" ".join)
def test_healthy_runs_are_called_so(train: Train, arguments: list[str]) -> None:
    run = train(*QUICK, *arguments)
    assert diagnosis(run) == []
    assert "verdict      healthy" in run.result.out


def test_symptoms_are_told_once_while_a_run_trains(train: Train) -> None:
    sick = train(*QUICK, "data=moons", "model.init=zeros", "trainer.max_epochs=8", folder="sick")
    warnings = re.findall("^warning      (.*)$", sick.result.out, re.MULTILINE)
    assert [line.partition(".")[0] for line in warnings].count("symmetric neurons in layers") == 1
    assert sick.result.out.index("warning      symmetric") < sick.result.out.index("epoch 1/8")
    assert "warning: symmetric neurons in layers.0" in (sick.path / "train.log").read_text()
    assert len(warnings) == len(set(warnings))
    healthy = train(
        *QUICK, "data=moons", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=20", folder="healthy"
    )
    assert "warning" not in healthy.result.out


def test_what_happens_in_training_is_dated_by_when_it_was_first_seen(train: Train) -> None:
    run = train(*QUICK, *SICK["dead_units"], "trainer.max_epochs=20")
    found = diagnosis(run)[0]
    assert found["symptom"] == "dead_units"
    assert found["step"] in [run.summary["steps"] * quarter // 4 for quarter in (1, 2, 3)]


def test_looks_that_take_too_long_are_left_out(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is known to ail it before it trains.
    options = [*QUICK, "data=xor", "optimizer.lr=0.01", "optimizer.momentum=0", "trainer.max_epochs=40"]
    assert "warning      plateau" in train(*options, folder="each").result.out
    monkeypatch.setattr(early_warning, "UNNOTICED", 0.0)
    monkeypatch.setattr(early_warning, "MOST_TIME", 0.0)
    few = train(*options, folder="few")
    assert "warning" not in few.result.out
    assert "verdict      plateau" in few.result.out


def test_a_run_that_fails_is_diagnosed(call: Call, tmp_path: Path) -> None:
    result = call("train", "data=moons", "model.activation=relu", "optimizer.lr=1e38", "hydra.run.dir=run")
    assert result.code == 2
    (finding, *_) = json.loads((tmp_path / "run" / "summary.json").read_text())["diagnosis"]
    assert finding["symptom"] == "non_finite"
    assert finding["severity"] == "fatal"
    assert finding["evidence"]["first_tensor"] in (
        "layers.0.weight",
        "layers.1.weight",
        "layers.1.pre_activation",
    )
    assert result.out.splitlines()[-2].startswith("verdict      non finite")
    assert result.out.splitlines()[-1].startswith(f"try          {finding['remedies'][0]}")
    text = (
        events_in(tmp_path / "run").Tensors("diagnosis/text_summary")[0].tensor_proto.string_val[0].decode()
    )
    assert "non finite" in text and f"`{finding['remedies'][0]}`" in text
    assert call("diagnose", "run=run").out.startswith("non finite")


@pytest.mark.parametrize(
    ("first", "second", "arguments"),
    [
        # In wide layers the few neurons that are not saturated pass on much through their large weights.
        (
            "saturated_neurons",
            "exploding_gradient",
            "data=xor model.activation=tanh model.hidden=[32,32] model.init=normal model.init_scale=40 optimizer=adam "
            "optimizer.lr=0.001 trainer.max_epochs=10",
        ),
        (
            "vanishing_gradient",
            "saturated_neurons",
            "data=digits model.hidden=[40,40,40,40,40,40,40,40] optimizer=adam optimizer.lr=0.008 trainer.max_epochs=12",
        ),
        (
            "unscaled_features",
            "oscillating",
            "data=breast_cancer data.standardize=false model.activation=gelu model.hidden=[12] optimizer=adam "
            "trainer.max_epochs=60 seed=596920",
        ),
    ],
)  # fmt: skip
def test_the_cause_is_named_before_what_follows_from_it(
    train: Train, first: str, second: str, arguments: str
) -> None:
    found = [finding["symptom"] for finding in diagnosis(train(*QUICK, *arguments.split()))]
    assert found[0] == first and second in found, found


def test_a_hopeless_run_stops_and_says_so(train: Train) -> None:
    diverging = ("data=moons", "optimizer.lr=1000", "trainer.max_epochs=30")
    run = train(*QUICK, *diverging, "callbacks.stop_hopeless.patience=4", folder="stopped")
    assert run.summary["epochs"] < 12
    assert f"stopped after epoch {run.summary['epochs']}: train/loss has been above" in run.result.out
    assert diagnosis(run)[0]["symptom"] == "diverging"
    assert train(*QUICK, *diverging, "callbacks.stop_hopeless=null", folder="free").summary["epochs"] == 30


def test_a_bad_start_is_not_hopeless(train: Train) -> None:
    far = ("model.init=normal", "model.init_scale=30", "model.activation=tanh", "optimizer.lr=0.01")
    run = train(*QUICK, "data=moons", *far, "trainer.max_epochs=12", "callbacks.stop_hopeless.patience=1")
    assert run.summary["epochs"] == 12


def test_rows_in_two_parts_are_leakage(train: Train, tmp_path: Path) -> None:
    x, y = make_moons(300, noise=0.2, random_state=0)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(y=y)
    pd.concat([frame, frame.iloc[:60]]).to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "clean.csv", index=False)
    learn = ("data=table", "data.target=y", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=30")
    repeated = train(*learn, "data.path=rows.csv", folder="repeated")
    assert "leakage" in [finding["symptom"] for finding in diagnosis(repeated)]
    clean = train(*learn, "data.path=clean.csv", folder="clean")
    assert "leakage" not in [finding["symptom"] for finding in diagnosis(clean)]


def test_a_number_that_stands_for_none_is_found_and_spread_by_rank(train: Train, tmp_path: Path) -> None:
    x, y = make_classification(600, 8, n_informative=6, n_redundant=0, class_sep=1.5, random_state=0)
    x[np.random.default_rng(0).random(x.shape) < 0.05] = -9999
    pd.DataFrame(x).add_prefix("x").assign(y=y).to_csv(tmp_path / "t.csv", index=False)
    table = [
        "data=table",
        "data.path=t.csv",
        "data.target=y",
        "optimizer=adam",
        "optimizer.lr=0.01",
        "trainer.max_epochs=20",
    ]
    main, *_ = diagnosis(train(*QUICK, *table))
    assert main["symptom"] == "unscaled_features"
    assert main["remedies"][0] == "data.standardize=quantile"
    mended = train(*QUICK, *table, main["remedies"][0], folder="mended")
    assert not diagnosis(mended)
    assert mended.summary["metrics"]["val/accuracy"] > 0.85


def test_diagnose_says_the_same_of_the_folder(train: Train, call: Call) -> None:
    run = train("data=moons", "model.init=constant", "model.hidden=[6]", "trainer.max_epochs=5")
    result = call("diagnose", "run=run")
    assert result.code == 0, result.err
    verdict = next(line for line in run.result.out.splitlines() if line.startswith("verdict"))
    assert result.out.splitlines()[0] == verdict.removeprefix("verdict").strip()
    assert "0, 1, 2, 3, 4, 5" in result.out
    assert "1. model.init=xavier" in result.out
    text = events(run).Tensors("diagnosis/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "symmetric neurons in layers.0" in text
    assert "`model.init=xavier model.init_scale=1.0`" in text


def test_what_is_so_already_is_no_remedy(train: Train) -> None:
    sick = ("data=moons", "model.init=zeros", "trainer.max_epochs=2")
    assert diagnosis(train(*QUICK, *sick, folder="one"))[0]["remedies"] == [
        "model.init=xavier model.init_scale=1.0"
    ]
    deep = (
        "data=moons",
        "model.hidden=[9,9,9,9,9,9,9]",
        "trainer.max_epochs=2",
        "model.init=xavier",
        "model.init_scale=4.0",
    )
    found = diagnosis(train(*QUICK, *deep, "optimizer=adam", "optimizer.lr=0.01", folder="two"))
    given = [remedy for finding in found for remedy in finding["remedies"]]
    assert given
    assert "model.init=xavier model.init_scale=4.0" not in given
    assert "optimizer=adam optimizer.lr=0.01" not in given


def test_what_uses_adam_is_told_at_most_its_usual_rate(train: Train) -> None:
    deep = (*QUICK, "data=moons", "model.hidden=[9,9,9,9,9,9,9]", "trainer.max_epochs=2", "optimizer=adam")
    near, far = (
        diagnosis(train(*deep, f"optimizer.lr={lr}", folder=f"rate{lr}"))[0]["remedies"]
        for lr in (0.02, 0.001)
    )
    first, same, *others = near
    assert first == f"{same} optimizer.lr=0.0033", "tanh bears no more in seven layers"
    assert others and not any("optimizer" in remedy for remedy in [same, *others])
    others = [f"{remedy} optimizer.lr=0.01" for remedy in others]
    assert far == [first, *others, "optimizer.lr=0.01"], "no other change helps at such a rate"


def test_a_run_that_has_hardly_begun_had_too_few_epochs(train: Train) -> None:
    begun = (
        *QUICK,
        "data=hastie",
        "optimizer=adam",
        "model.hidden=[32]",
        "model.activation=tanh",
        "seed=777",
    )
    run = train(*begun, "optimizer.lr=0.02", "trainer.max_epochs=3")
    assert "warning" not in run.result.out
    (found,) = diagnosis(run)
    assert (found["symptom"], found["severity"]) == ("too_few_epochs", "fatal")
    assert found["remedies"][0] == "trainer.max_epochs=30"


def test_an_unfinished_run_is_diagnosed(train: Train, call: Call) -> None:
    run = train("data=moons", "model.init=zeros", "trainer.max_epochs=2")
    (run.path / "summary.json").unlink()
    assert call("diagnose", "run=run").out.startswith("symmetric neurons in layers.0")
    (run.path / "metrics.csv").write_text("epoch,train/loss\n1,high\n")
    refused = call("diagnose", "run=run")
    assert refused.code == 2
    assert "metrics.csv: not the metrics of a run" in refused.err
    for file in ("metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (run.path / file).unlink()
    assert call("diagnose", "run=run").out.startswith("symmetric neurons in layers.0")
    assert "not a run folder" in call("diagnose", "run=nowhere").err


@pytest.mark.slow
@pytest.mark.parametrize(
    "symptom",
    ["learning_rate_too_low", "vanishing_gradient", "saturated_neurons", "plateau", "unscaled_features"],
)
def test_a_remedy_helps(train: Train, symptom: str) -> None:
    sick = train(*QUICK, *SICK[symptom], folder="sick")
    after = []
    for number, remedy in enumerate(diagnosis(sick)[0]["remedies"]):
        treated = train(*QUICK, *SICK[symptom], *remedy.split(), folder=f"treated{number}")
        after.append(treated.summary["metrics"]["train/loss"])
    assert min(after) < 0.8 * sick.summary["metrics"]["train/loss"]


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_every_symptom_has_remedies_that_compose(train: Train, symptom: str, tmp_path: Path) -> None:
    from backlight.diagnose import Diagnosis

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(task_of(compose("train", ["data=moons"])))
        experiment = assemble(config, RunFolder(tmp_path / "run"))
        diagnosis = Diagnosis.of(config, Evidence.of(RunFolder(tmp_path / "run")), experiment.data)
        finding = Finding(symptom, "serious", 0, {})
        remedies = diagnosis.against(finding)
        assert remedies
        for remedy in remedies:
            assert remedy.why.endswith(".")
            assert remedy.source
            changed = plain(task_of(compose("train", ["data=moons", *remedy.overrides.split()])))
            data = assemble(changed, RunFolder(tmp_path / "changed")).data
            after = Diagnosis.of(changed, Evidence.of(RunFolder(tmp_path / "changed")), data)
            told = [again.overrides for again in after.against(finding)]
            assert not remedy.overrides or remedy.overrides not in told, "it is so already"
    assert set(REMEDIES) == set(SYMPTOMS)


def test_a_missed_class_is_seen_in_training_rows_where_none_are_held_out(train: Train, call: Call) -> None:
    found = diagnosis(train(*QUICK, *SICK["class_imbalance"], "data.val_fraction=0"))[0]
    assert found["symptom"] == "class_imbalance"
    said = call("evaluate", "run=run", "part=train").out
    balanced = re.search(r"balanced_accuracy +│ +([\d.]+)", said)
    assert balanced is not None
    assert found["evidence"]["balanced_accuracy"] == pytest.approx(float(balanced[1]), abs=1e-4)


@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("classes", [2, 4])
def test_weighed_classes_are_found_alike(train: Train, classes: int, smoothing: float) -> None:
    """Also the rare ones among frequent ones, and beside soft labels, which are those of all rows."""
    rare = [
        "data=gaussian_quantiles",
        f"data.n_classes={classes}",
        "data.n_samples=4000",
        "data.imbalance=0.05",
    ]
    learner = ["model.hidden=[20]", "optimizer=adam", "optimizer.lr=0.03", "trainer.max_epochs=15"]
    plain = train(*QUICK, *rare, *learner, folder="plain").summary["metrics"]
    weighed = train(
        *QUICK,
        *rare,
        *learner,
        "loss.class_weight=balanced",
        f"loss.label_smoothing={smoothing}",
        folder="weighed",
    ).summary["metrics"]
    assert weighed["test/balanced_accuracy"] > plain["test/balanced_accuracy"] + 0.2


@pytest.mark.parametrize(
    ("optimizer", "sick", "remedy"),
    [
        (
            "optimizer=adam optimizer.lr=0.01",
            "scheduler=exponential scheduler.factor=0.5",
            "scheduler.factor=1.0",
        ),
        (
            "optimizer=adam optimizer.lr=0.01",
            "scheduler=step scheduler.every_n_epochs=3",
            "scheduler.factor=1.0",
        ),
        ("optimizer.lr=0.1", "trainer.gradient_clip_val=0.001", "trainer.gradient_clip_val=null"),
    ],
)
def test_what_makes_steps_short_is_told_to_be_left_out(
    train: Train, optimizer: str, sick: str, remedy: str
) -> None:
    options = [*QUICK, "data=circles", "data.noise=0.1", "model.hidden=[32]", "model.activation=tanh"]
    options += [*optimizer.split(), "trainer.max_epochs=40"]
    found = diagnosis(train(*options, *sick.split(), folder="sick"))
    assert found[0]["symptom"] == "learning_rate_too_low"
    assert found[0]["remedies"][0] == remedy
    assert diagnosis(train(*options, *sick.split(), remedy, folder="cured")) == [], "pasted as it stands"


@pytest.mark.parametrize(
    "schedule",
    [
        "scheduler=cosine scheduler.warmup_epochs=2",
        "scheduler=exponential scheduler.factor=0.5",
        "scheduler=plateau scheduler.patience=0",
        "scheduler=step scheduler.every_n_epochs=1",
        "scheduler=cosine",
    ],
)
def test_what_keeps_the_rate_can_be_pasted_after_any_schedule(train: Train, schedule: str) -> None:
    # Of such a rate the loss goes up and down.
    options = [*QUICK, "data=moons", "optimizer.lr=30", "trainer.max_epochs=6", *schedule.split()]
    told = diagnosis_of(RunFolder(train(*options, folder="sick").path)).seen.settings.constant_rate
    rates = {name: read_series(train(*options, *extra, folder=name).path / "metrics.csv")["lr"]
             for name, extra in {"before": [], "pasted": told.split()}.items()}  # fmt: skip
    assert rates["before"].min() < 30
    np.testing.assert_array_equal(rates["pasted"], 30)


@pytest.mark.parametrize(
    ("patience", "min_delta", "is_hasty"),
    [(0, 0.1, True), (1, 0.3, True), (6, 0.3, True), (10, 0.0, False), (None, 0.0, False)],
)
def test_early_stopping_that_does_not_wait_is_at_fault(
    train: Train, patience: int | None, min_delta: float, *, is_hasty: bool
) -> None:
    options = [*QUICK, "data=circles", "data.noise=0.1", "model.hidden=[32]", "model.activation=tanh"]
    options += ["optimizer=adam", "optimizer.lr=0.005", "trainer.max_epochs=90"]
    if patience is not None:
        stopping = "callbacks.early_stopping"
        options += [
            "callbacks=early_stopping",
            f"{stopping}.patience={patience}",
            f"{stopping}.min_delta={min_delta}",
        ]
    run = train(*options)
    assert (run.summary["epochs"] <= 7) == is_hasty
    found = diagnosis(run)
    assert [finding["symptom"] for finding in found] == (["too_few_epochs"] if is_hasty else [])
    if is_hasty:
        patient = train(*options, *found[0]["remedies"][0].split()[1:], folder="patient")
        assert patient.summary["epochs"] > 20
        assert diagnosis(patient) == []


def test_patience_of_a_few_steps_is_little(train: Train) -> None:
    options = [
        *QUICK,
        "data=spirals",
        "data.n_samples=600",
        "data.batch_size=full",
        "model.hidden=[128]",
        "seed=1",
    ]
    options += ["optimizer=adam", "optimizer.lr=0.03", "callbacks=early_stopping", "trainer.max_epochs=100"]
    run = train(*options)
    assert 10 < run.summary["epochs"] < 100
    assert [finding["symptom"] for finding in diagnosis(run)] == ["too_few_epochs"]


def test_a_wrong_config_of_early_stopping_is_one_sentence(train: Train, call: Call) -> None:
    run = train(*QUICK, "data=moons", "callbacks=early_stopping")
    config = RunFolder(run.path).config
    config.write_text(config.read_text().replace("monitor: val/loss", "monitor: nothing"))
    result = call("diagnose", "run=run")
    assert result.code == 2
    assert "callbacks.early_stopping.monitor=nothing: must be" in result.err


def test_the_base_rate_is_that_of_all_rows_however_few_a_large_network_is_measured_on(tmp_path: Path) -> None:
    large = ["data.n_samples=3000", "data.n_features=1100", "data.weights=[0.7]", "model.hidden=[500]"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(task_of(compose("train", large)))
    data = assemble(config, RunFolder(tmp_path)).data
    data.setup()
    seen = examine_kin([(config, Evidence.of(RunFolder(tmp_path)), data)])[0]
    labels = data.part("train")[1].numpy()[:, 0]
    assert seen.base_loss == pytest.approx(log_loss(labels, np.full(len(labels), labels.mean())))
