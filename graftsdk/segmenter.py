"""`Segmenter`: an image goes in, people come out. An adapter and the engine that it reads, opened together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graftsdk.engines import Engine, Graph, open_engine
from graftsdk.engines.layout import part_graph, segmenter_graph
from graftsdk.plan import Part, Plan, SegmenterInfo
from graftsdk.scores import check_fraction
from graftsdk.segment import Adapter, Instances, open_adapter

__all__ = ["Segmenter"]


class Segmenter:
    """An instance segmentation network, compiled and ready; what `Predictor` has in front.

    One segmenter serves many threads, and a forked child opens its engine again at the first call. Use it in a `with`
    block, or `close()` it.

    Args:
        info: how the network is fed and its outputs are read.
        network: its part, or the graph made of it.
        device: "cpu", "cuda" (never falls back), or "auto" (cuda where it works, else cpu).
        threads: None follows the CPUs that this process may use.
        cache: whether the engine cache is used; False compiles for this process only.
        open_graphs: what opens the network instead, on an engine of its own choice; the three above are unused then.

    Raises:
        InputError: a family that this version does not know, or another argument. EngineError: it cannot be opened.

    Attributes:
        info: as given. adapter: of its family. engine: what runs the network. device: "cpu" or "cuda", what really
            runs.
    """

    def __init__(
        self,
        info: SegmenterInfo,
        network: Part | Graph,
        *,
        device: str = "auto",
        threads: int | None = None,
        cache: bool = True,
        open_graphs: Callable[[Sequence[Graph]], Engine] | None = None,
    ) -> None:
        self.info = info
        self.adapter: Adapter = open_adapter(info)
        graph = part_graph(network) if isinstance(network, Part) else network
        if open_graphs is None:
            open_graphs = partial(open_engine, device=device, threads=threads, cache=cache)
        self.engine: Engine = open_graphs([graph])
        self.device: str = self.engine.device

    @classmethod
    def of_plan(
        cls,
        plan: Plan,
        *,
        device: str = "auto",
        threads: int | None = None,
        open_graphs: Callable[[Sequence[Graph]], Engine] | None = None,
    ) -> Segmenter:
        """The plan's own, which reads the plan until it is closed: close the plan after it.

        Arguments as for the class.

        Raises:
            InputError: the plan has none, or as the class. EngineError: it cannot be opened.
        """
        graph = segmenter_graph(plan)
        info = plan.manifest.segmenter
        assert info is not None  # segmenter_graph looked
        return cls(info, graph, device=device, threads=threads, open_graphs=open_graphs)

    @property
    def compiled(self) -> bool:
        """Whether the network was compiled when it was opened; its first run is slow then."""
        return self.engine.compiled

    def find(self, image: npt.NDArray[np.uint8], min_score: float | None = None) -> Instances:
        """The people in an image, the surest first.

        Args:
            image: uint8[H, W, 3], BGR, as `check_image` returns it.
            min_score: least score of a person, 0..1; None takes the segmenter's own.

        Raises:
            InputError: another `min_score`. NonFiniteOutput: the network gives NaN or infinity for this image.
            ShapeError: it gives other shapes than its family. EngineError: the engine failed.
        """
        if min_score is not None:
            min_score = check_fraction("min_score", min_score)
        feed, geometry = self.adapter.prepare(image)
        values = self.engine.run({self.info.input: feed}, self.info.outputs)
        return self.adapter.decode([values[name] for name in self.info.outputs], geometry, min_score)

    def close(self) -> None:
        """Let go of the engine. Calls in flight finish; later ones raise EngineClosed."""
        self.engine.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        height, width = self.info.input_size
        return f"Segmenter({self.info.family!r}, {height}x{width}, device={self.device!r})"
