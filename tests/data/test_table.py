"""Tables as people have them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from sklearn.preprocessing import QuantileTransformer

from backlight.assemble import build_data
from backlight.backprop.sparse import SparseRows
from backlight.data.encoder import FeatureEncoder
from backlight.data.module import ClassificationData
from backlight.data.table import read_table, table
from backlight.errors import BacklightError
from tests.data import files


def frame(rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": random.integers(18, 80, rows),
            "income": np.where(np.arange(rows) % 7 == 0, np.nan, random.normal(3e4, 1e4, rows)),
            "town": np.array(["Ulm", "Bonn", None])[np.arange(rows) % 3],
            "member": np.arange(rows) % 4 == 0,
            "bought": np.array(["yes", "no"])[np.arange(rows) % 2],
        }
    )


@pytest.fixture(params=["csv", "parquet", "semicolons"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "parquet":
        frame().to_parquet(tmp_path / "t.parquet")
        return tmp_path / "t.parquet"
    frame().to_csv(tmp_path / "t.csv", index=False, sep=";" if request.param == "semicolons" else ",")
    return tmp_path / "t.csv"


def module(path: Path, **options: object) -> ClassificationData:
    data = build_data(
        {"source": "table", "path": str(path), "target": "bought", "seed": 0, **options}, run_seed=0
    )
    data.setup()
    return data


def test_columns_become_features(path: Path) -> None:
    data = module(path)
    assert data.feature_names == [
        "age", "income", "income is missing", "town=Bonn", "town=Ulm", "member=False", "member=True",
    ]  # fmt: skip
    assert data.class_names == ["no", "yes"]
    assert data.num_outputs == 1
    x, y = data.part("train")
    assert len(x) + len(data.part("val")[0]) + len(data.part("test")[0]) == 60
    assert x[:, :2].mean(dim=0).abs().max() < 1e-5
    assert x[:, :2].std(dim=0, unbiased=False).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert set(x[:, 2:].unique().tolist()) == {0, 1}
    assert set(y.unique().tolist()) == {0, 1}


def test_scaling_is_fitted_on_training_rows_only(tmp_path: Path) -> None:
    rows = frame()
    rows.to_csv(tmp_path / "t.csv", index=False)
    data = module(tmp_path / "t.csv", val_fraction=0.0, test_fraction=0.5, stratify=False)
    from sklearn.model_selection import train_test_split

    train, _ = train_test_split(rows, test_size=0.5, random_state=0)
    assert data.encoder.mean[0] == pytest.approx(train["age"].mean())
    assert data.encoder.scale[0] == pytest.approx(train["age"].std(ddof=0))
    assert data.encoder.mean[1] == pytest.approx(train["income"].fillna(train["income"].median()).mean())


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([3, 1, 2], ["1", "2", "3"]),
        ([10, 9, 100], ["9", "10", "100"]),
        ([0.0, 1.0, 0.0], ["0", "1"]),
        (["b", "a", "a"], ["a", "b"]),
        ([True, False, True], ["False", "True"]),
        ([0.5, 1.5, 0.5], ["0.5", "1.5"]),
        (["ja", "nein", "vielleicht"], ["ja", "nein", "vielleicht"]),
    ],
)
def test_any_type_of_label(tmp_path: Path, labels: list[object], names: list[str]) -> None:
    pd.DataFrame({"x": range(len(labels)), "y": labels}).to_csv(tmp_path / "t.csv", index=False)
    source = table(0, path=str(tmp_path / "t.csv"), target="y")
    assert source.class_names == names
    assert [source.class_names[label] for label in source.labels] == [
        str(int(label)) if isinstance(label, float) and label.is_integer() else str(label) for label in labels
    ]


def test_options_drop_and_categorical(path: Path) -> None:
    data = module(path, drop=["town", "member"], categorical=["age"])
    assert not any(name.startswith(("town", "member")) for name in data.feature_names)
    assert any(name.startswith("age=") for name in data.feature_names)
    assert "age" not in data.feature_names


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=3, max_size=30))
def test_encoder_survives_its_state_and_any_missing_pattern(values: list[float | None]) -> None:
    rows = pd.DataFrame({"a": [1.0, *values], "b": ["u", *("v" if value else None for value in values)]})
    encoder = FeatureEncoder.fit(rows, ["a", "b"], standardize=True)
    again = FeatureEncoder.from_state_dict(encoder.state_dict())
    assert again == encoder
    encoded = again.transform(rows)
    assert np.isfinite(encoded).all()
    assert encoded.shape == (len(rows), len(encoder.feature_names))


@given(st.integers(0, 1000), st.sampled_from([1, 3, 10]))
def test_numbers_are_spread_by_their_rank(seed: int, different: int) -> None:
    random = np.random.default_rng(seed)
    values = np.exp(5 * random.standard_normal(100)).round(different)
    values[: 30 * (different < 10)] = -999  # many the same
    scores = norm.ppf((rankdata(values) - 0.5) / 100)
    encoder = FeatureEncoder.fit(pd.DataFrame({"a": values}), ["a"], standardize="quantile")
    assert FeatureEncoder.from_state_dict(encoder.state_dict()) == encoder
    new = np.append(values, [values.min() - 1, values.max() + 1])  # beyond all that is known
    expected = np.append(scores, [scores.min(), scores.max()])
    expected = (expected - scores.mean()) / scores.std()
    found = encoder.transform(pd.DataFrame({"a": new}))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)
    as_array = FeatureEncoder.fit(values[:, None], ["a"], standardize="quantile")
    np.testing.assert_allclose(as_array.transform(new[:, None]), found, atol=1e-6)
    back = encoder.gathered(found * np.array(encoder.scale) + np.array(encoder.mean))
    # Beside a value that lies far off, the last bit of a score of float32 is many a number.
    np.testing.assert_allclose(encoder.transform(pd.DataFrame({"a": back[:, 0]})), found, atol=1e-5)


def test_many_numbers_are_spread_as_scikit_learn_does() -> None:
    values = np.random.default_rng(0).lognormal(sigma=3, size=(4000, 1))
    encoder = FeatureEncoder.fit(values, ["a"], standardize="quantile")
    theirs = QuantileTransformer(output_distribution="normal").fit_transform(values)
    inner = np.abs(theirs) < 2
    assert inner.mean() > 0.9
    np.testing.assert_allclose(encoder.transform(values)[inner], theirs[inner], atol=0.05)


def test_what_is_no_number_is_not_spread(path: Path) -> None:
    data = module(path, standardize="quantile")
    x = data.part("train")[0]
    assert isinstance(x, torch.Tensor)
    indicators = [place for place, name in enumerate(data.feature_names) if name not in ("age", "income")]
    assert set(x[:, indicators].unique().tolist()) == {0.0, 1.0}
    numbers = x[:, [data.feature_names.index(name) for name in ("age", "income")]]
    torch.testing.assert_close(numbers.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)


def test_chunks_encode_as_the_whole(path: Path) -> None:
    encoder = module(path).encoder
    whole = encoder.transform(pd.concat(read_table(path)))
    parts = np.concatenate([encoder.transform(chunk) for chunk in read_table(path, rows_per_chunk=7)])
    assert np.array_equal(whole, parts)


def test_unseen_category_and_missing_value_are_all_zeros(path: Path) -> None:
    encoder = module(path).encoder
    rows = pd.DataFrame(
        {"age": [20, 20], "income": [1.0, 1.0], "town": ["Rom", None], "member": [True, True]}
    )
    assert encoder.transform(rows)[:, 3:5].tolist() == [[0, 0], [0, 0]]


def test_large_offset_keeps_its_digits(tmp_path: Path) -> None:
    pd.DataFrame({"x": 1e9 + np.arange(40), "bought": np.arange(40) % 2}).to_csv(
        tmp_path / "t.csv", index=False
    )
    x, _ = module(tmp_path / "t.csv").part("train")
    assert len(x.unique()) == len(x)


Write = Callable[[Path], None]


def write(text: str) -> Write:
    return lambda path: path.write_text(text) and None


ROWS = "\n".join(f"{row},{row % 2}" for row in range(20))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "no such file"),
        ("", {}, "the file is empty"),
        ("a,bought\n", {}, "a header but no rows"),
        (f"a,b\n{ROWS}", {}, "data.target=bought: no such column .* it has a, b"),
        ("a,bought\n" + "1,x\n" * 20, {}, "every row is 'x'"),
        ("a,bought\n1,x\n2,\n3,y", {}, "1 of 3 rows have no label .* data row 2"),
        (f"bought\n{ROWS.replace(',', '')}", {}, "no column is left"),
        (f"a,a,bought\n{ROWS}", {}, "two columns are called 'a'"),
        (f"a,bought\n{ROWS}\n1,2,3,4", {}, "not a readable table"),
        (f"a,bought\n{ROWS.replace('17', '1O7')}", {}, r"column 'a' holds '1O7' .*data.categorical=\['a'\]"),
        (f"a,bought\n{ROWS}", {"drop": ["z"]}, "data.drop=z: no such column"),
        ("a,bought\n" + ROWS.replace("\n7,", "\ninf,"), {}, "allowed: finite"),
        (
            "a,bought\n" + "\n".join(f"word{row},{row % 2}" for row in range(300)),
            {},
            r"column 'a' has \d+ different texts .* data.drop=\['a'\]",
        ),
        ("a,bought\n" + "\n".join(f"{row},{row / 7}" for row in range(50)), {}, "look like a quantity"),
        ("a,e,bought\n" + "\n".join(f"{row},,{row % 2}" for row in range(20)), {}, "column 'e' is empty"),
    ],
)
def test_refuses(tmp_path: Path, content: str | None, options: dict[str, object], message: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BacklightError, match=message):
        module(path, **options)


def test_refuses_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,bought\n\xff\xfe\x00,1\n")
    with pytest.raises(BacklightError, match="not UTF-8"):
        module(tmp_path / "t.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BacklightError, match="not a readable table"):
        module(tmp_path / "t.parquet")
    lengths = pd.DataFrame({"for": pd.to_timedelta(range(20), unit="s"), "bought": np.arange(20) % 2})
    lengths.to_parquet(tmp_path / "d.parquet")
    with pytest.raises(BacklightError, match="'for' holds durations"):
        module(tmp_path / "d.parquet")


def test_prediction_rows_that_do_not_fit_are_refused(path: Path) -> None:
    encoder = module(path).encoder
    good = pd.DataFrame({"age": [20], "income": [1.0], "town": ["Ulm"], "member": [True]})
    with pytest.raises(BacklightError, match="column 'town' is absent; the model needs age, income"):
        encoder.transform(good.drop(columns="town"))
    with pytest.raises(BacklightError, match="'age' was numeric in training but holds 'old'"):
        encoder.transform(good.assign(age="old"))


def sales(rows: int = 240) -> pd.DataFrame:
    """Who buys depends on the hour, on the shop, and on nothing else."""
    random = np.random.default_rng(1)
    when = pd.Timestamp("2023-01-01") + pd.to_timedelta(random.integers(0, 500 * 24, rows), unit="h")
    shop = random.integers(0, 40, rows)
    late = (when.hour >= 12) ^ (shop % 2 == 0)
    return pd.DataFrame(
        {
            "when": when,
            "shop": [f"shop {number}" for number in shop],
            "client": [f"c{number}" for number in random.integers(0, 30, rows)],
            "bought": np.where(late, "yes", "no"),
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
def test_dates_become_features(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    frame = sales()
    frame.loc[3, "when"] = pd.NaT
    frame.to_csv(path, index=False) if suffix == "csv" else getattr(frame, f"to_{suffix}")(path)
    data = module(path, drop=["shop", "client"], standardize=False, val_fraction=0, test_fraction=0.2)
    assert data.feature_names == [
        "when", "when month sine", "when month cosine", "when weekday sine", "when weekday cosine",
        "when hour sine", "when hour cosine", "when is missing",
    ]  # fmt: skip
    new = pd.DataFrame({"when": ["2024-04-01 06:00:00", None]})  # a Monday
    monday, missing = data.encoder.transform(new)
    assert monday[0] == pytest.approx(19814.25)
    assert monday[1:] == pytest.approx([1, 0, 0, 1, 1, 0, 0], abs=1e-4)
    assert missing[1:] == pytest.approx([0, 0, 0, 0, 0, 0, 1])
    with pytest.raises(BacklightError, match="'when' held dates in training but holds 'soon'"):
        data.encoder.transform(pd.DataFrame({"when": ["soon"]}))


@pytest.mark.parametrize("many", ["embed", "hash"])
def test_columns_of_many_categories(tmp_path: Path, many: str) -> None:
    sales().to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BacklightError, match=r"'shop' has 40 different texts .* data.many_categories=embed"):
        module(tmp_path / "t.csv", max_categories=20)
    data = module(tmp_path / "t.csv", max_categories=20, many_categories=many, buckets=64, drop=["client"])
    assert data.is_sparse
    names = data.feature_names
    assert names[0] == "when"
    x = data.encoder.transform(sales(3).assign(shop=["shop 7", "a new one", None]))
    assert isinstance(x, SparseRows)
    of_shops = x.to_dense()[:, 7:]
    known = {"embed": [1, 0, 0], "hash": [1, 1, 0]}[many]
    assert of_shops.sum(dim=1).tolist() == known
    if many == "embed":
        assert names[7 + int(of_shops[0].argmax())] == "shop=shop 7"
    else:
        assert names[-1] == "shop #63"
    state = data.encoder.state_dict()
    again = type(data.encoder).from_state_dict(state)
    assert again.is_close(data.encoder)


def test_groups_and_times_decide_what_is_held_out(tmp_path: Path) -> None:
    sales().to_csv(tmp_path / "t.csv", index=False)
    grouped = module(tmp_path / "t.csv", group="client")
    assert not any("client" in name for name in grouped.feature_names)
    groups = [set(grouped.groups(part)) for part in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sum(map(len, groups)) == 30
    timed = module(tmp_path / "t.csv", time="when", drop=["client"])
    assert not any("when" in name for name in timed.feature_names)
    last = sales().sort_values("when", kind="stable")["bought"].tail(36)
    assert timed.part("test")[1].mean() == pytest.approx((last == "yes").mean())
    with pytest.raises(BacklightError, match=r"data.time=shop: row 1 holds 'shop"):
        module(tmp_path / "t.csv", time="shop")


def test_openml_from_its_cache(tmp_path: Path) -> None:
    files.openml(tmp_path)
    data = build_data({"source": "openml", "name": "tea", "cache": str(tmp_path), "seed": 0}, run_seed=0)
    data.setup()
    assert data.class_names == ["no", "yes"]
    assert data.feature_names == ["warmth", "leaf=black", "leaf=green"]
    assert sum(len(data.part(part)[1]) for part in ("train", "val", "test")) == 40  # type: ignore[arg-type]
    with pytest.raises(BacklightError, match=r"data.name=coffee: cannot be had from OpenML"):
        build_data({"source": "openml", "name": "coffee", "cache": str(tmp_path)}, run_seed=0).setup()
