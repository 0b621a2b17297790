"""Trunks, branches and segmenters in torch: backbones as blocks, checkpoints, fingerprints, costs. Needs `[export]`."""

from __future__ import annotations

from graftsdk.errors import MissingDependency

try:
    from graftsdk.models.backbones import Backbone, backbone, register_backbone, registered_backbones
    from graftsdk.models.branch import Branch
    from graftsdk.models.cost import branch_cost, trunk_cost
    from graftsdk.models.pooling import FewCellsWarning, Pooling, register_pooling, registered_poolings
    from graftsdk.models.torchvision_weights import import_torchvision
    from graftsdk.models.trunk import Trunk
    from graftsdk.models.yolact import Yolact, YolactOutputs
    from graftsdk.models.yolact_import import import_yolact
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("torch", "torchvision"):
        raise
    raise MissingDependency(f"graftsdk.models needs {error.name}: pip install 'graftsdk[export]'") from error

__all__ = [
    "Backbone",
    "Branch",
    "FewCellsWarning",
    "Pooling",
    "Trunk",
    "Yolact",
    "YolactOutputs",
    "backbone",
    "branch_cost",
    "import_torchvision",
    "import_yolact",
    "register_backbone",
    "register_pooling",
    "registered_backbones",
    "registered_poolings",
    "trunk_cost",
]
