"""Griffe extension: docstrings are NumPy style with a little reStructuredText; the site speaks Markdown."""

import re

import griffe

__all__ = ["ToMarkdown"]


def _table(lines: list[str]) -> list[str]:
    """Turn a simple reStructuredText table (rules of =) into one of Markdown."""
    spans = [(it.start(), it.end()) for it in re.finditer("=+", lines[0])]
    rows = [[line[start:].strip() if end == spans[-1][1] else line[start:end].strip() for start, end in spans]
            for line in lines if not line.startswith("==")]  # fmt: skip
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(spans), *rows[1:]]]


def to_markdown(text: str) -> str:
    """Translate tables, literal blocks, roles and double backticks."""
    out: list[str] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if re.fullmatch(r"=+( +=+)+", lines[at]):
            rules = [k for k in range(at, len(lines)) if re.fullmatch(r"=+( +=+)+", lines[k])][:3]
            out += ["", *_table(lines[at : rules[-1] + 1]), ""]
            at = rules[-1] + 1
            continue
        line = lines[at]
        if line.rstrip().endswith("::") and not line.startswith("    "):
            line = line.rstrip().removesuffix("::")
            line = f"{line}:" if line.strip() else line
        if not line.startswith("    "):
            line = re.sub(r":(?:mod|func|class|data|meth):`~?([^`]+)`", r"`\1`", line)
            line = line.replace("``", "`")
            line = re.sub(r"(?<![`\\\w])<(?=[a-z])", r"\\<", line) if "`" not in line else line
        out.append(line)
        at += 1
    return "\n".join(out)


class ToMarkdown(griffe.Extension):
    """Translate each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Translate the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
