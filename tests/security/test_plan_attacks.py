"""Plans that lie, each in one way, with every other digest right: what is refused, and by which error.

A table by kind of lie. Each refusal takes less than two seconds, and a good plan still loads after it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toys
from plan import forge

from graftsdk.errors import (
    FingerprintMismatch,
    PlanCorrupt,
    PlanError,
    PlanLimitError,
    PlanPathError,
    PlanTruncated,
    PlanVersionError,
)
from graftsdk.plan import load_plan, open_plan
from graftsdk.plan.documents import read_document

LEAVES = {PlanCorrupt, PlanTruncated, PlanLimitError, PlanPathError, PlanVersionError, FingerprintMismatch}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return forge.good(tmp_path_factory.mktemp("plan"), ("child", "gender", "backpack"))


@contextmanager
def refused(leaf: type[PlanError]) -> Iterator[None]:
    began = time.perf_counter()
    with pytest.raises(PlanError) as caught:
        yield
    assert time.perf_counter() - began < 2
    assert type(caught.value) is leaf, f"{type(caught.value).__name__}: {caught.value}"
    assert len(str(caught.value)) < 2000


@pytest.fixture(autouse=True)
def a_good_plan_still_loads(good: bytes) -> Iterator[None]:
    yield
    with load_plan(good) as plan:
        assert plan.labels == ("child", "gender", "backpack")


# ---------------------------------------------------------------------------------------------------------------------
# Raw bytes


def edges(data: bytes) -> list[int]:
    header, _, body = forge.split(data)
    start = len(data) - len(body)
    ends = [start + value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    near = {edge + step for edge in (0, 8, start, *ends) for step in (-1, 0, 1)}
    return sorted(at for at in near if 0 <= at < len(data))


def test_truncated_at_100_places(good: bytes) -> None:
    places = edges(good)[:60]
    rng = random.Random(1)
    places += [rng.randrange(len(good)) for _ in range(100 - len(places))]
    for at in places:
        with refused(PlanTruncated):
            load_plan(good[:at])


def test_500_bit_flips(good: bytes) -> None:
    rng = random.Random(2)
    places = {at * 8 + rng.randrange(8) for at in edges(good)} | {rng.randrange(len(good) * 8) for _ in range(440)}
    while len(places) < 500:
        places.add(rng.randrange(len(good) * 8))
    for place in places:
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        with pytest.raises(PlanError) as caught:
            load_plan(bytes(data))
        assert type(caught.value) in LEAVES


LENGTHS: dict[str, tuple[int, type[PlanError]]] = {
    "0": (0, PlanCorrupt), "1": (1, PlanCorrupt), "2": (2, PlanCorrupt), "7": (7, PlanCorrupt),
    "8 less": (-8, PlanCorrupt), "1 less": (-1, PlanCorrupt), "8 more": (8, PlanCorrupt), "64 more": (64, PlanCorrupt),
    "16 MiB": (2**24, PlanTruncated), "16 MiB and 1": (2**24 + 1, PlanLimitError), "2**63": (2**63, PlanLimitError),
    "2**64 - 1": (2**64 - 1, PlanLimitError),
}  # fmt: skip


@pytest.mark.parametrize("case", LENGTHS)
def test_header_lengths(good: bytes, case: str) -> None:
    length, leaf = LENGTHS[case]
    (true,) = struct.unpack("<Q", good[:8])
    stated = true + length if case.endswith(("less", "more")) else length
    with refused(leaf):
        load_plan(struct.pack("<Q", stated) + good[8:])


def test_a_header_of_more_than_16_mib(good: bytes) -> None:
    with refused(PlanLimitError):
        load_plan(forge.with_header_text(good, lambda text: text + b" " * 2**24))


NO_PLANS = {
    "empty": (b"", PlanTruncated), "seven bytes": (b"1234567", PlanTruncated), "zeros": (bytes(64), PlanCorrupt),
    "text": (b"hello, this is no plan" * 4, PlanCorrupt), "zip": (b"PK\x03\x04" + bytes(60), PlanCorrupt),
    "another safetensors file": (struct.pack("<Q", 8) + b"{}      ", PlanCorrupt),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_PLANS)
def test_files_that_are_no_plans(case: str) -> None:
    content, leaf = NO_PLANS[case]
    with refused(leaf):
        load_plan(content)


# ---------------------------------------------------------------------------------------------------------------------
# JSON: of the header (bytes) and of the manifest (text)

HEADER_ATTACKS: dict[str, Callable[[bytes], bytes]] = {
    "a byte order mark": lambda t: b"\xef\xbb\xbf" + t,
    "UTF-16": lambda t: t.decode().encode("utf-16-le"),
    "a blank before it": lambda t: b" " + t,
    "bad UTF-8": lambda t: t.replace(b'"dtype"', b'"dty\xff"', 1),
    "a lone surrogate": lambda t: t.replace(b'"dtype"', b'"\xed\xa0\x80"', 1),
    "a list": lambda t: b"[" + t + b"]",
    "two values": lambda t: t + b"{}",
    "cut off": lambda t: t[:-1],
    "metadata twice": lambda t: t[:-1] + b',"__metadata__":{}}',
    "metadata as text": lambda t: b'{"__metadata__":"x","header_sha256":"' + b"0" * 64 + b'"}',
    "no metadata": lambda t: b'{"header_sha256":"' + b"0" * 64 + b'"}',
    "a third key in the metadata": lambda t: t.replace(b'"header_sha256":', b'"x":"","header_sha256":', 1),
    "no header_sha256": lambda t: t.replace(b'"header_sha256"', b'"header_sha257"', 1),
    "header_sha256 twice": lambda t: t.replace(b'"header_sha256":"', b'"header_sha256":"","header_sha256":"', 1),
    "header_sha256 too long": lambda t: t.replace(b'"header_sha256":"', b'"header_sha256":"' + b"0" * 10, 1),
    "header_sha256 elsewhere": lambda t: t.replace(b'"header_sha256"', b'"header\\u005fsha256"', 1)[:-1]
    + b',"header_sha256":"' + b"0" * 64 + b'"}',
    "nested 100 000 deep": lambda t: t[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": lambda t: t.replace(b'"shape":[', b'"shape":[NaN,', 1),
    "a huge integer": lambda t: t.replace(b'"shape":[', b'"shape":[' + b"9" * 5000 + b",", 1),
    "1e999": lambda t: t.replace(b'"shape":[', b'"shape":[1e999,', 1),
}  # fmt: skip

MANIFEST_ATTACKS: dict[str, Callable[[str], str]] = {
    "empty": lambda t: "",
    "a list": lambda t: f"[{t}]",
    "null": lambda t: "null",
    "two values": lambda t: t + t,
    "a comment": lambda t: t + " // ok",
    "single quotes": lambda t: t.replace('"', "'"),
    "a trailing comma": lambda t: t[:-1] + ",}",
    "a key twice": lambda t: t[:-1] + ',"schema":1}',
    "a label twice in one object": lambda t: t.replace('"tap":', '"label":"x","tap":', 1),
    "NaN": lambda t: t.replace('"temperature":1.0', '"temperature":NaN', 1),
    "Infinity": lambda t: t.replace('"temperature":1.0', '"temperature":Infinity', 1),
    "-Infinity": lambda t: t.replace('"temperature":1.0', '"temperature":-Infinity', 1),
    "1e999": lambda t: t.replace('"temperature":1.0', '"temperature":1e999', 1),
    "an integer of 5000 digits": lambda t: t.replace('"tap":0', '"tap":' + "1" * 5000, 1),
    "an integer of 400 digits": lambda t: t.replace('"temperature":1.0', '"temperature":' + "1" * 400, 1),
    "an integer as float": lambda t: t.replace('"tap":0', '"tap":0.0', 1),
    "nested 17 deep": lambda t: t[:-1] + ',"x":' + "[" * 17 + "]" * 17 + "}",
    "nested 100 000 deep": lambda t: t[:-1] + ',"x":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
    "a lone surrogate": lambda t: t.replace('"label":"child"', '"label":"\\ud800"'),
    "a control character": lambda t: t.replace('"label":"child"', '"label":"\\u0000"'),
}


@pytest.mark.parametrize("attack", HEADER_ATTACKS)
def test_header_json(good: bytes, attack: str) -> None:
    with refused(PlanCorrupt):
        load_plan(forge.with_header_text(good, HEADER_ATTACKS[attack]))


@pytest.mark.parametrize("attack", MANIFEST_ATTACKS)
def test_manifest_json(good: bytes, attack: str) -> None:
    changed = forge.with_manifest_text(good, MANIFEST_ATTACKS[attack])
    assert changed != forge.with_manifest_text(good, str)
    with refused(PlanCorrupt):
        load_plan(changed)


# ---------------------------------------------------------------------------------------------------------------------
# Sections


def tensor_names(header: dict[str, Any]) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def shifted(header: dict[str, Any], index: int, step: int) -> None:
    for name in tensor_names(header)[index:]:
        header[name]["data_offsets"] = [at + step for at in header[name]["data_offsets"]]


def in_first(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[tensor_names(header)[0]].__setitem__(field, value)


SECTION_ATTACKS: dict[str, tuple[Callable[[dict[str, Any]], Any], type[PlanError]]] = {
    "a gap": (lambda h: shifted(h, 1, 8), PlanCorrupt),
    "a gap before the first": (lambda h: shifted(h, 0, 8), PlanCorrupt),
    "an overlap": (lambda h: shifted(h, 1, -8), PlanCorrupt),
    "two tensors in one place": (
        lambda h: h[tensor_names(h)[1]].__setitem__("data_offsets", h[tensor_names(h)[0]]["data_offsets"]),
        PlanCorrupt,
    ),
    "a tensor missing": (lambda h: h.pop(tensor_names(h)[0]), PlanCorrupt),
    "a tensor too many": (
        lambda h: h.__setitem__("0" * 16, {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        PlanCorrupt,
    ),
    "an empty name": (lambda h: h.__setitem__("", {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}), PlanCorrupt),
    "negative offsets": (in_first("data_offsets", [-8, 0]), PlanCorrupt),
    "offsets the wrong way round": (in_first("data_offsets", [8, 0]), PlanCorrupt),
    "offsets beyond 2**60": (in_first("data_offsets", [0, 2**61]), PlanCorrupt),
    "three offsets": (in_first("data_offsets", [0, 8, 8]), PlanCorrupt),
    "offsets as floats": (in_first("data_offsets", [0.0, 8.0]), PlanCorrupt),
    "a shape that overflows": (in_first("shape", [2**40] * 16), PlanCorrupt),
    "a shape with 17 sides": (in_first("shape", [1] * 17), PlanCorrupt),
    "a negative side": (in_first("shape", [-1, -1]), PlanCorrupt),
    "another shape": (in_first("shape", [3]), PlanCorrupt),
    "another dtype": (in_first("dtype", "F64"), PlanCorrupt),
    "an unknown dtype": (in_first("dtype", "F8_E4M3"), PlanCorrupt),
    "BF16": (in_first("dtype", "BF16"), PlanCorrupt),
    "a dtype that is a path": (in_first("dtype", "../../etc/passwd"), PlanCorrupt),
    "a field too many": (in_first("external", "weights.bin"), PlanCorrupt),
    "a tensor as list": (lambda h: h.__setitem__(tensor_names(h)[0], []), PlanCorrupt),
}


@pytest.mark.parametrize("attack", SECTION_ATTACKS)
def test_sections(good: bytes, attack: str) -> None:
    change, leaf = SECTION_ATTACKS[attack]
    with refused(leaf):
        load_plan(forge.with_header(good, change))


@pytest.mark.parametrize("more", [b"\0", b"x" * 8, bytes(4096)])
def test_trailing_bytes(good: bytes, more: bytes) -> None:
    with refused(PlanCorrupt):
        load_plan(good + more)


def test_a_tensor_listed_twice(good: bytes) -> None:
    header, _, _ = forge.split(good)
    name = tensor_names(header)[0]
    entry = f',"{name}":{forge.dump(header[name])}}}'.encode()
    with refused(PlanCorrupt):
        load_plan(forge.with_header_text(good, lambda text: text[:-1] + entry))


def test_a_dtype_of_the_same_size_changes_the_part(good: bytes) -> None:
    def change(header: dict[str, Any]) -> None:
        name = next(name for name in tensor_names(header) if header[name]["dtype"] == "F32")
        header[name]["dtype"] = "I32"

    changed = forge.with_header(good, change)
    with open_plan(changed):
        pass  # the header is whole; only the part's own digest knows
    with refused(PlanCorrupt):
        load_plan(changed)


def test_two_tensors_behind_one_initialiser_name(good: bytes) -> None:
    """`<part>/` and `<part>` both have the initialiser name "": one of them would never be hashed."""
    header, manifest, body = forge.split(good)
    part = next(iter(manifest["parts"]))
    header[f"{part}/"] = {"dtype": "U8", "shape": [2048], "data_offsets": [len(body), len(body) + 2048]}
    manifest["tensors"][f"{part}/"] = "0" * 64
    with refused(PlanCorrupt):
        load_plan(forge.join(header, manifest, body + bytes(2048)))


@pytest.mark.parametrize("shape", [[4, 64], [255]])
def test_graphs_and_small_weights_have_one_form(good: bytes, shape: list[int]) -> None:
    header, manifest, body = forge.split(good)
    part = next(iter(manifest["parts"]))
    size = 256 if len(shape) == 2 else 255
    header[f"{part}/small"] = {"dtype": "U8", "shape": shape, "data_offsets": [len(body), len(body) + size]}
    manifest["tensors"][f"{part}/small"] = hashlib.sha256(bytes(size)).hexdigest()
    with refused(PlanCorrupt):
        load_plan(forge.join(header, manifest, body + bytes(size)))


def test_unaligned_weights(good: bytes) -> None:
    """safetensors allows them; arrays are views of the file, and runtimes are handed their addresses."""
    header, manifest, body = forge.split(good)
    part = next(iter(manifest["parts"]))
    shifted(header, 0, 1025)
    header[f"{part}/odd"] = {"dtype": "U8", "shape": [1025], "data_offsets": [0, 1025]}
    manifest["tensors"][f"{part}/odd"] = hashlib.sha256(bytes(1025)).hexdigest()
    with refused(PlanCorrupt):
        load_plan(forge.join(header, manifest, bytes(1025) + body))


# ---------------------------------------------------------------------------------------------------------------------
# Every field of the manifest: missing, of another type, out of range, and one too many

Steps = tuple[str | int, ...]
FREE = {"thresholds", "metrics", "histogram"}  # objects with keys of their own choice, which may be empty


def rich() -> dict[str, Any]:
    """A manifest in which every field that there is has a value."""
    folder = Path(__import__("tempfile").mkdtemp())
    _, manifest, _ = forge.split(forge.good(folder, ("gender",)))
    entry = manifest["trees"][0]["branches"][0]
    entry["document"]["metrics"] = {"f1": 0.5}
    entry["document"]["histogram"] = {"male": [1] * 20}
    for provenance in (entry["document"]["provenance"], *(part["provenance"] for part in manifest["parts"].values())):
        provenance.update(licence="MIT", author="A", data=["0" * 64])
    event = copy.deepcopy(manifest["history"][0])
    event.update(action="replace", before=copy.deepcopy(entry), after=copy.deepcopy(entry))
    manifest["history"].append(event)
    (folder / "good.plan").unlink()
    folder.rmdir()
    return manifest


RICH = rich()


def walk(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Every field, the first and last item of each list, the first entry of each object of parts or tensors."""
    if steps:
        yield steps, value
    if isinstance(value, dict):
        free = steps and steps[-1] in ("parts", "tensors")
        for name in list(value)[:1] if free else value:
            yield from walk(value[name], (*steps, name))
    elif isinstance(value, list) and value:
        yield from walk(value[0], (*steps, 0))


