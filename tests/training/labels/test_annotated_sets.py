from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.labels import annotated_folders as made

from graftsdk.errors import InputError
from graftsdk.training.labels.annotated import AnnotatedSet
from graftsdk.training.labels.expressions import evaluate
from graftsdk.training.labels.pa100k import read_pa100k
from graftsdk.training.labels.peta import read_peta
from graftsdk.training.labels.questions import Question, read_questions
from graftsdk.training.labels.rap import read_rap

NAMES = ("a", "b", "Age18-60", "Skirt&Dress", "ü")
VALUES = np.array(list(product((0, 1, 2), repeat=len(NAMES))), np.int8)
MEANING = {0: False, 1: None, 2: True}
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "'Age18-60'", '"Skirt&Dress"', "ü"]),
    lambda inner: st.one_of(
        inner.map("not {}".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map("({0[0]} {0[1]} {0[2]})".format),
    ),
    max_leaves=8,
)


def possible(text: str, row: np.ndarray) -> set[bool]:
    """Every answer that Python gives when each unknown is taken as False and as True."""
    code = text.replace("'Age18-60'", "c").replace('"Skirt&Dress"', "d")
    choices = [[False, True] if value == 1 else [value == 2] for value in row.tolist()]
    return {bool(eval(code, {}, dict(zip("abcdü", picked, strict=True)))) for picked in product(*choices)}


@given(EXPRESSIONS)
def test_expressions_against_python(text: str) -> None:
    found = evaluate(text, NAMES, VALUES, "label 'x'")
    for row, value in zip(VALUES[::17], found[::17].tolist(), strict=True):
        answers = possible(text, row)
        if value != 1:  # what is certain is true of every case
            assert answers == {value == 2}
        elif 1 not in row.tolist():
            raise AssertionError("unknown without an unknown attribute")


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("a or b", (0, 1), 1),
        ("a or b", (2, 1), 2),
        ("a and b", (0, 1), 0),
        ("a and b", (2, 1), 1),
        ("not a", (1, 0), 1),
        ("not a and not b", (0, 0), 2),
        (" a\n", (2, 0), 2),
    ],
)
def test_three_values(text: str, row: tuple[int, int], value: int) -> None:
    assert evaluate(text, ("a", "b"), np.array([row], np.int8), "x").tolist() == [value]


def test_a_name_alone_needs_no_quotes() -> None:
    np.testing.assert_array_equal(evaluate("Skirt&Dress", NAMES, VALUES, "x"), VALUES[:, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected an expression"),
        ("a or", "expected an expression"),
        ("a or\nb", "expected an expression"),
        ("(" * 500 + "a" + ")" * 500, "expected an expression"),
        ("a or " * 400 + "a", "at most 2000 characters"),
        ("Age18-60 or a", "found 'Age18 - 60'; a name with other signs"),
        ("__import__('os').system('true')", "expected attributes, and, or, not"),
        ("a if b else a", "expected attributes"),
        ("(a := b)", "expected attributes"),
        ("a == b", "expected attributes"),
        ("[a]", "expected attributes"),
        ("True", "expected attributes"),
        ("lambda: a", "expected attributes"),
        ("f'{a}'", "expected attributes"),
        ("skirt", "expected an attribute of the set, found 'skirt'; there are"),
        ("'Skirt&Dresss'", "there are 'Skirt&Dress'"),
    ],
)
def test_no_expression(text: str, message: str) -> None:
    with pytest.raises(InputError, match="^label 'x': .*"):
        evaluate(text, NAMES, VALUES, "label 'x'")
    with pytest.raises(InputError) as caught:
        evaluate(text, NAMES, VALUES, "label 'x'")
    assert message in str(caught.value)


def toy(values: list[list[int]]) -> AnnotatedSet:
    names = tuple(str(index) for index in range(len(values)))
    array = np.array(values, np.int8)
    return AnnotatedSet("toy", tuple(map(Path, names)), names, names, names, names, None, ("a", "b"), array)


@pytest.mark.parametrize(
    ("expressions", "targets"),
    [
        ((None, "a"), [0, 0, 1, 1, -1, -1]),
        (("b", "a"), [-1, 0, 1, -1, -1, -1]),
        (("not a", "a and not b"), [0, 0, 1, -1, -1, -1]),
    ],
)
def test_images_of_no_class_of_two_and_of_nobody_knows(expressions: tuple[str | None, ...], targets: list[int]) -> None:
    images = toy([[0, 0], [0, 2], [2, 0], [2, 2], [1, 0], [1, 2]])
    assert Question("x", ("no", "yes"), expressions).targets(images).tolist() == targets


