"""A sweep does not wait for those that learn nothing."""

import json
from pathlib import Path

from tests.conftest import Call
from tests.sweep.test_population import table


def test_hopeless_trials_end_and_the_others_do_not_notice(call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", "data=moons", "optimizer.lr=0.3,1e-6,0.1,1e-5", "trainer.max_epochs=20"]
    assert call(*command, "hydra.sweep.dir=all").code == 0
    assert call(*command, "sweep.stop_sick=true", "hydra.sweep.dir=some").code == 0
    whole, some = (table(tmp_path / name / "leaderboard.csv") for name in ("all", "some"))
    epochs = [
        json.loads((tmp_path / "some" / str(number) / "summary.json").read_text())["epochs"]
        for number in range(4)
    ]
    assert epochs == [20, 5, 20, 5]
    for number in (0, 2):
        assert some[number]["test/loss"] == whole[number]["test/loss"]
    assert some[1]["verdict"].startswith("learning rate too low")
    assert "(sweep.stop_sick)" in (tmp_path / "some/1/train.log").read_text()
