"""What a GPU makes of the reference plan, in one interleaved run: `make gpu-bench`. Every line says what it measured,
its target, and what was reached or why it could not be had.

Weights are random: times and bits are real, accuracies mean nothing. Runtimes that are not here are left out, and said
to be. `--dry` runs all of it on small plans by stand-ins without a GPU, to see that it runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
CHECKOUT = ROOT.parent
# Under PYTHONSAFEPATH the folder of the script is not on the path; the survey and the records are the GPU tests' own.
sys.path[:0] = [str(ROOT), str(CHECKOUT / "tests" / "gpu")]

from gpu_results import State, add_run, markdown_table  # noqa: E402
from gpu_rows import COLUMNS, Row, as_text  # noqa: E402
from gpu_survey import Found, gpus, survey  # noqa: E402

PARTS = ("tensorrt", "onnxruntime", "torch", "crop", "predict", "untargeted")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="where plans are built and kept")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS)
    parser.add_argument("--precision", default="fp16", choices=("fp16", "bf16", "float32"))
    parser.add_argument("--torch-mode", default="reduce-overhead", choices=("reduce-overhead", "max-autotune"))
    parser.add_argument("--record", action="store_true", help="put the results into docs/gpu-results.md")
    parser.add_argument("--dry", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not gpus() and not options.dry:
        print("no GPU here: nothing was measured; see `python tests/gpu/prepare.py report`")
        return 0
    bench = Bench(options)
    with tempfile.TemporaryDirectory(prefix="graftsdk-bench-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        bench.run(Path(cache))
    print(f"\n{as_text(bench.rows)}")
    if options.dry:
        print("\na dry run: stand-ins on small plans; no figure above means anything")
    if options.record and not options.dry:
        bench.record()
    return 1 if bench.failed else 0


class Bench:
    """One run. Attributes: rows: what came out. failed: the parts that ended with an error of their own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rows: list[Row] = []
        self.failed: list[str] = []
        self._options, self._lines = options, list[str]()
        self._rounds = 3 if options.dry else options.rounds
        self._survey: list[Found] = survey()

    def run(self, scratch: Path) -> None:
        from gpu_engines import absent
        from gpu_plans import prepare

        self._work = prepare(self._options.folder, small=self._options.dry)
        kinds = self._kinds(scratch)
        others = self._part("torch", self._torch) or {}
        for part, kind, trouble in kinds:
            if trouble is not None:
                self._say(absent(kind, trouble))
                continue
            self._part(part, lambda kind=kind: self._compare(kind, others))
            self._part("predict", lambda kind=kind: self._predict(kind))
        if not any(trouble is None for _, _, trouble in kinds) and others:
            self._part("torch", lambda: self._torch_alone(others))
        self._part("crop", self._crop)
        self._part("untargeted", self._untargeted)

    def record(self) -> None:
        """Into docs/gpu-results.md."""
        gpu = gpus()[0]
        states = [State(gpu.name, gpu.capability, "benchmark", "tested", f"{len(self.rows)} lines, see below")]
        tables = "\n".join(self._lines)
        body = f"{markdown_table(COLUMNS, [row.cells() for row in self.rows])}\n\n```text\n{tables.strip()}\n```"
        arguments = [word for word in sys.argv[1:] if word != "--record"]
        command = f"make gpu-bench RECORD=1{f' ARGS={shlex.quote(shlex.join(arguments))}' if arguments else ''}"
        add_run("Benchmark", command, self._survey, body, states)
        print("\nput into docs/gpu-results.md")

    def _part(self, name: str, act: Callable[[], Any]) -> Any:
        """What `act` gives; an error of it is a line, and the others go on."""
        if name in self._options.skip:
            return None
        started = time.perf_counter()
        try:
            return act()
        except Exception as error:  # half an hour on a rented GPU must not end with the first of them
            self.failed.append(name)
            self._say([Row(name, None, why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")])
            if self._options.dry:
                raise
        finally:
            print(f"({name}: {time.perf_counter() - started:.0f} s)", flush=True)
        return None

    def _say(self, rows: Sequence[Row]) -> None:
        self.rows += rows
        print(as_text(rows), flush=True)

    def _note(self, lines: Sequence[str]) -> None:
        self._lines += lines
        print("\n".join(lines), flush=True)

    def _kinds(self, scratch: Path) -> list[tuple[str, Any, str | None]]:
        """(part, kind, why it does not run here or None) of the TensorRT that is here, and of ONNX Runtime."""
        from gpu_engines import Kind

        precision = self._options.precision
        if self._options.dry:
            return [
                (
                    "tensorrt",
                    Kind("stand-in for TensorRT", "float32", _stand_in(scratch), scratch / "engines", "cuda", "cpu"),
                    None,
                ),
                ("onnxruntime", Kind("ONNX Runtime CPU", "float32", None, scratch, "cpu", "cpu"), None),
            ]
        from graftsdk.engines.available import engines_here

        here = {state.name: state for state in engines_here()}
        found = []
        names = [name for name in ("tensorrt", "tensorrt-rtx") if here[name].works] or ["tensorrt", "tensorrt-rtx"]
        versions = {row.what: row.version for row in self._survey}
        for name in names:
            title = f"{name} {versions.get(name, '')}".strip() + f", {precision}"
            kind = Kind(title, precision, name.replace("-", "_"), scratch / f"{name}.engines")
            found.append(("tensorrt", kind, None if here[name].works else here[name].says))
        state = here["onnxruntime cuda"]
        kind = Kind(f"ONNX Runtime CUDA, {precision}", precision, None, scratch)
        return [*found, ("onnxruntime", kind, None if state.works else state.says)]

    def _torch(self) -> dict[str, Any]:
        from gpu_torch import compiled

        others, _ = compiled(self._work, self._options.torch_mode, "cpu" if self._options.dry else "cuda")
        return others

    def _torch_alone(self, others: dict[str, Any]) -> None:
        """Where no runtime of ours is there to stand beside it."""
        from measure import interleave, table

        for batch in self._work.batches:
            times = interleave({name: make(batch) for name, make in others.items()}, self._rounds)
            self._note([f"\nbatch {batch}\n{table(times, 'crop', batch, next(iter(times)))}"])
            self._say(
                [
                    Row(f"{name}, batch {batch}", 1e3 * value.median / batch, unit="ms a crop")
                    for name, value in times.items()
                ]
            )

    def _compare(self, kind: Any, others: dict[str, Any]) -> None:
        from gpu_engines import compare

        rows, lines = compare(kind, self._work, self._rounds, others)
        self._note(lines)
        self._say(rows)

    def _predict(self, kind: Any) -> None:
        from gpu_predict import predict_rows

        self._say(predict_rows(kind, self._work, self._rounds))

    def _crop(self) -> None:
        from gpu_crop import crop_rows

        from graftsdk.engines.cuda import open_device
        from graftsdk.engines.cuda.host import HostDevice
        from graftsdk.engines.cuda.kernels import NAMES, Kernels

        device = HostDevice({name: lambda *_: None for name in NAMES}) if self._options.dry else open_device()
        with device, Kernels(device) as kernels:
            rows, lines = crop_rows(device, kernels, self._rounds, small=self._options.dry)
        self._note(lines)
        self._say(rows)

    def _untargeted(self) -> None:
        from gpu_untargeted import try_untargeted

        self._say([Row("tensorrt_rtx, an engine built without a target", None, why=try_untargeted(), figure=False)])


def _stand_in(scratch: Path) -> str:
    """TensorRT's stand-in in place of the library; its name."""
    sys.path[:0] = [str(CHECKOUT / "tests" / "engines"), str(CHECKOUT / "tests"), str(CHECKOUT)]
    import gpu_stand_ins as stand_ins

    stand_ins.tensorrt_on_a_gpu(setattr, "tensorrt_rtx", stand_ins.compiled_kernels(scratch))
    return "tensorrt_rtx"


if __name__ == "__main__":
    sys.exit(main())
