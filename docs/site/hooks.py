"""What MkDocs calls: texts that stand elsewhere in the repository become pages, and links between them are followed.

SECURITY.md, CHANGELOG.md, FORMAT.md and the benchmarks stand in one place, where a reader of the repository finds them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
ELSEWHERE = {  # path in the repository -> page
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "graftsdk/plan/FORMAT.md": "format.md",
    "benchmarks/README.md": "benchmarks.md",
}
_LINK = re.compile(r"(?<!`)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_PICTURES = (".png", ".jpg", ".svg", ".csv")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of ELSEWHERE, and the pictures that they show."""
    for path, page in ELSEWHERE.items():
        if page in _pages(config):
            files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    for picture in (ROOT / "benchmarks" / "curves").glob("*.png"):
        files.append(File.generated(config, f"curves/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links written for the repository, as links of the site; those to source files are left as their names."""
    homes = {page: path for path, page in ELSEWHERE.items()}
    here = posixpath.dirname(homes.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def follow(found: re.Match[str]) -> str:
        text, target, anchor = found.group(1), found.group(2), found.group(3) or ""
        if ":" in target:
            return found.group(0)
        path = posixpath.normpath(posixpath.join(here, target))
        if path in ELSEWHERE and ELSEWHERE[path] in _pages(config):
            to = ELSEWHERE[path]
        elif path.startswith("docs/"):
            to = path.removeprefix("docs/")
        elif path.startswith("benchmarks/curves/"):
            to = path.removeprefix("benchmarks/")
        else:
            if not (ROOT / path).exists():
                return found.group(0)  # MkDocs says that it leads nowhere
            return f"`{path}`"
        start = posixpath.dirname(page.file.src_uri)
        return f"[{text}]({posixpath.relpath(to, start or '.')}{anchor})"

    return _LINK.sub(follow, markdown)


def _pages(config: Any) -> set[str]:
    """The pages of the navigation."""

    def walk(node: Any) -> Any:
        if isinstance(node, str):
            yield node
        else:
            for child in node.values() if isinstance(node, dict) else node:
                yield from walk(child)

    return set(walk(config["nav"]))