def put(manifest: dict[str, Any], steps: Steps, value: Any, *, delete: bool = False) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    target: Any = changed
    for step in steps[:-1]:
        target = target[step]
    if delete:
        del target[steps[-1]]
    else:
        target[steps[-1]] = value
    return changed


def wrong_types(value: Any) -> list[Any]:
    every: list[Any] = [None, True, 7, 0.5, "x\n", [], {}, [None], {"": 1}]
    if isinstance(value, bool):
        return [None, 0, 1, "true", [], {}]
    if isinstance(value, float):
        return [None, True, "0.5", [0.5], {}]
    kinds = {int: (int,), str: (str,), list: (list,), dict: (dict,), type(None): (type(None), dict)}[type(value)]
    return [other for other in every if type(other) not in kinds] + (["x\n"] if isinstance(value, str) else [])


def ranges(steps: Steps, value: Any) -> list[Any]:
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [-1, 2**53 + 1, 2**64, -(2**63)]
    if isinstance(value, float):
        return [-1e300, 1e300, -1e13, 1e13]
    if isinstance(value, str):
        return ["x" * 257, "e\u0301", " x", "x ", "a\u202eb", "\u0000", "a\ud800", "\ufeff", *HOSTILE_FOR(steps)]
    if isinstance(value, list):
        if steps[-1] in ("history", "branches"):  # the latter: "257 labels"
            return []
        return [(value or [0]) * (300 if value and isinstance(value[0], (list, dict)) else 70_000)]
    return []


