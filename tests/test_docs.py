"""The documents: the site builds strictly, links and files that are named exist, commands parse, versions agree."""

import ast
import html
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import urllib.parse

import pytest
import yaml

import gan_jax
from gan_jax import cli, runs
from tests import test_architecture

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
COMMAND = re.compile(r"(?:python launch\.py|gan-jax)(?= |$)(.*)")
FILE = re.compile(r"(?:gan_jax|tests|benchmarks|experiments|docs)/[\w./-]*")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site. The sources are read alone: a JAX that cannot be imported does not matter."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "without").mkdir()
    (folder / "without" / "jax.py").write_text("raise ImportError('the site is built without JAX')")
    environment = {**os.environ, "PYTHONPATH": str(folder / "without"), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder / 'html'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    """Path -> text of every page of the site."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}


def _targets(text):
    """What a page's elements link to or show."""
    return [html.unescape(target) for target in re.findall(r'\s(?:href|src)="?([^"\s>]+)', text)]


def _names(text):
    return {html.unescape(name) for name in re.findall(r'\s(?:id|name)="?([^"\s>]+)', text)}


def test_links_of_the_site_lead_somewhere(site, pages):
    names = {path: _names(text) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for target in _targets(text):
            link = urllib.parse.urlsplit(target)
            if link.scheme or link.netloc or path.name == "404.html":
                continue
            place = (path.parent / urllib.parse.unquote(link.path)).resolve() if link.path else path
            place = place / "index.html" if place.is_dir() else place
            anchor = urllib.parse.unquote(link.fragment)
            if not place.is_file() or (anchor and place in names and anchor not in names[place]):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert len(pages) > 20 and not broken, broken


def test_the_site_fetches_nothing(pages):
    for path, text in pages.items():
        loaded = re.findall(r"<(?:link|script|img|iframe)\b[^>]*", text)
        assert loaded and not [tag for tag in loaded for target in _targets(tag) if "//" in target], path


def test_every_public_name_of_the_package_is_in_the_reference(site, pages):
    reference = set().union(*(_names(text) for path, text in pages.items() if path.parent.parent.name == "api"))
    missing = []
    for module, file in test_architecture.MODULES.items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                missing += [f"{module}.{node.name}"] if f"{module}.{node.name}" not in reference else []
    assert len(reference) > 500 and not missing, missing


def test_fields_are_in_the_reference_with_their_comments(site, pages):
    games = pages[site / "api" / "games" / "index.html"]
    assert {"gan_jax.games.Stage.batch_size", "gan_jax.games.Stage.level"} <= _names(games)  # without and with one
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "api" / "optim" / "index.html").read_text(encoding="utf-8")))
    assert "global norm to which gradients are clipped; 0 for none" in text


def test_the_search_knows_pages_and_the_reference(site):
    entries = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    places = {entry["location"].split("#")[0] for entry in entries}
    assert {"", "start/", "commands/", "experiments/", "changelog/", "contributing/", "api/layers/"} <= places


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_or_names_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    named = [name for span in re.findall(r"`([^`\n]+)`", text) for name in FILE.findall(span) if span.startswith(name)]
    missing = [target for target in links if target and not (page.parent / target).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing, missing


def _commands(path):
    """The arguments of every command of ours that a page, or an experiment's first lines, shows."""
    text = path.read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^    (.*)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
    for line in lines:
        for command in COMMAND.findall(line):
            words = shlex.split(command, comments=True)
            end = next((i for i, word in enumerate(words) if word in ("&&", "|", ";", ">")), len(words))
            yield words[:end]


def _examples():
    for path in [*PAGES, *EXPERIMENTS]:
        for number, words in enumerate(_commands(path)):
            yield pytest.param(words, id=f"{path.name}-{number}")


@pytest.mark.parametrize("words", _examples())
def test_commands_in_the_documents_can_be_given(words):
    """Commands and flags exist; so do experiments, their variants, and the keys that are set, but for capitals."""
    if not {"--help", "-h", "--version", "help"}.isdisjoint(words) or (words and words[0].isupper()):
        return
    command = "train" if not words or words[0].startswith("-") else words[0]
    assert command in cli.FLAGS, words
    if command == "config":  # it takes a name in place of flags
        assert cli.main(words) == 0
        return
    flags, overrides = cli.parse(command, words[1:] if words and words[0] == command else words)
    config = flags.get("config", [cli.DEFAULT_CONFIG])[0]
    name = config.partition(":")[0]
    if "config" in cli.FLAGS[command] and name != "..." and not pathlib.Path(name).stem.isupper():
        assert config == name or config.partition(":")[2]
        place = str(ROOT / name) if (ROOT / name).exists() else name
        runs.load_config(place + config[len(name) :], overrides)


def test_flags_of_the_benchmarks_exist():
    shared = (ROOT / "benchmarks" / "report.py").read_text(encoding="utf-8")
    text = re.sub(r"\\\n\s*", " ", (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    commands = re.findall(r"python benchmarks/(\w+\.py)(.*)", text)
    assert commands
    for script, rest in commands:
        source = (ROOT / "benchmarks" / script).read_text(encoding="utf-8") + shared
        missing = [flag for flag in re.findall(r"(--[\w-]+)", rest.split("`")[0])
                   if f'"{flag}"' not in source and not flag.startswith("--xla_gpu")]  # fmt: skip
        assert not missing, (script, missing)


def test_every_experiment_is_in_the_table_of_experiments():
    lines = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line[:1] == "|"]
    named = {name for row in rows for name in re.findall(r"`(\w+\.py)", row.split("|")[1])}
    assert named == {path.name for path in EXPERIMENTS}


def test_tables_are_not_split():
    """A row below an empty line, without a head of its own, is shown as plain text."""
    for page in PAGES:
        lines = ["", *page.read_text(encoding="utf-8").splitlines(), ""]
        heads = [i for i in range(1, len(lines) - 1) if lines[i][:1] == "|" and lines[i - 1][:1] != "|"]
        assert not [lines[i] for i in heads if not re.match(r"\|[ :-]+\|", lines[i + 1])], page.name


def test_versions_agree():
    newest = re.search(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest.group(1) == citation["version"] == gan_jax.__version__
    assert newest.group(2) == citation["date-released"]
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"] and citation["title"]


def test_the_readme_has_one_command_for_the_tests():
    """`.ci/run` takes the first line that names pytest."""
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "pytest" in line]
    assert lines[0].startswith("    python3 -m venv .venv") and lines[0].endswith(" -m pytest -n 2")
