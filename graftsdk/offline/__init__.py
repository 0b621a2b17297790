"""Folders of images to one Parquet file, on this machine or on a Ray cluster; what is interrupted goes on.

pyarrow is imported when something is run, Ray only where it is asked for.
"""

from graftsdk.offline.batch import CHUNK, run_batch
from graftsdk.offline.summary import Summary

__all__ = ["CHUNK", "Summary", "run_batch"]