FREE_TEXT = {"label", "licence", "author", "classes", "arch", "pooling"}
HOSTILE = [
    "os.system", "builtins.eval", "__import__('os')", "{{7*7}}", "!!python/object/apply:os.system", "../../etc/passwd",
    "graftsdk.plan.Plan", "https://example.org/x.onnx", "${jndi:ldap://x}", "<script>", "'; drop table x; --", "a\x00b",
]  # fmt: skip


def HOSTILE_FOR(steps: Steps) -> list[str]:
    """Free text may say what it likes, since nothing reads it; every other field is an enum, a digest or a date."""
    return [] if FREE_TEXT & {step for step in steps if isinstance(step, str)} else HOSTILE


# Where a change leaves the field right, or is another error: (last steps, kind of value) -> why.
def judged_elsewhere(steps: Steps, value: Any) -> bool:
    last = [step for step in steps if isinstance(step, str)]
    if steps == ("schema",) and isinstance(value, int) and not isinstance(value, bool):
        return True  # test_versions
    if last[-1] == "version" and isinstance(value, int) and not isinstance(value, bool):
        return True
    if last[-1] in ("before", "after") and value is None:
        return True
    return isinstance(value, (list, dict)) and not value  # an empty list or object may be right: test_counts


CASES: list[tuple[str, Steps, Any, bool]] = []
for steps_, value_ in walk(RICH):
    inside_free = len(steps_) > 1 and steps_[-2] in FREE | {"parts", "tensors"}
    if not isinstance(steps_[-1], int) and not inside_free:
        CASES.append(("missing", steps_, None, True))
    CASES += [("type", steps_, other, False) for other in wrong_types(value_) if not judged_elsewhere(steps_, other)]
    CASES += [
        ("range", steps_, other, False) for other in ranges(steps_, value_) if not judged_elsewhere(steps_, other)
    ]
    if isinstance(value_, dict) and steps_[-1] not in FREE | {"parts", "tensors"}:
        CASES.append(("unknown", (*steps_, "module"), "os.system", False))
