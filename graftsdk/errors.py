"""What graftsdk raises. Each leaf also derives from the builtin that fits it.

    GraftError                          code: a stable name for programs, the class name
    ├── InputError(ValueError)          what the caller handed in cannot be used
    │   ├── DTypeError                  an array of another dtype or byte order
    │   ├── ShapeError                  an array of another rank or shape
    │   ├── LayoutError                 an array whose axes are in another order
    │   ├── ImageTooLarge               more pixels, bytes or a longer side than the limit
    │   ├── ImageTooSmall               a side below the least size that works
    │   └── DecodeError                 bytes that are no readable image or video
    ├── PlanError(ValueError)           a plan, part or checkpoint file that cannot be trusted
    │   ├── PlanTruncated               the file ends before what its header announces
    │   ├── PlanCorrupt                 bytes, digests or fields that contradict each other
    │   ├── PlanVersionError            written by another schema version
    │   ├── PlanPathError               a path or file that must not be followed or written
    │   ├── PlanLimitError              more than a plan may hold
    │   └── FingerprintMismatch         a branch that was trained on another trunk
    ├── ExportError(RuntimeError)       checkpoints could not be turned into parts
    │   ├── MergeConflict               two things claim one name
    │   ├── ValidationFailed            an exported part does not agree with torch
    │   └── UnsupportedOp               something that has no exact form in the exported graph
    ├── EngineError(RuntimeError)       graphs could not be compiled or run
    │   ├── EngineBuildError            the runtime refused the graph
    │   ├── EngineIncompatible          device, runtime or precision that is not at hand
    │   ├── EngineOutOfMemory           memory ran out while compiling or running
    │   ├── EngineClosed                used after close()
    │   ├── EngineForked                opened in a parent process and not reopenable here
    │   └── NonFiniteOutput             a NaN or infinite score; names the label
    ├── MissingDependency(ImportError)  an optional package is absent; gives the install line
    └── Overloaded(RuntimeError)        a queue is full or a deadline has passed

Every message says what was expected, what was found and what to do.
"""

from __future__ import annotations

__all__ = [
    "DTypeError",
    "DecodeError",
    "EngineBuildError",
    "EngineClosed",
    "EngineError",
    "EngineForked",
    "EngineIncompatible",
    "EngineOutOfMemory",
    "ExportError",
    "FingerprintMismatch",
    "GraftError",
    "ImageTooLarge",
    "ImageTooSmall",
    "InputError",
    "LayoutError",
    "MergeConflict",
    "MissingDependency",
    "NonFiniteOutput",
    "Overloaded",
    "PlanCorrupt",
    "PlanError",
    "PlanLimitError",
    "PlanPathError",
    "PlanTruncated",
    "PlanVersionError",
    "ShapeError",
    "UnsupportedOp",
    "ValidationFailed",
]


class GraftError(Exception):
    """Base of everything that graftsdk raises on purpose.

    Attributes:
        source: of an image of a list that could not be used, its path, or "image 3"; else None.
    """

    source: str | None = None

    @property
    def code(self) -> str:
        """A stable name for programs: the class name."""
        return type(self).__name__


class InputError(GraftError, ValueError):
    """What the caller handed in cannot be used."""


class DTypeError(InputError):
    """An array of another dtype or byte order."""


class ShapeError(InputError):
    """An array of another rank or shape."""


class LayoutError(InputError):
    """An array whose axes are in another order."""


class ImageTooLarge(InputError):
    """More pixels, bytes or a longer side than the limit."""


class ImageTooSmall(InputError):
    """A side below the least size that works."""


class DecodeError(InputError):
    """Bytes that are no readable image or video, or a video or camera that broke off."""


class PlanError(GraftError, ValueError):
    """A plan, part or checkpoint file that cannot be trusted."""


class PlanTruncated(PlanError):
    """The file ends before what its header announces."""


class PlanCorrupt(PlanError):
    """Bytes, digests or fields that contradict each other."""


class PlanVersionError(PlanError):
    """Written by another schema version."""


class PlanPathError(PlanError):
    """A path or file that must not be followed or written."""


class PlanLimitError(PlanError):
    """More than a plan may hold."""


class FingerprintMismatch(PlanError):
    """A branch that was trained on another trunk."""


class ExportError(GraftError, RuntimeError):
    """Checkpoints could not be turned into parts."""


class MergeConflict(ExportError):
    """Two things claim one name."""


class ValidationFailed(ExportError):
    """An exported part does not agree with torch."""


class UnsupportedOp(ExportError):
    """Something that has no exact form in the exported graph."""


class EngineError(GraftError, RuntimeError):
    """Graphs could not be compiled or run."""


class EngineBuildError(EngineError):
    """The runtime refused the graph."""


class EngineIncompatible(EngineError):
    """A device, runtime or precision that is not at hand."""


class EngineOutOfMemory(EngineError):
    """Memory ran out while compiling or running."""


class EngineClosed(EngineError):
    """Used after close()."""


class EngineForked(EngineError):
    """Opened in a parent process and not reopenable here."""


class NonFiniteOutput(EngineError):
    """A NaN or infinite score; the message names the label."""


class MissingDependency(GraftError, ImportError):
    """An optional package is absent; the message gives the install line."""


class Overloaded(GraftError, RuntimeError):
    """A queue is full or a deadline has passed."""
