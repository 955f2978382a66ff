import torch
from hypothesis import given
from hypothesis import strategies as st

from backlight.data.batches import Batches, TrainingBatches


def data(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    return x, -x


@given(
    st.integers(1, 50),
    st.integers(1, 60),
    st.one_of(st.none(), st.integers(0, 2**40)),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_every_row_is_seen_once_by_one_process(
    rows: int, size: int, seed: int | None, processes: int, at_once: int
) -> None:
    x, y = data(rows)
    loaders = [
        TrainingBatches(x, y, size, seed, steps_at_once=at_once, rank=rank, world_size=processes)
        for rank in range(processes)
    ]
    parts = [list(loader) for loader in loaders]
    assert all(len(part) == len(loader) for part, loader in zip(parts, loaders, strict=True))
    batches = [[batch for steps in part for batch in steps] for part in parts]
    assert all(len(share) == loaders[0].num_batches == -(-rows // size) for share in batches)
    seen = torch.cat([batch_x for share in batches for batch_x, _, _ in share])
    assert seen[:, 0].sort().values.tolist() == list(range(rows))
    assert all(torch.equal(batch_x, -batch_y) for share in batches for batch_x, batch_y, _ in share)
    for shares in zip(*batches, strict=True):
        together = sum(len(batch_y) for _, batch_y, _ in shares)
        assert all(mean_size * processes == together for _, _, mean_size in shares)


@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 9), st.one_of(st.none(), st.just(7)))
def test_batches_are_the_same_however_many_come_at_once(
    rows: int, size: int, at_once: int, seed: int | None
) -> None:
    alone = [x for steps in TrainingBatches(*data(rows), size, seed) for x, _, _ in steps]
    together = TrainingBatches(*data(rows), size, seed, steps_at_once=at_once)
    for expected, (x, _, _) in zip(alone, (batch for steps in together for batch in steps), strict=True):
        assert torch.equal(expected, x)


@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 4))
def test_held_out_rows_keep_their_order(rows: int, size: int, processes: int) -> None:
    x, y = data(rows)
    parts = [list(Batches(x, y, size, rank, processes)) for rank in range(processes)]
    assert torch.equal(torch.cat([batch for batch, _ in Batches(x, y, size)]), x)
    assert torch.cat([batch for part in parts for _, batch in part]).sum() == y.sum()


def test_processes_share_the_very_batches_of_one() -> None:
    x, y = data(23)
    alone = TrainingBatches(x, y, 5, seed=3)
    shares = zip(*(TrainingBatches(x, y, 5, 3, rank=rank, world_size=2) for rank in range(2)), strict=True)
    for whole, share in zip(alone, shares, strict=True):
        together = torch.cat([x for steps in share for x, _, _ in steps])
        assert together.sort(dim=0).values.tolist() == next(iter(whole))[0].sort(dim=0).values.tolist()


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[float]:
        batches = TrainingBatches(*data(30), 30, seed)
        batches.sampler.set_epoch(epoch)
        return next(iter(next(iter(batches))))[0][:, 0].tolist()

    assert order(1, 4) == order(1, 4)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    list(TrainingBatches(*data(9), 4, seed=1))
    assert torch.equal(torch.rand(2), expected)
