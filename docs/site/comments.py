"""For the API's pages: the comment behind a field is its docstring."""

import linecache
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
    """Gives attributes of one line and without a docstring the comment that stands behind them."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs) -> None:
        """Called by griffe for every attribute that it has read."""
        if attr.docstring is None and attr.lineno is not None and attr.lineno == attr.endlineno:
            text = comment(linecache.getline(str(attr.filepath), attr.lineno).strip())
            if text:
                attr.docstring = griffe.Docstring(text, parent=attr)