CASES.append(("unknown", ("plugin",), "libevil.so", False))


def fields() -> list[str]:
    return sorted({".".join(str(step) for step in steps) for _, steps, _, _ in CASES})


def test_the_table_covers_the_manifest() -> None:
    assert len(CASES) > 1000
    assert {kind for kind, *_ in CASES} == {"missing", "type", "range", "unknown"}


@pytest.mark.parametrize("field", fields())
def test_every_field(field: str) -> None:
    from graftsdk.plan.manifest import Manifest

    Manifest.from_json(forge.dump(RICH))
    for kind, steps, value, delete in CASES:
        if ".".join(str(step) for step in steps) != field:
            continue
        text = forge.dump(put(RICH, steps, value, delete=delete))
        try:
            with refused(PlanCorrupt):
                Manifest.from_json(text)
        except (AssertionError, pytest.fail.Exception) as error:
            raise AssertionError(f"{kind} {field} = {value!r:.60}: {error}") from error


def test_fields_are_refused_in_a_plan_too(good: bytes) -> None:
    with refused(PlanCorrupt):
        load_plan(forge.with_manifest(good, lambda m: m.pop("crop")))
    with refused(PlanCorrupt):
        load_plan(forge.with_manifest(good, lambda m: m.update(plugin="libevil.so")))


