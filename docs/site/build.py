"""What the site's build makes from the code (the reference of pipeline files, of commands, of the API), and pictures.

An MkDocs hook. Nothing that it makes is kept in the checkout. Pictures of the page come from ``docs/site/screens.py``;
where there is no browser there are none, and the pages say so.
"""

import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import msgspec
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from stream.__main__ import app
from stream.operator import Operator, Source
from stream.pipeline import EdgeSpec, NodeSpec, OperatorSpec, Pipeline, Recovery, SourceSpec, TapSpec

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "stream": "packets, marks, pipelines, transport, ledger, recording, the live page",
    "sources": "event files, cameras, network, data sets, the simulated camera, filters",
    "neurons": "neuron models, topologies, networks, NIR",
    "plasticity": "local rules, gradients, training, online learners",
    "chip": "cores, mesh, compiler and node of the chip emulator",
}
# pages that may be there, with the place in the navigation; what is not is left out, and what is not named is added
PLACES = {
    "chip.md": ("Understand", "Compiling for the chip"),
    "chip_learning.md": ("Shown", "Learning on the chip"),
    "few_shot.md": ("Shown", "Few shows"),
    "continual.md": ("Shown", "Continual learning"),
    "cluster.md": ("How to", "A pipeline over machines"),
}
SCREENS = ROOT / "build" / "screens"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation what is made here, and the pages that exist."""
    nav: list[dict[str, Any]] = config.nav  # type: ignore[assignment] # typed as Any or None there
    sections = {name: entries for section in nav for name, entries in section.items() if isinstance(entries, list)}
    listed = set(re.findall(r"'([\w/]+\.md)'", str(nav)))
    for path in sorted((ROOT / "docs").glob("*.md")):
        if path.name not in listed:
            section, title = PLACES.get(path.name, ("Reference", path.stem.replace("_", " ").capitalize()))
            sections[section].append({title: path.name})
    sections["Reference"] += [{"Pipeline file": "pipeline_file.md"}, {"Commands": "commands.md"}]
    sections["Reference"].append({"API": [{name: f"api/{name}.md"} for name in PACKAGES]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are made here."""
    made = {"pipeline_file.md": pipeline_file(), "commands.md": commands()}
    made |= {f"api/{name}.md": api(name) for name in PACKAGES}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    for picture in [*sorted(SCREENS.glob("*.png")), ROOT / "demos" / "demo.png"]:
        if picture.is_file():
            files.append(File.generated(config, f"screens/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Say where a picture is missing because there was no browser."""
    del page, config

    def shown(match: re.Match[str]) -> str:
        if files.get_file_from_path(match[2]):
            return match[0]
        return f'!!! note "No picture"\n    {match[1]}: there was no browser when this site was built (`make docs`).'

    return re.sub(r"!\[([^\]]*)\]\((screens/[^)]+)\)", shown, markdown)


# -- pipeline file -----------------------------------------------------------------------------------------------------


def _type(annotation: Any) -> str:
    """Write an annotation as a person would say it, for a cell of a table."""
    if annotation is type(None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = [f"{sign} {value}" for meta in arguments[1:] for sign, value in
                  (("≥", getattr(meta, "ge", None)), ("&gt;", getattr(meta, "gt", None)),
                   ("≤", getattr(meta, "le", None))) if value is not None]  # fmt: skip
        return ", ".join([_type(arguments[0]), *limits])
    if origin is typing.Literal:
        return " or ".join(f'`"{it}"`' if isinstance(it, str) else f"`{it}`" for it in arguments)
    if origin in (typing.Union, getattr(__import__("types"), "UnionType", None)):
        return " or ".join(_type(it) for it in arguments if it is not type(None))
    words = {int: "integer", float: "number", str: "string", bool: "true or false", dict: "table", list: "array"}
    if origin in (list, tuple) or getattr(origin, "__name__", "") == "Sequence":
        return f"array of {_type(arguments[0])}" if arguments else "array"
    if origin is dict or getattr(origin, "__name__", "") == "Mapping":
        return f"table of {_type(arguments[1])}" if arguments else "table"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return f"table {{{', '.join(annotation.__struct_fields__)}}}"
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "needed"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _told(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each parameter."""
    lines = inspect.cleandoc(kind.__doc__ or "").split("\n")
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if set(after) == {"-"}:
            inside, names = line == "Parameters", []
        elif inside and line and not line.startswith((" ", "-")):
            names = [name.strip() for name in line.split(":")[0].split(",")]
        elif inside and line.startswith("    "):
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _row(*cells: str) -> str:
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell).replace("``", "`") for cell in cells) + " |"


def _struct(kind: type[msgspec.Struct], title: str) -> list[str]:
    """Document a table of the pipeline file from its type, with the words that stand below each field."""
    source = inspect.getsource(kind)
    lines = [f"## {title}", "", (inspect.getdoc(kind) or "").split("\n")[0], ""]
    lines += [_row("key", "is", "default", ""), _row("---", "---", "---", "---")]
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        if field.name in ("source", "operator", "edge", "tap", "node", "recovery") and kind is Pipeline:
            continue
        words = re.search(rf'^    {field.name}: .*\n    """(.*?)"""', source, re.MULTILINE)
        default = inspect.Parameter.empty if field.default is msgspec.NODEFAULT else field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        lines.append(
            _row(f"`{field.encode_name}`", _type(hints[field.name]), _default(default), words[1] if words else "")
        )
    return [*lines, ""]


def members() -> dict[type, list[type]]:
    """Return every source and operator of ours that a pipeline file may name."""
    found: dict[type, list[type]] = {Source: [], Operator: []}
    for package in PACKAGES:
        for path in sorted((ROOT / package).glob("*.py")):
            if path.stem in ("__init__", "__main__") or path.stem.endswith("bench"):
                continue
            module = importlib.import_module(f"{package}.{path.stem}")
            for name in getattr(module, "__all__", ()):
                kind = getattr(module, name)
                for role in found:
                    is_one = isinstance(kind, type) and issubclass(kind, role) and not inspect.isabstract(kind)
                    if is_one and kind.__module__ == module.__name__ and not _wraps(kind):
                        found[role].append(kind)
    return found


def _wraps(kind: type) -> bool:
    """Tell whether a class cannot be named in a file, because it takes another member or a function."""
    hints = typing.get_type_hints(kind.__init__)
    needed = [it for it in list(inspect.signature(kind.__init__).parameters.values())[1:] if it.default is it.empty]
    return any(isinstance(hints.get(it.name), type) and issubclass(hints[it.name], Source | Operator) for it in needed)


def _member(kind: type) -> list[str]:
    document = inspect.cleandoc(kind.__doc__ or "")
    lines = [f"### {kind.__name__}", "", f'`kind = "{kind.__module__}.{kind.__name__}"`', ""]
    lines += [document.split("\n\n")[0].replace("\n", " ").replace("``", "`"), ""]
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    if not parameters:
        return [*lines, "No parameters.", ""]
    hints, told = typing.get_type_hints(kind.__init__, include_extras=True), _told(kind)
    lines += [_row("parameter", "is", "default", ""), _row("---", "---", "---", "---")]
    lines += [
        _row(f"`{it.name}`", _type(hints.get(it.name, Any)), _default(it.default), told.get(it.name, ""))
        for it in parameters
    ]
    return [*lines, ""]


def pipeline_file() -> str:
    """Write the reference of pipeline files from the types that check them."""
    found = members()
    lines = [
        "# Pipeline file",
        "",
        "Made from the types that check a file, so it says what is accepted. Unknown keys and wrong types are errors",
        "that name the place; `hebbstream check FILE` looks without running. `${NAME}` in a path: the environment's.",
        "",
    ]
    for kind, title in (
        (Pipeline, "At the top"),
        (SourceSpec, "[[source]]"),
        (OperatorSpec, "[[operator]]"),
        (EdgeSpec, "[[edge]]"),
        (TapSpec, "[[tap]]"),
        (NodeSpec, "[[node]]"),
        (Recovery, "[recovery]"),
    ):
        lines += _struct(kind, title)
    for role, title in ((Source, "Sources"), (Operator, "Operators")):
        lines += [f"## {title}", ""]
        for kind in found[role]:
            lines += _member(kind)
    return "\n".join(lines)


# -- commands ----------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Write the reference of the command line from the commands themselves."""
    lines = [
        "# Commands",
        "",
        "What `hebbstream COMMAND --help` says. Exit codes: 0 done, 1 failure, 2 usage or bad input.",
        "",
    ]

    def tell(command: Any, words: str) -> None:
        if hasattr(command, "commands"):  # typer may bring a click of its own, so its classes are not asked for
            for name, inner in sorted(command.commands.items()):
                if not inner.hidden:
                    tell(inner, f"{words} {name}")
            return
        lines.extend([f"## {words}", "", (command.help or "").replace("\b", "").strip(), ""])
        rows = []
        for it in command.params:
            if getattr(it, "hidden", False) or it.name == "help":
                continue
            is_argument = it.param_type_name == "argument"
            name = str(it.metavar or it.name).upper() if is_argument else ", ".join(it.opts + it.secondary_opts)
            text = str(getattr(it, "help", "") or "")
            default = "" if it.default in (None, False, "") or callable(it.default) else f"default `{it.default}`"
            rows.append(_row(f"`{name}`", ". ".join(filter(None, [text.rstrip("."), default]))))
        if rows:
            lines.extend([_row("", ""), _row("---", "---"), *rows, ""])

    tell(typer.main.get_command(app), "hebbstream")
    return "\n".join(lines)


# -- API ---------------------------------------------------------------------------------------------------------------


def api(package: str) -> str:
    """Write the page of a folder: each module's docstring and what it hands out."""
    lines = [f"# {package}", "", f"`{package}/`: {PACKAGES[package]}.", ""]
    for path in sorted((ROOT / package).glob("*.py")):
        if path.stem not in ("__init__", "__main__") and "__all__" in path.read_text(encoding="utf-8"):
            lines += [f"::: {package}.{path.stem}", ""]
    return "\n".join(lines)
