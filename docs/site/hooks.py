"""Pages of the site that are no files of docs/: README, CONTRIBUTING and CHANGELOG, and the API, a page a room."""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
API = """# API

Generated from the sources, a page for each room of the [architecture](../architecture.md). What a module of your own
has to define is said at the top of [games](games.md) and [models](models.md); the rest is for those who read on, or who
build upon single parts.
"""


def rooms() -> dict[str, list[str]]:
    """The public modules of the package by room: {"layers": ["gan_jax.layers", "gan_jax.layers.conv", ...], ...}."""
    result: dict[str, list[str]] = {}
    for file in sorted((ROOT / "gan_jax").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            result.setdefault(parts[1] if len(parts) > 1 else "gan_jax", []).append(".".join(parts))
    return result


def on_config(config):
    """Adds the API's pages to the navigation."""
    listed = next(section["API"] for section in config.nav if "API" in section)
    listed += [{room: f"api/{room}.md"} for room in rooms()]
    return config


def on_files(files, config):
    """Adds the generated pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "api/index.md", content=API))
    for room, modules in rooms().items():
        files.append(File.generated(config, f"api/{room}.md", content=_page(room, modules)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between the repository's files into links between pages."""
    if page.file.src_uri in PAGES.values():
        markdown = re.sub(r"\]\(docs/", "](", markdown)
    for source, target in PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}(?=[)#])", f"]({target}", markdown)
    return markdown


def _page(room: str, modules: list[str]) -> str:
    """Every module of a room under a heading of its own, but for the room itself, which is the title."""
    root = "gan_jax" if room == "gan_jax" else f"gan_jax.{room}"
    lines = [f"# {root}", f"::: {root}\n    options: {{show_root_toc_entry: false}}"]
    lines += [f"::: {module}\n    options: {{show_root_heading: true, show_root_full_path: true, heading_level: 2}}"
              for module in modules if module != root]  # fmt: skip
    return "\n\n".join(lines) + "\n"
