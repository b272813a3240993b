"""For the API's pages: the comment behind a field is its docstring, and an indented block is one for Markdown too."""

import linecache
import re
import tokenize

import griffe


def comment(line: str) -> str:
    """The comment at the end of a line of code; empty where there is none, or where it speaks to a tool."""
    if "#" not in line or not line.split("#")[0].strip():
        return ""
    tokens = list(tokenize.generate_tokens(iter([line, ""]).__next__))
    text = "".join(token.string for token in tokens if token.type == tokenize.COMMENT)
    text = text.removesuffix("# fmt: skip").lstrip("# ").rstrip()
    return "" if text.startswith(("noqa", "fmt:")) else text


class Comments(griffe.Extension):
    """Prepares what griffe has read of the sources."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Markdown wants an empty line between a line of text and an indented block."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^(\S.*)\n(?=    \s*\S)", r"\1\n\n", obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs) -> None:
        """Attributes of one line without a docstring get the comment that stands behind them."""
        if attr.docstring is None and attr.lineno is not None and attr.lineno == attr.endlineno:
            text = comment(linecache.getline(str(attr.filepath), attr.lineno).strip())
            if not text and attr.annotation is not None and attr.parent is not None and attr.parent.is_class:
                text = "&nbsp;"  # a field without any text would be left out of its class
            if text:
                attr.docstring = griffe.Docstring(text, parent=attr)
