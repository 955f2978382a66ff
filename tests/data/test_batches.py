import torch
from hypothesis import given
from hypothesis import strategies as st

from backlight.data.batches import Batches


def data(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    return x, -x


@given(st.integers(1, 50), st.integers(1, 60), st.one_of(st.none(), st.integers(0, 2**40)), st.integers(1, 4))
def test_every_row_is_seen_once_by_one_process(
    rows: int, size: int, seed: int | None, processes: int
) -> None:
    x, y = data(rows)
    parts = [list(Batches(x, y, size, seed, rank, processes)) for rank in range(processes)]
    assert all(len(part) == len(Batches(x, y, size)) for part in parts)
    seen = torch.cat([batch_x for part in parts for batch_x, _ in part])
    assert seen[:, 0].sort().values.tolist() == list(range(rows))
    assert all(torch.equal(batch_x, -batch_y) for part in parts for batch_x, batch_y in part)


def test_processes_share_the_very_batches_of_one() -> None:
    x, y = data(23)
    alone = list(Batches(x, y, 5, seed=3))
    shares = zip(*(Batches(x, y, 5, 3, rank, 2) for rank in range(2)), strict=True)
    for (whole, _), share in zip(alone, shares, strict=True):
        together = torch.cat([batch_x for batch_x, _ in share])
        assert together.sort(dim=0).values.tolist() == whole.sort(dim=0).values.tolist()


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[float]:
        batches = Batches(*data(30), 30, seed)
        batches.sampler.set_epoch(epoch)
        return next(iter(batches))[0][:, 0].tolist()

    assert order(1, 4) == order(1, 4)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    list(Batches(*data(9), 4, seed=1))
    assert torch.equal(torch.rand(2), expected)
