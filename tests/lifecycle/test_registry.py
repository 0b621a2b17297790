from __future__ import annotations

from pathlib import Path

import pytest
from lifecycle.small_registry import TOML, write_label, write_registry

from graftsdk.errors import InputError
from graftsdk.lifecycle import registry
from graftsdk.lifecycle.registry import read_registry


def test_an_empty_file_is_a_registry_of_all_sub_datasets(tmp_path: Path) -> None:
    path = write_registry(tmp_path, ("hat", "bag"), "")
    (tmp_path / "notes").mkdir()
    for found in (read_registry(path), read_registry(tmp_path)):
        assert list(found.labels) == ["bag", "hat"]
        assert (found.plan, found.trunk) == (tmp_path / "engine.plan", tmp_path / "trunk.safetensors")
        assert found.branch("hat") == tmp_path / "branches" / "hat.safetensors"
        assert (found.segmenter, found.start, dict(found.network), dict(found.training)) == (None, None, {}, {})
        assert found.labels["hat"].options.tap == "auto"
        assert found.labels["hat"].tolerance == 0.01


def test_everything_that_it_can_say(tmp_path: Path) -> None:
    for label in ("hat", "Schirm ü"):
        write_label(tmp_path, label)
    write_label(tmp_path, "gender", ("female", "male"))
    path = tmp_path / "graft.toml"
    path.write_text(
        """
        plan = "out/lift.plan"
        branches = "grafts"
        segmenter = "demo"
        [trunk]
        path = "stock.safetensors"
        arch = "resnet18"
        width = 1
        size = [160, 80]
        minutes = 1.5
        device = "cpu"
        [defaults]
        tap = 6
        tolerance = 0.05
        epochs = 3
        [labels."Schirm ü"]
        tap = 8
        pooling = "bilinear"
        width = 0.25
        tolerance = 0
        [labels.gender]
        classes = ["female", "male"]
        """,
        encoding="utf-8",
    )
    found = read_registry(path)
    assert list(found.labels) == ["Schirm ü", "gender", "hat"]
    options = {label: (entry.options.tap, entry.options.pooling, entry.options.width, entry.tolerance)
               for label, entry in found.labels.items()}  # fmt: skip
    assert options == {
        "Schirm ü": (8, "bilinear", 0.25, 0.0),
        "gender": (6, "gap", 1.0, 0.05),
        "hat": (6, "gap", 1.0, 0.05),
    }
    assert {entry.options.epochs for entry in found.labels.values()} == {3}
    assert found.network == {"arch": "resnet18", "width": 1, "size": [160, 80]}
    assert found.training == {"minutes": 1.5, "device": "cpu"}
    assert found.plan == tmp_path / "out" / "lift.plan"
    assert found.segmenter == "demo"


def test_the_example_in_the_documentation(tmp_path: Path) -> None:
    write_label(tmp_path, "gender", ("female", "male"))
    lines = [line for line in str(registry.__doc__).splitlines() if line.startswith("    ") or not line]
    toml = "\n".join(lines).replace("...", "")
    (tmp_path / "graft.toml").write_text(toml)
    found = read_registry(tmp_path)
    assert (found.labels["gender"].options.tap, found.training) == (8, {"epochs": 20})


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[trunk", "expected a TOML file"),
        ("trunks = 1", "graft.toml: trunks: expected one of the keys 'plan', "),
        ("trunk = 3", "graft.toml: trunk: expected a table, found 3"),
        ("[trunk]\narc = 'a'", "graft.toml: trunk.arc: expected one of the keys 'path', 'start', 'arch'"),
        ("[trunk]\nwidth = '1'", "graft.toml: trunk.width: expected a number, found '1'"),
        ("[trunk]\nwidth = nan", "trunk.width: expected a number, found nan"),
        ("[trunk]\nsize = [160]", r"trunk.size: expected a list \[height, width\], found \[160\]"),
        ("[trunk]\nsize = [160, 5]", "trunk.size: expected a list"),
        ("[trunk]\nsteps = 2.0", "trunk.steps: expected an integer, found 2.0"),
        ("[trunk]\nsteps = true", "trunk.steps: expected an integer, found True"),
        ("[trunk]\nstart = 'a'\narch = 'b'", "expected trunk.start or trunk.arch, found both"),
        ("[trunk]\npath = '/trunk.safetensors'", "trunk.path: expected a path inside the file's folder"),
        ("plan = '../engine.plan'", "plan: expected a path inside the file's folder, found '../engine.plan'"),
        ("plan = ''", "plan: expected a path inside"),
        ('plan = "a\\u0000b"', "plan: expected a path inside"),
        ("plan = 'away/engine.plan'", "plan: expected a path inside"),
        ("branches = 'bag/..'", "branches: expected a path inside"),
        ("segmenter = '../yolact.onnx'", "segmenter: expected a path inside"),
        ("[trunk]\nstart = '../a'", "trunk.start: expected a path inside"),
        ("[labels]\nhat = 1", "labels.hat: expected a table, found 1"),
        ("[labels.hat]\ntapp = 1", "labels.hat.tapp: expected one of the keys 'classes', 'tolerance', 'tap'"),
        ("[labels.hat]\ntap = 'first'", "labels.hat.tap: expected an integer or \"auto\", found 'first'"),
        ("[labels.hat]\nwidth = 2", "labels.hat.width: expected a number from 0.001 to 1"),
        ("[labels.hat]\ntolerance = 3", "labels.hat.tolerance: expected a number from 0 to 1, found 3"),
        ("[labels.hat]\nthreshold = 'best'", "labels.hat."),
        ("[labels.hat]\nclasses = 'yes'", "labels.hat.classes: expected a list of names, found 'yes'"),
        ("[labels.'../hat']", "expected the name of a folder beside the file, found '../hat'"),
        ("[labels.'..']", "expected the name of a folder"),
        ("[defaults]\nclasses = ['a', 'b']", "defaults.classes: expected one of the keys"),
    ],
)
def test_refused_in_one_sentence_that_names_the_key(tmp_path: Path, toml: str, says: str) -> None:
    root = tmp_path / "root"
    path = write_registry(root, ("bag",), toml)
    (tmp_path / "elsewhere").mkdir()
    (root / "away").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=says) as raised:
        read_registry(path)
    assert str(raised.value).startswith(str(path))


def test_no_file_and_no_sub_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"graft.toml: expected the registry .* found none; write one"):
        read_registry(tmp_path / "graft.toml")
    with pytest.raises(InputError, match=r"other.toml: expected a file named graft.toml"):
        read_registry(tmp_path / "other.toml")
    (tmp_path / "graft.toml").write_text(TOML)
    with pytest.raises(InputError, match="expected folders LABEL/train/CLASS/"):
        read_registry(tmp_path)
