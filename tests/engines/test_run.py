"""What an engine gives: the graph's values, whatever the batch, the layout and the other outputs."""

from __future__ import annotations

import numpy as np
import pytest
from engine_graphs import (
    BRANCHES,
    crops,
    graph,
    merged,
    merged_model,
    model,
    reference,
    segmenter_model,
    split,
    trunk_model,
    value,
)
from onnx import TensorProto, helper

from graftsdk.engines import Graph, open_engine
from graftsdk.engines.feeds import chunk_sizes
from graftsdk.errors import DTypeError, EngineBuildError, InputError, ShapeError

NAMES = ("a/scores", "b/scores")


def test_scores_agree_with_the_reference() -> None:
    with open_engine([merged()], device="cpu") as engine:
        found = engine.run({"crops": crops(5)})
    assert list(found) == list(NAMES)
    for name, expected in zip(NAMES, reference(merged_model(BRANCHES), {"crops": crops(5)}), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_split_gives_the_bits_of_merged(count: int) -> None:
    with open_engine([merged()], device="cpu") as one, open_engine(split(), device="cpu") as many:
        expected, found = one.run({"crops": crops(count)}), many.run({"crops": crops(count)}, NAMES)
    for name in NAMES:
        assert found[name].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_bits_in_every_batch(threads: int) -> None:
    with open_engine([merged()], device="cpu", threads=threads) as engine:
        alone = [engine.run({"crops": crops(13)[i : i + 1]})["a/scores"] for i in range(13)]
        together = engine.run({"crops": crops(13)})["a/scores"]
    assert together.tobytes() == b"".join(row.tobytes() for row in alone)


def test_all_kinds_of_opening_give_the_same_bits() -> None:
    bits = set()
    for cache in (True, True, False):
        with open_engine([merged()], device="cpu", cache=cache) as engine:
            bits.add(engine.run({"crops": crops(4)})["b/scores"].tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize(
    ("batch", "limit", "fixed", "expected"),
    [
        (0, 8, (), []),
        (1, 8, (), [1]),
        (5, 8, (), [4, 1]),
        (7, 8, (), [4, 2, 1]),
        (21, 8, (), [8, 8, 4, 1]),
        (7, 6, (), [4, 2, 1]),
        (3, 1, (), [1, 1, 1]),
        (3, 8, (1,), [1, 1, 1]),
        (4, 8, (2, 2), [2, 2]),
    ],
)
def test_chunks(batch: int, limit: int, fixed: tuple[int, ...], expected: list[int]) -> None:
    assert chunk_sizes(batch, limit, fixed) == expected


def test_only_the_graphs_that_are_needed_run() -> None:
    engine = open_engine(split(), device="cpu")
    assert engine._runners is not None
    ran: list[int] = []
    for index, runner in enumerate(engine._runners):
        original = runner.run
        runner.run = lambda feeds, names, i=index, run=original: (ran.append(i), run(feeds, names))[1]  # type: ignore[method-assign]
    engine.run({"crops": crops(1)}, ["b/scores"])
    assert ran == [0, 2]
    ran.clear()
    engine.run({"crops": crops(1)}, ["t/tap_1"])
    assert ran == [0]
    assert engine.run({"crops": crops(1)}, []) == {}
    assert ran == [0]


@pytest.mark.parametrize("outputs", [None, ["t/tap_2", "a/scores"]])
def test_no_rows_in_no_rows_out(outputs: list[str] | None) -> None:
    with open_engine(split(), device="cpu") as engine:
        full, empty = engine.run({"crops": crops(1)}, outputs), engine.run({"crops": crops(0)}, outputs)
    assert list(empty) == list(full)
    for name, array in full.items():
        assert empty[name].shape == (0, *array.shape[1:])
        assert empty[name].dtype == array.dtype


def test_results_belong_to_the_caller() -> None:
    with open_engine(split(), device="cpu") as engine:
        feed = crops(4)
        kept = [engine.run({"crops": feed}) for _ in range(20)]
        copies = [{name: array.copy() for name, array in result.items()} for result in kept]
        feed[:] = 0
        kept[0]["t/tap_1"][:] = -1
        engine.run({"crops": feed})
    for result, copy in zip(kept[1:], copies[1:], strict=True):
        for name, array in result.items():
            assert array.flags.owndata and array.flags.writeable and array.base is None
            assert array.tobytes() == copy[name].tobytes()


def test_a_graph_with_a_batch_of_its_own() -> None:
    frames = np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype(np.float32)
    with open_engine([graph(segmenter_model(2))], device="cpu") as engine:
        found = engine.run({"frames": frames})
        np.testing.assert_array_equal(found["rows"], np.maximum(frames, 0))
        assert found["priors"].shape == (5, 4)
        nothing = engine.run({"frames": frames[:0]})
        assert nothing["rows"].shape == (0, 3, 4, 4) and nothing["priors"].shape == (5, 4)
        with pytest.raises(ShapeError, match="multiple of the graph's own 2, found 3"):
            engine.run({"frames": frames[:3]})


MEMORY = {
    "fortran": lambda x: np.asfortranarray(x),
    "transposed": lambda x: np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2),
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
    "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_layout_does_not_matter(kind: str) -> None:
    with open_engine([merged()], device="cpu") as engine:
        found = engine.run({"crops": MEMORY[kind](crops(3))})["a/scores"]
        assert found.tobytes() == engine.run({"crops": crops(3)})["a/scores"].tobytes()


@pytest.mark.parametrize(
    ("feeds", "error", "text"),
    [
        ({}, InputError, "missing 'crops'"),
        ({"crops": crops(1), "other": crops(1)}, InputError, "unknown 'other'"),
        ({"crops": crops(1).astype(">f4")}, DTypeError, "found dtype >f4"),
        ({"crops": crops(1).astype(np.float64)}, DTypeError, "found dtype <f8"),
        ({"crops": crops(1).astype(np.float16)}, DTypeError, "found dtype <f2"),
        ({"crops": crops(1)[0]}, ShapeError, "found shape"),
        ({"crops": crops(1)[:, :2]}, ShapeError, r"float32\[n, 3, 12, 12\], found shape \(1, 2, 12, 12\)"),
        ({"crops": np.float32(1)}, InputError, "found float32"),
        ({"crops": crops(1).tolist()}, InputError, "found list"),
        ({"crops": np.ma.masked_array(crops(1))}, InputError, "found MaskedArray"),
    ],
)
def test_feeds_that_are_refused(feeds: dict[str, np.ndarray], error: type[InputError], text: str) -> None:
    with open_engine([merged()], device="cpu") as engine:
        with pytest.raises(error, match=text) as found:
            engine.run(feeds)
        assert type(found.value) is error
        assert len(engine.run({"crops": crops(1)})) == 2


@pytest.mark.parametrize("outputs", [["nope"], "a/scores"])
def test_outputs_that_are_refused(outputs: list[str]) -> None:
    with open_engine([merged()], device="cpu") as engine, pytest.raises(InputError, match="outputs: expected"):
        engine.run({"crops": crops(1)}, outputs)


def test_all_feeds_have_one_batch_size() -> None:
    trunk, other = trunk_model(), graph(segmenter_model(1))
    with (
        open_engine([graph(trunk), other], device="cpu") as engine,
        pytest.raises(ShapeError, match="one batch size, found crops 2, frames 1"),
    ):
        engine.run({"crops": crops(2), "frames": np.zeros((1, 3, 4, 4), np.float32)})


def test_graphs_that_do_not_fit_together() -> None:
    trunk, a, b = split()
    with pytest.raises(InputError, match="needed by graph 0, before graph 1"):
        open_engine([a, trunk], device="cpu")
    with pytest.raises(InputError, match="'t/tap_1' twice"):
        open_engine([trunk, trunk], device="cpu")
    with pytest.raises(InputError, match="at least one"):
        open_engine([], device="cpu")
    wrong = Graph(b.key, {"b/tap": "t/tap_1"}, b.outputs, b.load)
    with pytest.raises(EngineBuildError, match=r"'t/tap_1' is float32\[n, 16, 12, 12\] elsewhere"):
        open_engine([trunk, wrong], device="cpu")
    misnamed = Graph("0" * 64, {"tap": "t/tap_1"}, a.outputs, a.load)
    with pytest.raises(EngineBuildError, match=r"expected the inputs \['tap'\], found \['a/tap'\]"):
        open_engine([trunk, misnamed], device="cpu")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"device": "gpu"}, "'auto', 'cpu' or 'cuda', found 'gpu'"),
        ({"device": "cuda:1"}, "found 'cuda:1'"),
        ({"threads": 0}, "1 to 1024, found 0"),
        ({"threads": True}, "found True"),
        ({"threads": 2.0}, "found 2.0"),
        ({"max_batch": 0}, "max_batch: expected an integer from 1 to 1024"),
    ],
)
def test_options_that_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        open_engine([merged()], **changes)  # type: ignore[arg-type]


def test_a_graph_needs_a_key_of_64_digits() -> None:
    with pytest.raises(InputError, match="64 hex digits"):
        Graph("../x", {"crops": "crops"}, ("scores",), lambda: (b"", {}))


def test_weights_in_bfloat16() -> None:
    """NumPy has no such type; the runtime has, and takes them from where they lie."""
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [1024], np.arange(1024) / 128)
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "wide"], ["y"]),
    ]
    made = graph(model(nodes, [value("x", "n", 1024)], [value("y", "n", 1024)], [weight]))
    assert made.load()[1]["w"].dtype.name == "bfloat16"
    with open_engine([made], device="cpu") as engine:
        found = engine.run({"x": np.zeros((2, 1024), np.float32)})["y"]
    kept = np.arange(1024, dtype=np.float32) / 128
    np.testing.assert_allclose(found, np.stack([kept, kept]), rtol=2**-8)
    assert (found[0, :256] == kept[:256]).all() and (found[0] != kept).any()
