"""Hard negatives (paper 3.4): clusters of negatives, how far each is from the positives, and which of them stay."""

from __future__ import annotations

from graftsdk.errors import MissingDependency

try:
    from graftsdk.training.mining.clusters import Clusters, Reduced, find_clusters, reduce_features, usual_clusters
    from graftsdk.training.mining.distance import Distances, cluster_distances, earth_mover, similarities
    from graftsdk.training.mining.features import FeatureRows, FeatureStore
    from graftsdk.training.mining.mine import mine_negatives
    from graftsdk.training.mining.mined import ClusterRow, Mined, MiningOptions, mine_features
    from graftsdk.training.mining.report import MiningReport, read_list
    from graftsdk.training.mining.selection import Decision, Selection, select
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("torch", "torchvision"):
        raise
    raise MissingDependency(f"mining needs {error.name}: pip install 'graftsdk[train]'") from error

__all__ = [
    "ClusterRow",
    "Clusters",
    "Decision",
    "Distances",
    "FeatureRows",
    "FeatureStore",
    "Mined",
    "MiningOptions",
    "MiningReport",
    "Reduced",
    "Selection",
    "cluster_distances",
    "earth_mover",
    "find_clusters",
    "mine_features",
    "mine_negatives",
    "read_list",
    "reduce_features",
    "select",
    "similarities",
    "usual_clusters",
]