DOCUMENT_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "kind": lambda d: d.update(kind="segmenter"),
    "no kind": lambda d: d.pop("kind"),
    "one class": lambda d: d.update(classes=["yes"]),
    "65 classes": lambda d: d.update(classes=[f"c{i}" for i in range(65)]),
    "classes equal but for case": lambda d: d.update(classes=["yes", "YES"]),
    "tap beyond until": lambda d: d.update(tap=9, until=1),
    "a threshold of no class": lambda d: d.update(thresholds={"maybe": 0.5}),
    "a histogram of 19 bins": lambda d: d.update(histogram={"yes": [0] * 19}),
    "arch as a dotted path": lambda d: d.update(arch="torchvision.models:resnet"),
    "pooling as code": lambda d: d.update(pooling="lambda x: x"),
}


@pytest.mark.parametrize("case", DOCUMENT_CHANGES)
def test_documents_of_parts_and_checkpoints(case: str) -> None:
    document = toys.branch("child")[1].to_dict()
    read_document(json.dumps(document), "part")
    DOCUMENT_CHANGES[case](document)
    with refused(PlanCorrupt):
        read_document(json.dumps(document), "part")


@pytest.mark.parametrize("version", [0, 2, 2**53])
def test_document_versions(version: int) -> None:
    for document in (toys.branch("child")[1].to_dict(), toys.trunk()[1].to_dict()):
        document["version"] = version
        with refused(PlanVersionError):
            read_document(json.dumps(document), "part")


