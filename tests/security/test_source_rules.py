"""What the source of graftsdk may not contain, read from the installed package; each rule is proved on a bad snippet.

The rules stand in SECURITY.md, "No code in files" and "Writing files". They look at names, not at values: a rule that
could be got round by an alias is meant for slips, not for an author who wants to hide something.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Finding = tuple[int, str]
Rule = Callable[[ast.Module, str], Iterator[Finding]]

PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "joblib", "marshal", "shelve", "dill"}
ARCHIVES = {"tarfile", "zipfile"}
NETWORK = {
    *(
        "socket",
        "socketserver",
        "ssl",
        "http",
        "urllib",
        "urllib3",
        "ftplib",
        "smtplib",
        "poplib",
        "imaplib",
    ),
    *("telnetlib", "xmlrpc", "requests", "httpx", "aiohttp", "huggingface_hub"),
}
CODE = {"eval", "exec", "compile", "__import__"}
# The one place that reads a foreign checkpoint (`graftsdk import`).
TORCH_LOAD_HOME = "models/pth.py"


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain; `` of what is none; `.c` of a chain that starts with something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every module that is imported by statement or by `import_module("name")`, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "import_module" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def banned_imports(names: set[str]) -> Rule:
    def rule(tree: ast.Module, path: str) -> Iterator[Finding]:
        for line, module in imported(tree):
            if module.split(".")[0] in names:
                yield line, f"import of {module}"

    return rule


def reaches_a_network(tree: ast.Module, path: str) -> Iterator[Finding]:
    for line, found in banned_imports(NETWORK)(tree, path):
        if found not in {"import of http", "import of http.HTTPStatus"}:  # names of status codes, nothing else
            yield line, found
    for call, name in calls(tree):  # an event loop may be awaited; asyncio's connections may not be made
        if name.split(".")[-1] in {"open_connection", "create_connection", "start_server", "create_server"}:
            yield call.lineno, f"{name}()"


def runs_code(tree: ast.Module, path: str) -> Iterator[Finding]:
    for call, name in calls(tree):
        if name.removeprefix("builtins.") in CODE:
            yield call.lineno, f"{name}()"


def loads_objects(tree: ast.Module, path: str) -> Iterator[Finding]:
    for call, name in calls(tree):
        if name == "torch.load" and not (path.startswith(TORCH_LOAD_HOME) and is_true(keyword(call, "weights_only"))):
            yield call.lineno, "torch.load outside the import of torchvision weights, or without weights_only=True"
        if name in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
            yield call.lineno, name
        allowed = keyword(call, "allow_pickle")
        if allowed is not None and not is_false(allowed):
            yield call.lineno, "allow_pickle"
    for line, module in imported(tree):
        if module in {"torch.load", "yaml.load"}:
            yield line, f"import of {module}"


def unpacks(tree: ast.Module, path: str) -> Iterator[Finding]:
    yield from banned_imports(ARCHIVES)(tree, path)
    for call, name in calls(tree):
        if name.split(".")[-1] in {"unpack_archive", "extractall"}:
            yield call.lineno, f"{name}()"


def writes_files(tree: ast.Module, path: str) -> Iterator[Finding]:
    if path == "files.py":  # atomic_write itself
        return
    for call, name in calls(tree):
        last = name.split(".")[-1]
        if last in {"write_text", "write_bytes", "imwrite", "tofile", "save_file"}:
            yield call.lineno, f"{name}(): write through files.atomic_write"
        elif name in {"open", "io.open", "builtins.open"} and not reads_only(call, position=1):
            yield call.lineno, "open() for writing, or with a mode that cannot be read here"
        elif last == "open" and name not in {"open", "os.open"} and opens_a_path(call):
            yield call.lineno, f"{name}() for writing"


def reads_only(call: ast.Call, position: int) -> bool:
    mode = keyword(call, "mode") or (call.args[position] if len(call.args) > position else None)
    if mode is None:
        return True
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and not set("wax+") & set(mode.value)


def opens_a_path(call: ast.Call) -> bool:
    """`path.open(mode)`: told from `Image.open(file)`, `os.open(path, flags)` by a mode that is a short literal."""
    mode = keyword(call, "mode") or (call.args[0] if call.args else None)
    if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str) and len(mode.value) <= 3):
        return False
    return bool(set("wax+") & set(mode.value))


def uses_a_shell(tree: ast.Module, path: str) -> Iterator[Finding]:
    for call, name in calls(tree):
        shell = keyword(call, "shell")
        if shell is not None and not is_false(shell):
            yield call.lineno, f"{name}(shell=...)"
        if name in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}:
            yield call.lineno, f"{name}()"


def swallows_errors(tree: ast.Module, path: str) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield node.lineno, "bare except"
            if all(isinstance(line, ast.Pass) or is_ellipsis(line) for line in node.body):
                yield node.lineno, "except: pass"
    for call, name in calls(tree):
        if name.split(".")[-1] == "suppress" and any(dotted(a) in {"Exception", "BaseException"} for a in call.args):
            yield call.lineno, "suppress(Exception)"


def is_ellipsis(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


RULES: dict[str, Rule] = {
    "no pickles": banned_imports(PICKLES),
    "no network": reaches_a_network,
    "no code from strings": runs_code,
    "no objects from files": loads_objects,
    "no archives": unpacks,
    "files are written by atomic_write": writes_files,
    "no shell": uses_a_shell,
    "no error is swallowed": swallows_errors,
}

BAD = [
    ("no pickles", "import pickle"),
    ("no pickles", "from joblib import load"),
    ("no pickles", "def late():\n    import dill.source"),
    ("no pickles", "import importlib\nimportlib.import_module('cloudpickle')"),
    ("no network", "import socket"),
    ("no network", "from urllib.request import urlopen"),
    ("no network", "def late():\n    import http.client"),
    ("no network", "from http import client"),
    ("no network", "import asyncio\nasyncio.open_connection('a', 1)"),
    ("no code from strings", "eval('1')"),
    ("no code from strings", "import builtins\nbuiltins.exec('x = 1')"),
    ("no code from strings", "__import__('os')"),
    ("no objects from files", "import torch\ntorch.load('x.pt')"),
    ("no objects from files", "import torch\ntorch.load('x.pt', weights_only=True)"),  # right, but not in its place
    ("no objects from files", "from torch import load"),
    ("no objects from files", "import numpy as np\nnp.load('x.npy', allow_pickle=True)"),
    ("no objects from files", "import numpy as np\nflag = True\nnp.load('x.npy', allow_pickle=flag)"),
    ("no objects from files", "import yaml\nyaml.load('a: 1')"),
    ("no archives", "import tarfile"),
    ("no archives", "import shutil\nshutil.unpack_archive('x.zip')"),
    ("files are written by atomic_write", "open('x', 'w')"),
    ("files are written by atomic_write", "open('x', mode='ab')"),
    ("files are written by atomic_write", "open('x', 'r+b')"),
    ("files are written by atomic_write", "mode = 'r'\nopen('x', mode)"),  # cannot be read here
    ("files are written by atomic_write", "path.open('wb')"),
    ("files are written by atomic_write", "Path('x').open(mode='x')"),
    ("files are written by atomic_write", "Path('x').write_bytes(b'')"),
    ("files are written by atomic_write", "import cv2\ncv2.imwrite('x.png', image)"),
    ("no shell", "import subprocess\nsubprocess.run('ls', shell=True)"),
    ("no shell", "import os\nos.system('ls')"),
    ("no error is swallowed", "try:\n    x()\nexcept ValueError:\n    pass"),
    ("no error is swallowed", "try:\n    x()\nexcept:\n    y()"),
    ("no error is swallowed", "try:\n    x()\nexcept OSError:\n    ..."),
    ("no error is swallowed", "import contextlib\nwith contextlib.suppress(Exception):\n    x()"),
]

GOOD = """
import contextlib, os, subprocess
from importlib import import_module
import numpy as np
from PIL import Image
open("x")
open("x", "rb")
path.open("rb")
Image.open(file)
os.open("x", os.O_RDONLY)
np.load("x.npy", allow_pickle=False)
subprocess.run(["ls"], check=True)
import_module(name)
re.compile("x")
with contextlib.suppress(FileNotFoundError):
    os.unlink("x")