def test_labels_toml(tmp_path: Path) -> None:
    path = tmp_path / "labels.toml"
    path.write_text(
        '[labels."lady\'s bag"]\npositive = "a"\n[labels.hat]\npositive = "a"\nnegative = "b"\n'
        '[labels.age]\nclasses = { young = "a", "middle age" = "b", old = "not a" }\n',
        encoding="utf-8",
    )
    assert read_questions(path) == (
        Question("lady's bag", ("no", "yes"), (None, "a")),
        Question("hat", ("no", "yes"), ("b", "a")),
        Question("age", ("young", "middle age", "old"), ("a", "b", "not a")),
    )


def test_the_shipped_labels_are_labels() -> None:
    path = Path(__file__).parents[3] / "examples/peta_labels.toml"
    questions = read_questions(path)
    assert len(questions) >= 12
    assert {question.label: len(question.classes) for question in questions}["age"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected tables \[labels.NAME\]"),
        ("labels = 3", r"expected tables \[labels.NAME\]"),
        ("[labels.a]\npositive='a'\n[other]", r"found 'labels', 'other'"),
        ("[labels.a]", "expected positive, positive and negative, or classes, found none"),
        ("[labels.a]\nnegative='a'", "found 'negative'"),
        ("[labels.a]\npositive='a'\nclasses={}", "found 'positive', 'classes'"),
        ("[labels.a]\npositive=3", "expected an expression as a text for 'yes', found 3"),
        ("[labels.a]\nclasses=['a']", "expected classes = "),
        ("[labels.a]\nclasses={a='a'}", "expected 2 to"),
        ("[labels.a]\nclasses={a='a', A='b'}", "different names"),
        ("[labels.a]\nclasses={yes='a', no='b'}", "expected no before yes"),
        ("[labels.a]\nclasses={'../x'='a', no='b'}", "a name that a folder can have, found '../x'"),
        ("[labels.'..']\npositive='a'", "a name that a folder can have, found '..'"),
        ("[labels.'a/b']\npositive='a'", "a name that a folder can have, found 'a/b'"),
        ("[labels.a", "expected a TOML file"),
    ],
)
def test_no_labels_toml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"labels.toml.*{message}"):
        read_questions(path)


def test_peta(tmp_path: Path) -> None:
    found = read_peta(made.peta(tmp_path))
    rows = dict(zip(found.names, zip(found.identities, found.cameras, found.units, strict=True), strict=True))
    assert rows == {
        "CUHK_0002.jpg": ("CUHK/0002.png", "CUHK", "CUHK/block-0"),
        "CUHK_0003.jpg": ("CUHK/0003.png", "CUHK", "CUHK/block-0"),
        "CUHK_0700.jpg": ("CUHK/0700.png", "CUHK", "CUHK/block-0"),
        "PRID_0298_a.jpg": ("PRID/0298", "PRID", "PRID/0298"),
        "PRID_0999_a.jpg": ("PRID/0999", "PRID", "PRID/0999"),
        "VIPeR_000_45_1.jpg": ("VIPeR/000", "VIPeR", "VIPeR/000"),
        "VIPeR_000_45_2.jpg": ("VIPeR/000", "VIPeR", "VIPeR/000"),
        "VIPeR_001_0_1.bmp": ("VIPeR/001", "VIPeR", "VIPeR/001"),
    }
    assert found.attributes == ("carryingBabyBuggy", "hairLong", "personalFemale", "personalMale")
    assert found.values[found.names.index("VIPeR_000_45_2.jpg")].tolist() == [0, 2, 0, 2]
    assert found.notes == (f"1 image without a line in Label.txt, the first {tmp_path / 'PRID/archive/stray.jpg'}",)
    gender = Question("gender", ("female", "male"), ("personalFemale", "personalMale")).targets(found)
    assert gender[found.names.index("PRID_0298_a.jpg")] == -1  # nobody said which


