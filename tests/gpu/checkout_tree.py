"""graftsdk out of the checkout, without an installation: a folder for PYTHONPATH, and the native module in it.

An installation maps `export/` to `graftsdk.export` and puts `_native` beside the other modules. Here a folder of links
does both, so that processes that are started see the same, and nothing is written into the checkout but in `build/`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["NativeMissing", "link_tree", "native_module"]

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
# As in CMakeLists.txt, for machines without cmake or pybind11's own files for it.
_FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-pthread")
_VECTORS = {"crop_steps_avx2": ("-mavx2",), "crop_steps_avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl")}


class NativeMissing(Exception):
    """The native module is not there and cannot be built; says what to install."""


def link_tree(build: Path) -> Path:
    """A folder for PYTHONPATH in `build`, made anew, in which `graftsdk` is the checkout's, `graftsdk.export` too.

    Raises:
        NativeMissing: no native module for this interpreter, and no way to build one.
    """
    native = native_module(build)
    site = build / f"site-{SUFFIX.strip('.').removesuffix('.so')}"
    package = site / "graftsdk"
    package.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (ROOT / "graftsdk").iterdir() if path.suffix != ".so"}
    wanted.pop("__pycache__", None)
    wanted |= {"export": ROOT / "export", native.name: native}
    for old in package.iterdir():
        if old.is_symlink() and old.name not in wanted:
            old.unlink()
    for name, target in wanted.items():
        link = package / name
        if not link.is_symlink() or Path(os.readlink(link)) != target:
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(target)
    return site


def native_module(build: Path) -> Path:
    """The native module for this interpreter: the checkout's own where it is newer than its sources, else built.

    Raises:
        NativeMissing: it cannot be built here, or the compiler refuses.
    """
    name = f"_native{SUFFIX}"
    sources = [path for path in (ROOT / "cpp_ext").rglob("*") if path.suffix in (".cpp", ".hpp")]
    newest = max(path.stat().st_mtime for path in sources)
    made = build / "native" / name
    for found in (ROOT / "graftsdk" / name, made):
        if found.exists() and found.stat().st_mtime >= newest:
            return found
    made.parent.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        raise NativeMissing(f"{name}: expected it in graftsdk/, or a C++ compiler to build it; install g++")
    folders = list(_pybind11_folders())
    if not folders:
        raise NativeMissing(f"{name}: expected pybind11's headers, by itself or in torch; pip install pybind11")
    print(f"building {name} in {made.parent}", flush=True)
    if shutil.which("cmake") and (folders[0] / "pybind11" / "detail").is_dir() and _by_cmake(made):
        return made
    _by_compiler(compiler, folders[0], made)
    return made


def _pybind11_folders() -> Iterator[Path]:
    """Folders with pybind11's headers, its own before torch's."""
    for package in ("pybind11", "torch"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "include"
            if (folder / "pybind11" / "pybind11.h").exists():
                yield folder


def _by_cmake(made: Path) -> bool:
    """By the project's own CMakeLists.txt; False where pybind11 has no files for cmake, as torch's copy has none."""
    asked = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        return False
    folder = made.parent / "cmake"
    configured = _run(
        ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release",
         f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={asked.stdout.strip()}"]
    )  # fmt: skip
    if not configured or not _run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1)]):
        return False
    shutil.copyfile(folder / made.name, made.with_suffix(".part"))
    made.with_suffix(".part").replace(made)
    return True


def _by_compiler(compiler: str, headers: Path, made: Path) -> None:
    intel = platform.machine().lower() in ("x86_64", "amd64")
    sources = sorted((ROOT / "cpp_ext" / "core").glob("*.cpp")) + sorted((ROOT / "cpp_ext" / "bindings").glob("*.cpp"))
    base = [*_FLAGS, f"-I{ROOT / 'cpp_ext'}", f"-I{headers}", f"-I{sysconfig.get_paths()['include']}"]
    base += ["-DGRAFTSDK_X86"] if intel else []
    objects = []
    for source in sources:
        if source.stem in _VECTORS and not intel:
            continue
        objects.append(made.parent / f"{source.parent.name}-{source.stem}.o")
        flags = [*base, *_VECTORS.get(source.stem, ())]
        if not _run([compiler, *flags, "-c", str(source), "-o", str(objects[-1])]):
            raise NativeMissing(f"{made.name}: {compiler} refuses {source.name}; see above")
    part = made.with_suffix(".part")
    if not _run([compiler, "-shared", "-pthread", *map(str, objects), "-o", str(part)]):
        raise NativeMissing(f"{made.name}: {compiler} does not link it; see above")
    part.replace(made)


def _run(command: Sequence[str]) -> bool:
    """Whether it went well; what it says is shown where not."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print(f"$ {' '.join(command)}\n{done.stdout}", flush=True)
    return done.returncode == 0
