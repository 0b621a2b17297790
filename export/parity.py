"""Does an engine give the scores that the plan has stored: asked of its very bytes, on the device.

Tested with a stand-in; not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from graftsdk.attribute import decisions
from graftsdk.engines.cuda import open_device
from graftsdk.engines.golden import check_golden
from graftsdk.engines.layout import graphs_of
from graftsdk.engines.reference import open_reference
from graftsdk.engines.tensorrt import Library
from graftsdk.engines.tensorrt_engine import TensorRTEngine
from graftsdk.errors import EngineBuildError
from graftsdk.graft import Group, Joint, scores_name, tap_name
from graftsdk.graft.group import CROPS
from graftsdk.plan import Plan
from graftsdk.preprocess import golden_crops

__all__ = ["TOLERANCES", "Parity"]

# Greatest difference of a probability from the stored one, which ONNX Runtime gave in float32. Chosen by what a branch
# in that precision may lose, emulated on a CPU, with room for other kernels; not measured on a GPU.
TOLERANCES = {"float32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}


class Parity:
    """The golden scores of a group's labels, and the means to compare an engine's with them.

    Args:
        plan: open as long as this is used. group: a merged one, or a branch alone, whose tap is then computed on the
            CPU in float32. joints: label -> its joint, of the labels to look at.
        library: what runs engines. names: how parts are called inside them. precision: of the engines.
        batches: the sizes that they are fed.
    """

    def __init__(
        self,
        plan: Plan,
        group: Group,
        joints: Mapping[str, Joint],
        library: Library,
        *,
        names: Mapping[str, str],
        precision: str,
        batches: Sequence[int],
    ) -> None:
        inside = {*group.joints, *group.loose}
        self._joints = {label: joint for label, joint in joints.items() if joint in inside}
        self._plan, self._library, self._names, self._batches = plan, library, names, batches
        self._graphs = graphs_of(plan, (group,))
        self._crops = golden_crops(plan.manifest.crop)
        self._feeds = self._taps(group) if group.loose else {CROPS: self._crops}
        self._tolerance = TOLERANCES[precision]

    def check(self, content: bytes, former: bytes | None = None, unchanged: Collection[str] = ()) -> float:
        """The greatest difference of a probability from the stored ones.

        Args:
            content: the engine.
            former: the one that it was refitted from: a label whose weights are others must get other scores, lest an
                engine pass whose new weights give nearly the old scores, and did not arrive.
            unchanged: names of parts whose weights are as in `former`.

        Raises:
            EngineBuildError: it is beyond the tolerance of the precision, or weights did not arrive; names the label.
            EngineIncompatible, EngineError: the engine cannot be opened or run.
        """
        scores = self._scores(content)
        manifest, labels = self._plan.manifest, tuple(self._joints)
        changes = check_golden(lambda crops, asked: scores, manifest, self._crops, decisions, labels)
        worst = max(changes, key=lambda change: change.largest)
        if not worst.largest <= self._tolerance:
            raise EngineBuildError(
                f"label {worst.label!r}: expected the plan's golden scores within {self._tolerance:g}, found a "
                f"difference of {worst.largest:.1e} and {worst.flips} decisions that flip"
            )
        before = {} if former is None else self._scores(former)
        for label, old in before.items():
            if self._joints[label].branch not in unchanged and np.array_equal(old, scores[label]):
                raise EngineBuildError(f"label {label!r}: expected other scores of other weights, found the same")
        return worst.largest

    def _scores(self, content: bytes) -> dict[str, np.ndarray[Any, Any]]:
        names = {label: scores_name(joint) for label, joint in self._joints.items()}
        with (
            closing(open_device()) as device,
            TensorRTEngine(
                self._graphs,
                [content],
                library=self._library,
                device=device,
                names=[self._names],
                buckets=self._batches,
            ) as engine,
        ):
            found = engine.run(self._feeds, tuple(dict.fromkeys(names.values())))
        return {label: found[name] for label, name in names.items()}

    def _taps(self, group: Group) -> dict[str, np.ndarray[Any, Any]]:
        wanted = [(joint.trunk, joint.tap) for joint in group.loose]
        trunk = Group(trunks=(wanted[0][0],), taps=(wanted[0],))
        with open_reference(graphs_of(self._plan, (trunk,)), threads=1) as engine:
            return engine.run({CROPS: self._crops}, [tap_name(*wanted[0])])
