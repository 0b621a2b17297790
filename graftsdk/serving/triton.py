"""A plan as a model repository of Triton Inference Server: one model over crops, and a thin front before it.

    repository/
        graftsdk.json              which plan this is, and which folders are ours
        NAME_crops/
            config.pbtxt           onnxruntime backend, dynamic batching
            1/model.onnx           trunk and branches in one graph: crops in, one output a label
        NAME/
            config.pbtxt           python backend
            1/model.py             encoded image in, JSON out: `graftsdk.serving.triton_front`
            1/engine.plan          the plan: its segmenter, its crop, its thresholds

No ensemble: there each image would go through the crops' network by itself. Persons of all images that wait, from all
fronts, share its batches.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftsdk.arguments import whole_number
from graftsdk.errors import GraftError, InputError, PlanPathError
from graftsdk.files import atomic_write
from graftsdk.graft import graft, joints_of, scores_names
from graftsdk.plan import Plan, open_plan
from graftsdk.plan.onnx_part import serialise
from graftsdk.plan.strict_json import dump_json, load_json
from graftsdk.scene import CROPS_AT_ONCE
from graftsdk.text import listed, reason

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["export_repository"]

_MARK = "graftsdk.json"
_FORMAT = "graftsdk triton 1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_INLINE_BYTES = 1_900_000_000  # of weights; protobuf ends at 2 GiB, and more of them lie beside the graph
_FRONT = '''"""The front of a plan, written by graftsdk export-triton; the python backend needs graftsdk installed."""

from graftsdk.serving.triton_front import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def export_repository(
    plan: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    max_delay_us: int = 2000,
    fronts: int = 2,
) -> list[str]:
    """Write the model repository of a plan; the names of its models, the front's first.

    The folder appears whole or not at all. One that this function has written, and nobody has added to, is replaced.

    Args:
        plan: its path. target: the repository's folder; its parent exists.
        name: of the front, letters, digits, "_", "." and "-"; None for the plan's file name.
        labels: those of the graph, in this order; None for all.
        max_delay_us: microseconds that a crop may wait for others.
        fronts: processes that decode and segment.

    Raises:
        InputError: an argument. PlanError: the plan. PlanPathError: a folder that must not be replaced or written.
    """
    name = _front_name(plan) if name is None else name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"name: expected letters, digits, '_', '.' and '-', at most 64, found {name!r:.80}")
    max_delay_us = whole_number("max_delay_us", max_delay_us, 0, 10_000_000)
    fronts = whole_number("fronts", fronts, 1, 256)
    folder, models = Path(os.path.abspath(target)), [name, f"{name}_crops"]
    _check_target(folder)
    with open_plan(plan) as opened:
        wanted = list(joints_of(opened.manifest, labels))
        model, outputs = _crops_graph(opened, wanted)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        except OSError as error:
            raise PlanPathError(f"{folder}: expected a folder that can be written, found: {reason(error)}") from error
        try:
            temporary.chmod(0o755)
            crops = temporary / models[1] / "1"
            crops.mkdir(parents=True)
            _save(model, crops / "model.onnx")
            _write(crops.parent / "config.pbtxt", _crops_config(opened, models[1], outputs, max_delay_us))
            front = temporary / name / "1"
            front.mkdir(parents=True)
            _write(front / "model.py", _FRONT)
            with open_plan(shutil.copyfile(plan, front / "engine.plan")) as copied:
                if copied.digest != opened.digest:
                    raise PlanPathError(f"{plan}: expected the same plan to the end, found it replaced; export again")
            _write(front.parent / "config.pbtxt", _front_config(models, outputs, fronts))
            mark = {"format": _FORMAT, "plan": opened.digest, "labels": wanted, "models": models}
            _write(temporary / _MARK, dump_json(mark) + "\n")
            _put_in_place(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return models


def _front_name(plan: str | os.PathLike[str]) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(plan).stem).strip("_-")[:60] or "graftsdk"


def _check_target(folder: Path) -> None:
    """That nothing is lost where `folder` is replaced."""
    if not folder.parent.is_dir():
        raise PlanPathError(f"{folder}: expected an existing folder, {folder.parent} is none; create it first")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise PlanPathError(f"{folder}: expected a folder or nothing, found something else; name another path")
    inside = {path.name for path in folder.iterdir()}
    if not inside:
        return
    try:
        mark = load_json((folder / _MARK).read_bytes(), str(folder / _MARK))
        ours = {_MARK, *mark["models"]} if mark.get("format") == _FORMAT else None
    except (OSError, KeyError, TypeError, GraftError):
        ours = None
    if ours is None:
        raise PlanPathError(
            f"{folder}: expected a repository that graftsdk wrote, found another folder; name a new one"
        )
    if inside - ours:
        raise PlanPathError(
            f"{folder}: expected only what graftsdk wrote, found {listed(sorted(inside - ours))} too; name a new "
            f"folder: a server takes several with --model-repository"
        )


def _put_in_place(temporary: Path, folder: Path) -> None:
    if not os.path.lexists(folder):
        temporary.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    folder.rename(old)  # onto an empty folder
    try:
        temporary.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _crops_graph(plan: Plan, labels: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """The graph with one output a label, and label -> its output's name: the label, where nothing else has it."""
    import onnx_ir as ir

    model = graft(plan, labels)
    values = {value.name: value for value in model.graph.outputs}
    taken = {value.name for node in model.graph.all_nodes() for value in node.outputs}
    taken |= {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    names: dict[str, str] = {}
    found = []
    for label, scores in scores_names(plan.manifest, labels).items():
        name = label
        while name in taken:
            name += "_"
        taken.add(name)
        names[label] = name
        node = ir.node("Identity", [values[scores]], name=name)  # two labels may share scores
        (output,) = node.outputs
        output.name, output.type, output.shape = name, values[scores].type, values[scores].shape
        model.graph.append(node)
        found.append(output)
    model.graph.outputs[:] = found
    return model, names


def _save(model: ir.Model, path: Path) -> None:
    import onnx_ir as ir

    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights > _INLINE_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        _write(path, serialise(model, "graft"))


def _write(path: Path, content: str | bytes) -> None:
    with atomic_write(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def _crops_config(plan: Plan, name: str, outputs: dict[str, str], max_delay_us: int) -> str:
    height, width = plan.manifest.crop.size
    lines = []
    for label, output in outputs.items():
        found = plan.manifest.find(label)
        assert found is not None  # joints_of found it
        classes = found[1].document.classes
        lines.append(f"  {{ name: {_quoted(output)} data_type: TYPE_FP32 dims: [ {len(classes)} ] }}")
    told = ",\n".join(lines)
    return f"""\
name: {_quoted(name)}
backend: "onnxruntime"
max_batch_size: {CROPS_AT_ONCE}
input [
  {{ name: "crops" data_type: TYPE_FP32 dims: [ 3, {height}, {width} ] }}
]
output [
{told}
]
dynamic_batching {{ max_queue_delay_microseconds: {max_delay_us} }}
instance_group [ {{ count: 1 kind: KIND_AUTO }} ]
"""


def _front_config(models: Sequence[str], outputs: dict[str, str], fronts: int) -> str:
    parameters = {"crops": models[1], "outputs": dump_json(outputs), "order": dump_json(list(outputs))}
    lines = (f"  {{ key: {_quoted(key)} value: {{ string_value: {_quoted(v)} }} }}" for key, v in parameters.items())
    told = ",\n".join(lines)
    return f"""\
name: {_quoted(models[0])}
backend: "python"
max_batch_size: 8
input [
  {{ name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] }}
]
output [
  {{ name: "JSON" data_type: TYPE_STRING dims: [ 1 ] }}
]
dynamic_batching {{ }}
instance_group [ {{ count: {fronts} kind: KIND_CPU }} ]
parameters [
{told}
]
"""


def _quoted(text: str) -> str:
    """As protobuf's text format writes a string: bytes of UTF-8 that are no plain letters as octal numbers."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode("utf-8"))
    return f'"{"".join(plain)}"'
