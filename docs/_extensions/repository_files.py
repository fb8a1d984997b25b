"""Bring notebooks, measurements and the project's papers into the site, and turn links between them into links of the site."""

import json
import os
import re
import shutil
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
# A folder of the repository, and the folder of docs/ that has a copy of it while the site is built.
FOLDERS = {"notebooks": "notebooks", "benchmarks/results": "measurements"}
PAPERS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
COPIED = ("*.ipynb", "*.md", "*.png")
LINK = re.compile(r"(!?)\[((?:\[[^\]]*\]|[^\[\]])*)\]\(([^)\s]+)\)")


def copy_files(app: Sphinx) -> None:
    """Copy what stands outside docs/ to where the site has it."""
    docs = Path(app.srcdir)
    for source, target in FOLDERS.items():
        (docs / target).mkdir(exist_ok=True)
        files = [file for pattern in COPIED for file in sorted((ROOT / source).glob(pattern))]
        for old in set((docs / target).iterdir()) - {docs / target / file.name for file in files}:
            old.unlink()
        for file in files:
            shutil.copy(file, docs / target)
    for page in (docs / "measurements").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        if not text.startswith("# "):
            page.write_text(f"# {page.stem.replace('_', ' ').capitalize()}\n\n{text}", encoding="utf-8")
    (docs / "project").mkdir(exist_ok=True)
    for name in PAPERS:  # the search leaves them out: they speak of everything
        (docs / "project" / name).write_text(f"---\nnosearch: true\n---\n\n{(ROOT / name).read_text(encoding='utf-8')}")
    write_list(
        docs / "notebooks", "Notebooks", "Each asks one question. Their outputs are kept, and the tests run them."
    )
    write_list(docs / "measurements", "Measurements", "What the commands in `benchmarks/` wrote, with the machine.")
    write_list(docs / "project", "Project", "")


def write_list(folder: Path, title: str, introduction: str) -> None:
    """Write the page that lists the files of a folder."""
    names = sorted(file.stem for file in folder.iterdir() if file.suffix in (".md", ".ipynb") and file.stem != "index")
    (folder / "index.md").write_text(
        "\n".join([f"# {title}", "", introduction, "", "```{toctree}", ":maxdepth: 1", *names, "```", ""])
    )


def place_in_repository(docname: str) -> PurePosixPath:
    """Return where the source of a page stands in the repository."""
    folder, _, name = docname.rpartition("/")
    back = {target: source for source, target in FOLDERS.items()} | {"project": ""}
    return PurePosixPath(back.get(folder, f"docs/{folder}"), name)


def place_in_site(path: str) -> str | None:
    """Return where the site has a file of the repository, None if it has none."""
    folder, _, name = path.rpartition("/")
    if path in PAPERS:
        return f"project/{name}"
    if path == "README.md":
        return "index.md"
    if folder in FOLDERS:
        return f"{FOLDERS[folder]}/{name}"
    return path.removeprefix("docs/") if folder == "docs" or path.startswith("docs/") else None


def rewrite_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn the links of a page, which are right in the repository, into those of the site."""
    origin, folder = place_in_repository(docname).parent, os.path.dirname(docname)

    def rewritten(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target) or not target:
            return match[0]
        path, hash_, anchor = target.partition("#")
        place = os.path.normpath(origin / path)
        found = place_in_site(place)
        unwritten = place.startswith("notebooks/") and not (ROOT / place).exists()
        if found is None or unwritten:  # a file of the code, for which the site has no page, or a notebook to come
            return text
        return f"{mark}[{text}]({os.path.relpath(found, folder or '.')}{hash_}{anchor})"

    if docname.startswith("notebooks/") and docname != "notebooks/index":
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = LINK.sub(rewritten, "".join(cell["source"]))
        source[0] = json.dumps(notebook)
    elif not docname.startswith("api/") and not docname.endswith("index"):
        source[0] = LINK.sub(rewritten, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", copy_files, priority=100)
    app.connect("source-read", rewrite_links)
    return {"parallel_read_safe": True}
