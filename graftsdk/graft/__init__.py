"""Parts -> one ONNX graph. Small passes, one a file; onnx_ir is imported when something is grafted."""

from graftsdk.graft.externalize import externalize
from graftsdk.graft.graft import graft, graft_group
from graftsdk.graft.group import Group, Joint, joints_of, merged_group, scores_name, scores_names, tap_name

__all__ = [
    "Group",
    "Joint",
    "externalize",
    "graft",
    "graft_group",
    "joints_of",
    "merged_group",
    "scores_name",
    "scores_names",
    "tap_name",
]
