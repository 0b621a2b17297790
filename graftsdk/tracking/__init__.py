"""Persons over a stream's frames: what is computed when, what was said before, and what changed.

Whose box is whose is said by others: the package `trackers`, or the caller.
"""

from graftsdk.tracking.events import Event
from graftsdk.tracking.identities import Tracker
from graftsdk.tracking.look import Look
from graftsdk.tracking.options import Tracking
from graftsdk.tracking.tracked import Tracked, tracked

__all__ = ["Event", "Look", "Tracked", "Tracker", "Tracking", "tracked"]