try:
    x()
except ValueError as error:
    raise TypeError("y") from error
"""


def folders() -> dict[str, Path]:
    """The package, and graftsdk.export, which an editable install keeps in a folder of its own."""
    found = {}
    for name in ("graftsdk", "graftsdk.export"):
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{name} is not installed"
        assert spec.submodule_search_locations
        found[name] = Path(spec.submodule_search_locations[0])
    return found


def sources() -> dict[str, Path]:
    """Path inside the package -> file."""
    prefixes = {"graftsdk": "", "graftsdk.export": "export/"}
    return {
        prefixes[name] + file.relative_to(folder).as_posix(): file
        for name, folder in folders().items()
        for file in sorted(folder.rglob("*.py"))
    }


def test_the_whole_package_is_read() -> None:
    found = sources()
    assert {"__init__.py", "errors.py", "files.py", "plan/__init__.py", "export/__init__.py"} <= set(found)


@pytest.mark.parametrize("name", RULES)
def test_source_keeps_the_rule(name: str) -> None:
    findings = [
        f"graftsdk/{path}:{line}: {what}"
        for path, file in sources().items()
        for line, what in RULES[name](ast.parse(file.read_text(encoding="utf-8")), path)
    ]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(("name", "snippet"), BAD)
def test_rule_finds_a_planted_breach(name: str, snippet: str) -> None:
    assert list(RULES[name](ast.parse(snippet), "planted.py"))


def test_every_rule_is_proved() -> None:
    assert {name for name, _ in BAD} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_rule_lets_good_code_pass(name: str) -> None:
    assert not list(RULES[name](ast.parse(GOOD), "planted.py"))


def test_the_two_exceptions_hold_in_their_own_place_only() -> None:
    load = ast.parse("import torch\ntorch.load('x.pth', weights_only=True)")
    assert not list(loads_objects(load, "models/pth.py"))
    unsafe = ast.parse("import torch\ntorch.load('x.pth', weights_only=False)")
    assert list(loads_objects(unsafe, "models/pth.py"))
    write = ast.parse("open('x', 'wb')")
    assert not list(writes_files(write, "files.py"))
    assert list(writes_files(write, "plan/files.py"))
