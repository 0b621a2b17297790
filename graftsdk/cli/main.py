"""`graftsdk`: finds the subcommand, loads its module alone, and turns what it raises into an exit code.

Exit codes: 0 done; 1 a check failed; 2 wrong arguments or an error that is told in one line; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

import graftsdk
from graftsdk.cli.output import INTERRUPTED, HelpFormatter, Parser
from graftsdk.errors import GraftError
from graftsdk.text import one_line

__all__ = ["COMMANDS", "main"]

# Subcommand -> its module, and one line for `graftsdk --help`. A module has configure(parser) and run(args) -> int.
COMMANDS = {
    "info": ("graftsdk.cli.info", "what a plan, part, checkpoint or engine holds; --cost: what each label costs"),
    "predict": ("graftsdk.cli.predict", "people and their attributes in images, videos and live sources"),
    "crop": ("graftsdk.cli.crop", "every person as a picture of its own, for annotation and training"),
    "serve": ("graftsdk.cli.serve", "a plan behind HTTP: JSON, the Open Inference Protocol, a page to look at"),
    "batch": ("graftsdk.cli.batch", "every image of a folder into one Parquet file, resumable; --ray: on a cluster"),
    "bench": ("graftsdk.cli.bench", "how fast a plan is here, stage by stage, and against what it promises"),
    "quantize": ("graftsdk.cli.quantize", "parts of a plan in INT8, FP16 or BF16, each label weighed against float32"),
    "build": ("graftsdk.cli.build", "TensorRT engines of a plan, ahead of time, with or without a GPU here"),
    "export-triton": ("graftsdk.cli.export_triton", "a plan as a model repository of Triton Inference Server"),
    "verify": ("graftsdk.cli.verify", "is a plan still right: digests, golden scores, engine against reference"),
    "doctor": ("graftsdk.cli.doctor", "what this machine can do, and what is wrong with the installation"),
    "cache": ("graftsdk.cli.cache", "the compiled engines of this user: ls, clear, verify"),
    "plan": ("graftsdk.cli.plan", "change plans label by label: add, remove, revert, merge, diff, log"),
    "scenes": ("graftsdk.cli.scenes", "draw lift scenes with exact masks, a data set to train on"),
    "train": ("graftsdk.cli.train", "train a trunk, a label's branch or a segmenter on annotated images"),
    "mine": ("graftsdk.cli.mine", "hard negatives of a label: which ones to train on, which to look at"),
    "evaluate": ("graftsdk.cli.evaluate", "how good labels are, on annotated images: Table 2, intervals, pictures"),
    "status": ("graftsdk.cli.status", "what a graft.toml's labels are trained on, what is stale, what is due"),
    "update": ("graftsdk.cli.update", "train what is due by a graft.toml, and end in a new plan"),
    "import": ("graftsdk.cli.import_", "foreign weights as a checkpoint, annotated data sets as sub-datasets"),
}

WRONG, PIPE_CLOSED = 2, 141
_EPILOG = """\
exit codes: 0 done, 1 a check failed, 2 wrong arguments or an error, 130 interrupted

examples:
  graftsdk predict engine.plan street.jpg clip.mp4 -o pictures/
  graftsdk bench engine.plan

graftsdk COMMAND --help says more. Plans are made by graftsdk-export."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `graftsdk` with these arguments; None takes the process's own.

    Raises:
        SystemExit: as argparse does, after --help and --version (0) and wrong arguments (2).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _print_anything()
    try:
        with _logging_to_stderr():
            args = _parser(arguments).parse_args(arguments)
            code: int = args.run(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (GraftError, OSError) as error:
        print(f"error: {one_line(' '.join(str(error).split()))}", file=sys.stderr)
        return WRONG


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of everything, of which only the subcommand that is asked for is filled in."""
    parser = Parser(
        prog="graftsdk",
        description="One shared trunk, any number of separately trained one-label branches, one plan.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graftsdk {graftsdk.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=HelpFormatter)
        if name == asked:
            import_module(module).configure(command)
    return parser


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """The library's log lines (what is compiled, what was wrong in the cache) on stderr while a command runs."""
    logger = logging.getLogger("graftsdk")
    handler, level = logging.StreamHandler(), logger.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _print_anything() -> None:
    """A label or file name that the terminal's encoding cannot show is escaped, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, or the interpreter would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":  # python -m graftsdk.cli.main: what builds engines for a predictor
    sys.exit(main())