@pytest.mark.parametrize("version", [-1, 0, 2, 99, 2**53, 2**200])
def test_versions(good: bytes, version: int) -> None:
    with refused(PlanVersionError):
        load_plan(forge.with_manifest(good, lambda m: m.update(schema=version)))


# ---------------------------------------------------------------------------------------------------------------------
# Fields that contradict each other


def branches(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manifest["trees"][0]["branches"]
    return found


def rename(manifest: dict[str, Any], label: str) -> None:
    branches(manifest)[0]["document"]["label"] = label
    manifest["history"] = []


def drop_part(manifest: dict[str, Any]) -> None:
    name = branches(manifest)[0]["part"]
    del manifest["parts"][name]
    manifest["tensors"] = {key: value for key, value in manifest["tensors"].items() if key[:16] != name}


def many(manifest: dict[str, Any]) -> None:
    entry = branches(manifest)[0]
    manifest["history"] = []
    manifest["trees"][0]["branches"] = [
        {**entry, "document": {**entry["document"], "label": f"l{index}"}} for index in range(257)
    ]


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], type[PlanError]]] = {
    "257 labels": (many, PlanLimitError),
    "a label twice": (lambda m: rename(m, "gender"), PlanCorrupt),
    "a label twice but for case": (lambda m: rename(m, "GENDER"), PlanCorrupt),
    "another fingerprint": (
        lambda m: branches(m)[0]["document"].update(trunk_fingerprint="0" * 64), FingerprintMismatch),
    "another fingerprint at the tap": (
        lambda m: m["trees"][0]["document"]["fingerprints"].__setitem__(0, "f" * 64), FingerprintMismatch),
    "the fingerprints of another order": (
        lambda m: m["trees"][0]["document"]["fingerprints"].reverse(), FingerprintMismatch),
    "fewer fingerprints than taps": (
        lambda m: (m["trees"][0]["document"]["fingerprints"].pop(),
                   m["trees"][0]["document"]["exported"]["macs"].pop(),
                   m["trees"][0]["document"]["exported"]["parameters"].pop(),
                   branches(m)[2]["document"].update(until=3)), PlanCorrupt),
    "another crop in the tree": (lambda m: m["trees"][0]["document"]["crop"].update(fill=9), PlanCorrupt),
    "another crop in a branch": (lambda m: branches(m)[0]["document"]["crop"].update(fill=9), PlanCorrupt),
    "another crop of the plan": (lambda m: m["crop"].update(fill=9), PlanCorrupt),
    "another backbone in a branch": (lambda m: branches(m)[0]["document"].update(arch="resnet"), PlanCorrupt),
    "until beyond the trunk": (lambda m: branches(m)[0]["document"].update(until=99), PlanCorrupt),
    "a part missing": (drop_part, PlanCorrupt),
    "a part that is not in the plan": (lambda m: branches(m)[0].update(part="0" * 16), PlanCorrupt),
    "a branch as trunk": (lambda m: m["trees"][0].update(trunk=branches(m)[0]["part"]), PlanCorrupt),
    "a trunk as branch": (lambda m: branches(m)[0].update(part=m["trees"][0]["trunk"]), PlanCorrupt),
    "a trunk as segmenter": (
        lambda m: m.update(segmenter={"part": m["trees"][0]["trunk"], "family": "yolo", "input": "x",
                                      "input_size": [64, 64], "outputs": ["y"], "person_class": 0,
                                      "score_threshold": 0.5, "iou_threshold": 0.5}), PlanCorrupt),
    "another role": (lambda m: m["parts"][branches(m)[0]["part"]].update(role="trunk"), PlanCorrupt),
    "another digest": (lambda m: m["parts"][branches(m)[0]["part"]].update(digest="0" * 64), PlanCorrupt),
    "another end of a digest": (
        lambda m: m["parts"][branches(m)[0]["part"]].update(
            digest=m["parts"][branches(m)[0]["part"]]["digest"][:32] + "0" * 32), PlanCorrupt),
    "a part's name in capitals": (
        lambda m: m["parts"].update({"ABCDEF0123456789": next(iter(m["parts"].values()))}), PlanCorrupt),
    "another SHA-256 of a tensor": (lambda m: m["tensors"].update({next(iter(m["tensors"])): "0" * 64}), PlanCorrupt),
    "no trees": (lambda m: m.update(trees=[]), PlanCorrupt),
    "17 trees": (lambda m: m.update(trees=m["trees"] * 17), PlanCorrupt),
    "the same tree twice": (lambda m: m.update(trees=m["trees"] * 2), PlanCorrupt),
    "history of a part that is gone": (lambda m: m["history"][0]["after"].update(part="0" * 16), PlanCorrupt),
    "history of another label": (lambda m: m["history"][0].update(label="gender"), PlanCorrupt),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(good: bytes, case: str) -> None:
    change, leaf = CONTRADICTIONS[case]
    with refused(leaf):
        load_plan(forge.with_manifest(good, change))


def test_weights_swapped_between_two_labels(good: bytes) -> None:
    """Every byte is one that the plan promises, but in another tensor."""
    header, manifest, body = forge.split(good)
    one, two = [name for name in tensor_names(header) if name.endswith("own.weight")][1:]
    assert header[one]["shape"] != header[two]["shape"] or one != two
    tensors = manifest["tensors"]
    tensors[one], tensors[two] = tensors[two], tensors[one]
    with refused(PlanCorrupt):
        load_plan(forge.join(header, manifest, body))


# ---------------------------------------------------------------------------------------------------------------------
# Paths and sources


@pytest.mark.parametrize("case", ["nothing", "folder", "fifo", "device", "NUL", "empty", "empty file"])
def test_paths_that_are_no_plans(tmp_path: Path, case: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty file").touch()
    path = {"nothing": tmp_path / "none", "folder": tmp_path, "device": "/dev/zero", "NUL": "a\0b", "empty": ""}.get(
        case, tmp_path / case
    )
    with refused(PlanTruncated if case == "empty file" else PlanPathError):
        load_plan(path)


@pytest.mark.parametrize("source", [None, 7, ["a"], object()])
def test_sources_that_are_none(source: Any) -> None:
    with pytest.raises((PlanPathError, TypeError)):
        load_plan(source)


def test_a_file_opened_as_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with (tmp_path / "text").open() as file, refused(PlanPathError):
        load_plan(file)  # type: ignore[arg-type]
