"""Which engines a build has to end in, what each will be recorded as, and how its parts are called in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftsdk.arguments import whole_number
from graftsdk.engines.driver import driver_problem, gpu_capabilities
from graftsdk.engines.layout import built_groups
from graftsdk.engines.record import ENGINE, EngineRecord, engine_name
from graftsdk.engines.tensorrt import Library, capability_number
from graftsdk.errors import EngineIncompatible, InputError
from graftsdk.export.build_child import Item, Job
from graftsdk.graft import Group, joints_of
from graftsdk.graft.group import FLOATS
from graftsdk.plan import Manifest
from graftsdk.text import listed

__all__ = ["check_batches", "check_refittable", "check_targets", "is_refittable", "item_of", "wanted_engines"]

_MOST_BATCH = 1024
_REFITTABLE = ("merged", "branch")  # a new trunk makes every label anew, and a segmenter has no golden scores


def check_batches(batches: Sequence[int]) -> tuple[int, ...]:
    """The sizes, each once, least first.

    Raises:
        InputError: none, or one that is no integer from 1 to 1024.
    """
    if isinstance(batches, str) or not isinstance(batches, Sequence) or not batches:
        raise InputError(f"batches: expected sizes like (1, 8, 32), found {batches!r:.80}")
    return tuple(sorted({whole_number("batches", each, 1, _MOST_BATCH) for each in batches}))


def check_targets(library: Library, asked: Sequence[str]) -> tuple[str, ...]:
    """The compute capabilities to build for: those asked for, else those of this machine's GPUs.

    Raises:
        InputError: none are to be had, or one is none. EngineIncompatible: one that the library cannot build for.
    """
    if isinstance(asked, str):
        raise InputError(
            f"targets: expected a list of compute capabilities, found the text {asked!r}: write [{asked!r}]"
        )
    name = f"{library.name} {library.version}"
    known = library.targets
    here = gpu_capabilities() if known else gpu_capabilities()[:1]  # without targets it builds for the first alone
    wanted = tuple(sorted(set(asked or here), key=capability_number))
    if not wanted:
        raise InputError(
            f"targets: expected compute capabilities, as --for 8.9, found none, and no GPU here to take it from; "
            f"{name} builds for {', '.join(known) or 'the GPU of its own machine only'}"
        )
    if not known:
        trouble = driver_problem()
        if trouble is not None or set(wanted) - set(here):
            raise EngineIncompatible(
                f"{name} builds for the GPU of its own machine only ({trouble or ', '.join(here)}), found "
                f"{', '.join(wanted)}; build there, or with runtime tensorrt-rtx"
            )
    unknown = [target for target in wanted if known and target not in known]
    if unknown:
        raise EngineIncompatible(
            f"compute capability {', '.join(unknown)}: expected one of {', '.join(known)}, which is what {name} builds "
            f"for; GPUs of other kinds run the plan on ONNX Runtime (device='cuda')"
        )
    return wanted


def check_refittable(library: Library, targets: Sequence[str], precision: str) -> None:
    """Refuse refittable engines where they cannot be had.

    Raises:
        EngineIncompatible: no GPU here, or targets that are not this machine's. InputError: INT8.
    """
    if precision == "int8":
        raise InputError(
            "refittable: expected precision float32, fp16 or bf16, found int8, whose ranges are constants of the "
            "engine and move with every training; build without --refittable"
        )
    trouble = driver_problem()
    if trouble is not None:
        raise EngineIncompatible(
            f"refittable: expected an NVIDIA driver and a GPU, because {library.name} makes engines whose weights can "
            f"be exchanged on the device only, found: {trouble}; build without --refittable: with --layout split a new "
            f"label builds one small engine"
        )
    if len(targets) != 1 or targets[0] not in gpu_capabilities():
        raise EngineIncompatible(
            f"refittable: expected this machine's GPU alone ({', '.join(gpu_capabilities())}), on which the engine is "
            f"compared with the plan's scores, found {', '.join(targets)}; build without --refittable"
        )


def is_refittable(record: EngineRecord, job: Job) -> bool:
    """Whether the engine is to be one whose weights can be exchanged: one that gives scores, where it is asked for."""
    return job.refittable and record.role in _REFITTABLE


def wanted_engines(manifest: Manifest, job: Job, *, segmenter: bool) -> list[EngineRecord]:
    """What is to be there at the end, in the order in which it runs, without what only a build tells.

    Raises:
        InputError: no such precision or layout, nothing that may be computed in that precision, or nothing to build.
    """
    found = []
    forms = manifest.forms(job.precision)
    joints = joints_of(manifest, job.labels) if job.labels else {}
    groups = built_groups(manifest, joints, job.layout, forms) if joints else ()
    if job.precision != "float32" and not any(group.forms for group in groups):
        raise InputError(
            f"precision {job.precision}: expected a plan with parts that may be computed so, found none that passed; "
            f"graftsdk quantize makes and judges them"
        )
    for group in groups:
        role = "merged" if job.layout == "merged" else "trunk" if group.trunks else "branch"
        found.append(_unbuilt(role, group.key(manifest), job, _labels(group, manifest), _parts(group, manifest)))
    info = manifest.segmenter
    if segmenter and info is not None:
        digest = manifest.parts[info.part].digest
        job = replace(job, precision="float32", batches=(1,))  # it is fed one image at a time
        found.append(_unbuilt("segmenter", digest, job, (), {info.part: (digest, "float32")}))
    if not found:
        raise InputError("the plan has neither labels nor a segmenter to build; graftsdk plan add adds labels")
    return found


def _unbuilt(
    role: str, key: str, job: Job, labels: tuple[str, ...], parts: Mapping[str, tuple[str, str]]
) -> EngineRecord:
    return EngineRecord(
        role=role,
        graph=key,
        plan=job.digest,
        labels=labels,
        parts=parts,
        runtime=job.runtime,
        version=job.version,
        targets=job.targets,
        precision=job.precision,
        batches=job.batches,
        profiles=(),
        inputs=(),
        outputs=(),
        file=f"{engine_name(role, key)}{ENGINE}",
        size=0,
        sha256="",
        seconds=0.0,
        peak_bytes=0,
        when="",
    )


def _labels(group: Group, manifest: Manifest) -> tuple[str, ...]:
    """The labels whose scores the group gives."""
    inside = {joint.branch for joint in (*group.joints, *group.loose)}
    return tuple(branch.label for tree in manifest.trees for branch in tree.branches if branch.part in inside)


def _parts(group: Group, manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Part -> digest of what is computed, and its precision."""
    forms = dict(group.forms)
    found = {}
    for part in group.parts:
        form = forms.get(part, "float32")
        stored = part if form in (*FLOATS, "float32") else form
        found[part] = (manifest.parts[stored].digest, form if stored == part else "int8")
    return found


def item_of(record: EngineRecord, manifest: Manifest) -> Item:
    """What the building process is told: the graph, and whose part is whose in messages."""
    owners: dict[str, str] = {}
    several = len(manifest.trees) > 1
    for tree in manifest.trees:
        owners[tree.trunk] = f"the trunk {tree.trunk}" if several else "the trunk"
    labels: dict[str, list[str]] = {}
    for tree in manifest.trees:
        for branch in tree.branches:
            for name in (branch.part, f"{branch.part}.{branch.document.trunk_fingerprint[:16]}"):
                if branch.label in record.labels:
                    labels.setdefault(name, []).append(branch.label)
    for name, those in labels.items():
        owners[name] = f"label {listed(dict.fromkeys(those))}"
    subject = {"merged": "the merged engine", "trunk": "the trunk", "segmenter": "the segmenter"}.get(record.role)
    return Item(record.graph, owners, subject or f"label {listed(record.labels)}")
