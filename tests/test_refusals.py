"""Bad input: one sentence that names the key, exit code 2, nothing written over."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import Call, TrainedRun

Train = Callable[..., TrainedRun]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=1"], "optimizer.lrr: no such key; did you mean 'lr'?"),
        (["optimzer.lr=1"], "optimzer: no such key; did you mean 'optimizer'?"),
        (["+optimizer.lrr=1"], "optimizer.lrr: no such option; did you mean 'lr'?"),
        (["+data.noise=1"], "data.noise: no such option"),
        (["+sead=1"], "sead: no such option; did you mean 'seed'?"),
        (["optimizer=adamm"], "optimizer=adamm: no such option; did you mean 'adam'?"),
        (["experiment=nothing"], "experiment=nothing: no such option; allowed: clicks, images"),
        (["data.source=moon"], "data.source=moon: no such option; did you mean 'moons'?"),
        (["optimizer.name=lion"], "optimizer.name=lion: no such option; allowed: sgd"),
        (["+callbacks.gradient={}"], "callbacks.gradient: no such callback; did you mean 'gradients'?"),
        (["callbacks.progress=1"], "callbacks.progress=1: must be a dictionary"),
        (["just words"], "just words: cannot be read; allowed: key=value"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: must be a number"),
        (["optimizer.lr=nan"], "optimizer.lr=nan: must be a finite number"),
        (["optimizer.lr=null"], "optimizer.lr=None: must be a number"),
        (["optimizer.lr=0"], "optimizer.lr=0: must be greater than 0"),
        (["optimizer.momentum=1"], "optimizer.momentum=1: must be less than 1"),
        (
            ["optimizer.nesterov=true", "optimizer.momentum=0"],
            "optimizer.nesterov=true: needs optimizer.momentum",
        ),
        (["scheduler=cosine", "scheduler.warmup_epochs=100"], "scheduler.warmup_epochs=100: must be below"),
        (["trainer.max_epochs=1.5"], "trainer.max_epochs=1.5: must be an integer"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be at least 1"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1: must be greater than 0"),
        (["trainer.cuda_graphs=1"], "trainer.cuda_graphs=1: must be a boolean"),
        (
            ["trainer.cuda_graphs=true", "trainer=cpu"],
            "trainer.cuda_graphs=true: only small networks on an NVIDIA GPU",
        ),
        (["trainer.log_every_n_steps=true"], "trainer.log_every_n_steps=True: must be an integer"),
        (["seed=-1"], "seed=-1: must be at least 0"),
        (["seed=one"], "seed=one: must be an integer"),
        (["model.hidden=[]"], "model.hidden=[]: give at least one width"),
        (["model.hidden=[5,-1]"], "model.hidden=[5, -1]: give at least one width, each 1 or more"),
        (["model.hidden=5"], "model.hidden=5: must be"),
        (["model.hidden=[2.5]"], "model.hidden=[2.5]: must be an integer"),
        (
            ["model.activation=swish"],
            "model.activation=swish: must be 'sigmoid', 'tanh', 'relu', 'gelu' or 'square'",
        ),
        (["model.backward=magic"], "model.backward=magic: must be 'equations' or 'autograd'"),
        (["model.init_scale=0"], "model.init_scale=0: must be a finite number above 0"),
        (["data.batch_size=0"], "data.batch_size=0: must be at least 1 or 'full'"),
        (["data.val_fraction=1"], "data.val_fraction=1: must be less than 1"),
        (["data.val_fraction=0.5", "data.test_fraction=0.5"], "their sum must be below 1"),
        (
            ["data=iris", "data.test_fraction=0.01"],
            "data.test_fraction=0.01: 2 of 150 rows cannot hold every class",
        ),
        (["data.n_informative=1"], "data.n_classes(2) * n_clusters_per_class(2)"),
        (["data.label_noise=2"], "data.label_noise=2: must be less than 1"),
        (["loss.class_weight=[1,2,3]"], "loss.class_weight=[1, 2, 3]: must be 2 numbers, one per class"),
        (["loss.label_smoothing=1"], "loss.label_smoothing=1: must be less than 1"),
        (["callbacks=early_stopping", "data.val_fraction=0"], "callbacks.early_stopping.monitor=val/loss"),
        (["data=table"], "data.path: a value is needed; give data.path=…"),
        (["~model.hidden"], "model.hidden: a value is needed"),
        (["data=table", "data.path=my.csv", "data.target=y"], "my.csv: no such file"),
    ],
)
def test_refuses(call: Call, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = call("train", *arguments, "hydra.run.dir=run")
    assert result.code == 2
    assert message in result.err
    assert result.err.startswith("ERROR: ")
    assert result.err.count("\n") == 1, result.err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_gpu_where_there_is_none(call: Call) -> None:
    result = call("train", "trainer=gpu")
    assert result.code == 2
    assert "trainer.accelerator=gpu: this machine has none; allowed here: auto, cpu" in result.err


def test_folder_that_holds_a_run_is_left_as_it_is(train: Train, call: Call) -> None:
    run = train("data=moons")
    before = {
        path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.suffix != ".log"
    }
    result = call("train", "hydra.run.dir=run")
    assert result.code == 2
    assert "already holds a run" in result.err
    assert before == {path: path.read_bytes() for path in before}


def test_folder_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("train", "hydra.run.dir=file/run")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "file" in result.err
    assert "Not a directory" in result.err


@pytest.mark.parametrize("name", ["evaluate", "predict", "export"])
def test_checkpoints_that_cannot_be_used(train: Train, call: Call, tmp_path: Path, name: str) -> None:
    run = train("data=moons")
    (tmp_path / "new.csv").write_text("x0,x1\n1,2\n")
    more = {"predict": ["input=new.csv", "output=out.csv"], "export": ["format=torch_export"]}.get(name, [])
    checkpoint = run.path / "checkpoints" / "best.ckpt"
    whole = checkpoint.read_bytes()

    def refused(message: str) -> None:
        result = call(name, "run=run", *more)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1
        assert not (tmp_path / "out.csv").exists()

    checkpoint.write_bytes(whole[: len(whole) // 2])
    refused("best.ckpt: cannot be read as a checkpoint")
    checkpoint.write_bytes(b"")
    refused("best.ckpt: cannot be read as a checkpoint")
    torch.save({"something": "else"}, checkpoint)
    refused("best.ckpt: not a checkpoint of Backlight")
    content = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(content | {"architecture": content["architecture"] | {"hidden": [9]}}, checkpoint)
    refused("best.ckpt: its weights do not fit its own architecture")
    checkpoint.unlink()
    refused("best.ckpt: no such checkpoint")


def test_checkpoints_are_never_executed(train: Train, call: Call, tmp_path: Path) -> None:
    import pickle

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    run = train("data=moons")
    for checkpoint in ("best", "last"):
        (run.path / "checkpoints" / f"{checkpoint}.ckpt").write_bytes(pickle.dumps(Payload()))
    assert call("evaluate", "run=run").code == 2
    assert call("train", "resume=run", "trainer.max_epochs=5").code == 2
    assert not (tmp_path / "executed").exists()