@pytest.mark.parametrize(
    ("count", "left"),
    [(1, ["a0", "b0"]), (2, ["a0", "a2", "b0"]), (3, ["a0", "a1", "a2", "b0"]), (4, None), (5, None)],
)
def test_at_most_so_many_images_of_a_person(count: int, left: list[str] | None) -> None:
    names, rows = ("a3", "b0", "a1", "a0", "a2"), np.arange(5, dtype=np.int8)[:, None] % 3
    whole = AnnotatedSet(
        "x", tuple(map(Path, names)), names, tuple(n[0] for n in names), ("c",) * 5, names, names, ("y",), rows, ("n",)
    )
    found = whole.at_most(count)
    if left is None:
        assert found is whole
        return
    assert sorted(found.names) == left
    told = "image" if len(left) == 4 else "images"
    assert found.notes == ("n", f"{5 - len(left)} {told} of people with more than {count} left out")
    for index, name in enumerate(found.names):
        row = names.index(name)
        assert (found.paths[index], found.identities[index], found.units[index]) == (Path(name), name[0], name)
        assert found.splits is not None and found.splits[index] == name and found.values[index] == rows[row]


def test_pa100k(tmp_path: Path) -> None:
    found = read_pa100k(made.pa100k(tmp_path))
    assert found.attributes == ("Female", "Age18-60", "Skirt&Dress")
    assert [(found.splits or ()).count(split) for split in ("train", "val", "test")] == [19, 10, 9]
    assert found.names[:2] == ("000001.jpg", "000002.jpg") and "000003.jpg" not in found.names
    assert found.values[:2].tolist() == [[0, 0, 2], [2, 2, 0]]
    assert found.notes == ("2 images named and not there, the first '000003.jpg' of train",)


@pytest.mark.parametrize("version", [1, 2])
def test_rap(tmp_path: Path, version: int) -> None:
    found = read_rap(made.rap(tmp_path, version))
    assert found.values.tolist() == [[2 * (row // 2 % 2), (0, 2, 1)[row % 3], 1] for row in range(1, 8)]
    assert found.cameras == tuple(f"CAM0{1 + row // 4 % 2}" for row in range(1, 8))
    people = [found.identities.index(identity) for identity in found.identities]
    assert people == ([0, 1, 1, 3, 3, 5, 5] if version == 1 else [0, 1, 1, 3, 0, 5, 5])
    assert found.notes == ("1 image named and not there",) and found.splits is None


@pytest.mark.parametrize(
    ("read", "damage", "message"),
    [
        (read_peta, None, "expected PETA's layout, SUBSET/archive/Label.txt"),
        (read_pa100k, None, "annotation.mat: expected a MATLAB file"),
        (read_pa100k, {"x": np.zeros(3)}, "expected PA-100K's variable attributes, found"),
        (read_pa100k, b"\0" * 500, "expected a MATLAB file"),
        (read_pa100k, b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "expected a MATLAB file"),
        (read_rap, None, "RAP_annotation.mat: expected a MATLAB file"),
        (read_rap, {"RAP_annotation": np.zeros(3)}, "expected the struct RAP_annotation"),
        (read_rap, {"RAP_annotation": {"x": 3}}, "expected a field name or imagesname"),
        (
            read_rap,
            {"RAP_annotation": {"name": made.cells(["a"]), "attribute": made.cells(["b"]), "label": np.zeros((3, 3))}},
            r"expected a matrix \[1, 1\]",
        ),
    ],
)
def test_other_folders(tmp_path: Path, read: object, damage: object, message: str) -> None:
    from scipy.io import savemat

    path = tmp_path / ("annotation.mat" if read is read_pa100k else "RAP_annotation.mat")
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage is not None:
        savemat(path, damage)
    with pytest.raises(InputError, match=message):
        read(tmp_path)  # type: ignore[operator]


def test_labels_of_another_shape(tmp_path: Path) -> None:
    from scipy.io import loadmat, savemat

    path = made.pa100k(tmp_path) / "annotation.mat"
    mat = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    savemat(path, mat | {"val_label": np.zeros((10, 2))})
    with pytest.raises(InputError, match=r"expected val_label of \[10, 3\], found \[10, 2\]"):
        read_pa100k(tmp_path)


def test_a_label_file_that_is_no_text(tmp_path: Path) -> None:
    (made.peta(tmp_path) / "CUHK/archive/Label.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="Label.txt: expected a readable text in UTF-8"):
        read_peta(tmp_path)
