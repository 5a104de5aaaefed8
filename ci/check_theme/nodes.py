"""MyST nodes → HTML     one function for each kind of node; a kind without one stops the build.

`Writer(page).html(nodes)` walks the tree that MyST left in content/<page>.json. Text is escaped everywhere; what is
inserted as it stands is the MathML that KaTeX made and the HTML that a chapter's own cells displayed.
"""

import html
import re
from collections.abc import Callable, Iterable

import outputs
from outputs import RenderError
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MATHML = re.compile(r"<math.*?</math>", re.DOTALL)
PLAIN = {  # kinds that are one element around their children
    "paragraph": "p", "strong": "strong", "emphasis": "em", "delete": "del", "underline": "u", "subscript": "sub",
    "superscript": "sup", "blockquote": "blockquote", "tableRow": "tr", "listItem": "li", "definitionList": "dl",
    "definitionDescription": "dd", "caption": "figcaption", "legend": "figcaption", "keyboard": "kbd", "span": "span",
    "div": "div", "smallcaps": "span", "summary": "summary", "header": "header", "footer": "footer",
}  # fmt: skip
THROUGH = {"root", "include", "embed", "glossary"}
LONG = 40  # characters of TeX; a longer formula within a line may not fit a narrow screen, and scrolls
SILENT = {"comment", "mystTarget", "mystComment", "mystOption", "blockBreak"}


def attributes(**given: object) -> str:
    """Attributes of an element, escaped; None and False are left out, a trailing underscore is dropped from a name."""
    parts = ((name.rstrip("_").replace("_", "-"), value) for name, value in given.items())
    return "".join(
        f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
        for name, value in parts
        if value is not None and value is not False
    )


def element(tag: str, inner: str, **given: object) -> str:
    return f"<{tag}{attributes(**given)}>{inner}</{tag}>"


def plain_text(nodes: Iterable[dict]) -> str:
    """All text below some nodes, for titles and labels."""
    return "".join(node.get("value", "") or plain_text(node.get("children") or []) for node in nodes)


class Writer:
    """Writes one page. `link` turns an address of MyST's (/slug, /file.png) into one that works from this page."""

    def __init__(self, name: str, link: Callable[[str], str], references: dict | None = None) -> None:
        self.name, self.link = name, link
        self.references = references or {}
        self.has_plotly = self.has_widget = False
        self.footnotes: list[dict] = []
        self.placed: set[str] = set()  # ids that stand on the page already

    def place(self, node: dict, *keys: str) -> str | None:
        """The id under which links find a node; None where it has none, or a node around it carries the same."""
        found = next((node[key] for key in keys or ("html_id",) if node.get(key)), None)
        if found in self.placed:
            return None
        self.placed.add(found)
        return found

    def html(self, nodes: Iterable[dict]) -> str:
        return "".join(self.node(node) for node in nodes)

    def inside(self, node: dict) -> str:
        return self.html(node.get("children") or [])

    def node(self, node: dict) -> str:
        kind = node["type"]
        if kind in SILENT:
            return ""
        if kind in THROUGH:
            return self.inside(node)
        if kind in PLAIN:
            return element(PLAIN[kind], self.inside(node), id=self.place(node), class_=node.get("class"))
        write = getattr(self, f"on_{kind}", None)
        if write is None:
            raise RenderError(f"{self.name}: there is no way to write the node type {kind!r}; add one in nodes.py")
        return write(node)

    # ── text ─────────────────────────────────────────────────────────────────
    def on_text(self, node: dict) -> str:
        return html.escape(node["value"], quote=False)

    def on_inlineCode(self, node: dict) -> str:
        return element("code", html.escape(node.get("value", ""), quote=False))

    def on_break(self, node: dict) -> str:
        return "<br>"

    def on_thematicBreak(self, node: dict) -> str:
        return "<hr>"

    def on_html(self, node: dict) -> str:
        return node["value"]

    def on_heading(self, node: dict) -> str:
        number = element("span", html.escape(node["enumerator"]) + " ") if node.get("enumerator") else ""
        mark = element("a", "#", href=f"#{node.get('html_id')}", class_="anchor", aria_label="link to this heading")
        return element(f"h{min(6, node['depth'])}", number + self.inside(node) + mark, id=self.place(node))

    def on_abbreviation(self, node: dict) -> str:
        return element("abbr", self.inside(node), title=node.get("title"), tabindex=0)

    def on_inlineMath(self, node: dict) -> str:
        formula = self._mathml(node)
        if len(node["value"]) < LONG:
            return formula
        return element("span", formula, class_="long", tabindex=0, role="region", aria_label="formula")

    def on_math(self, node: dict) -> str:
        number = element("span", f"({html.escape(node['enumerator'])})") if node.get("enumerator") else ""
        given = {"class_": "math", "id": self.place(node), "tabindex": 0, "role": "region", "aria_label": "formula"}
        return element("div", self._mathml(node) + number, **given)

    def on_mathGroup(self, node: dict) -> str:
        return element("div", self.inside(node), id=self.place(node))

    def _mathml(self, node: dict) -> str:
        found = MATHML.search(node.get("html", ""))
        if not found:
            raise RenderError(f"{self.name}: KaTeX could not set {node.get('value')!r}")
        return found.group()

    # ── links ────────────────────────────────────────────────────────────────
    def on_link(self, node: dict) -> str:
        if not node.get("children"):
            raise RenderError(f"{self.name}: the link to {node['url']} has no text")
        return element("a", self.inside(node), href=self.link(node["url"]), class_=node.get("class"),
                       download=bool(node.get("static")))

    def on_linkBlock(self, node: dict) -> str:
        return self.on_link(node)

    def on_crossReference(self, node: dict) -> str:
        if not node.get("resolved"):
            raise RenderError(f"{self.name}: the cross-reference to {node.get('label')!r} leads nowhere")
        page = self.link(node["url"]) if node.get("url") else ""
        anchor = f"#{node['html_id']}" if node.get("html_id") else ""
        return element("a", self.inside(node), href=page + anchor, class_="ref")

    def on_cite(self, node: dict) -> str:
        if node.get("error") or not node.get("children"):
            raise RenderError(f"{self.name}: the citation {node.get('label')!r} is in no bibliography")
        return element("a", self.inside(node), href=f"#cite-{node['label']}", class_="cite")

    def on_citeGroup(self, node: dict) -> str:
        cites = "; ".join(self.node(child) for child in node["children"])
        return cites if node.get("kind") == "narrative" else f"({cites})"

    def on_footnoteReference(self, node: dict) -> str:
        mark = element("a", html.escape(str(node.get("enumerator", "*"))), href=f"#fn-{node['identifier']}")
        return element("sup", mark, id=f"fnref-{node['identifier']}")

    def on_footnoteDefinition(self, node: dict) -> str:
        self.footnotes.append(node)
        return ""

    # ── blocks ───────────────────────────────────────────────────────────────
    def on_block(self, node: dict) -> str:
        if node.get("visibility") == "remove":
            return ""
        inner = self.inside(node)
        if node.get("visibility") == "hide":
            inner = outputs.folded("Cell", inner)
        return element("div", inner, class_="block", id=self.place(node, "html_id", "identifier"))

    def on_list(self, node: dict) -> str:
        tag = "ol" if node.get("ordered") else "ul"
        return element(tag, self.inside(node), start=node.get("start") if node.get("start", 1) != 1 else None)

    def on_definitionTerm(self, node: dict) -> str:
        return element("dt", self.inside(node), id=self.place(node))

    def on_table(self, node: dict) -> str:
        return element("div", element("table", self.inside(node)), class_="wide", tabindex=0, role="region",
                       aria_label="table", id=self.place(node))

    def on_tableCell(self, node: dict) -> str:
        style = f"text-align: {node['align']}" if node.get("align") else None
        inner = self.inside(node)
        tag = "th" if node.get("header") and inner else "td"  # an empty header cell is a corner, and names nothing
        return element(tag, inner, style=style, colspan=node.get("colspan"), rowspan=node.get("rowspan"))

    def on_code(self, node: dict) -> str:
        if node.get("visibility") == "remove":
            return ""
        language = node.get("lang") or "text"
        try:
            shown = highlight(node.get("value", ""), get_lexer_by_name(language), HtmlFormatter(nowrap=True))
        except ClassNotFound:
            shown = html.escape(node.get("value", ""), quote=False)
        block = element("pre", element("code", shown), class_="code", tabindex=0, role="region",
                        aria_label=f"{language} code", id=self.place(node))
        return outputs.folded("Code", block) if node.get("visibility") == "hide" else block

    def on_outputs(self, node: dict) -> str:
        if node.get("visibility") == "remove" or not node.get("children"):
            return ""
        inner = element("div", self.inside(node), class_="outputs", id=self.place(node))
        return outputs.folded("Output", inner) if node.get("visibility") == "hide" else inner

    def on_output(self, node: dict) -> str:
        return outputs.shown(self, node["jupyter_data"]) if node.get("jupyter_data") else self.inside(node)

    def on_anywidget(self, node: dict) -> str:
        self.has_widget = True
        model = outputs.as_json(node["model"])
        return element("div", "", class_="anywidget", data_module=self.link(node["esm"]), data_model=model)

    # ── framed ───────────────────────────────────────────────────────────────
    def on_admonition(self, node: dict) -> str:
        return self._framed(node, node.get("kind", "note"))

    def on_exercise(self, node: dict) -> str:
        return self._framed(node, "exercise", f"Exercise {node.get('enumerator') or ''}".strip())

    def on_solution(self, node: dict) -> str:
        return self._framed(node, "solution")

    def on_proof(self, node: dict) -> str:
        kind = node.get("kind", "proof")
        return self._framed(node, kind, f"{kind.capitalize()} {node.get('enumerator') or ''}".strip())

    def on_admonitionTitle(self, node: dict) -> str:
        return self.inside(node)

    def on_details(self, node: dict) -> str:
        return element("details", self.inside(node), open=node.get("open"), id=self.place(node))

    def on_card(self, node: dict) -> str:
        inner = self.inside(node)
        if node.get("url"):
            return element("a", inner, class_="card", href=self.link(node["url"]))
        return element("div", inner, class_="card")

    def on_cardTitle(self, node: dict) -> str:
        return element("p", element("strong", self.inside(node)))

    def on_grid(self, node: dict) -> str:
        return element("div", self.inside(node), class_="grid")

    def on_tabSet(self, node: dict) -> str:
        return element("div", self.inside(node), class_="tabs")

    def on_tabItem(self, node: dict) -> str:
        return element("details", element("summary", html.escape(node["title"])) + self.inside(node), open=True)

    def on_aside(self, node: dict) -> str:
        return element("aside", self.inside(node))

    def _framed(self, node: dict, kind: str, before: str = "") -> str:
        titles = [child for child in node.get("children") or [] if child["type"] == "admonitionTitle"]
        rest = self.html(child for child in node.get("children") or [] if child["type"] != "admonitionTitle")
        folds = "dropdown" in (node.get("class") or "")
        words = html.escape(plain_text(titles)) if folds else self.html(titles)  # no link may stand in a summary
        title = ": ".join(filter(None, (html.escape(before), words))) or kind.capitalize()
        given = {"class_": f"framed {kind}", "id": self.place(node)}
        if folds:
            return element("details", element("summary", title) + rest, open=node.get("open"), **given)
        return element("section", element("p", title, class_="title") + rest, **given)

    # ── pictures ─────────────────────────────────────────────────────────────
    def on_container(self, node: dict) -> str:
        captions = [child for child in node["children"] if child["type"] == "caption"]
        rest = self.html(child for child in node["children"] if child["type"] != "caption")
        words = "".join(self.inside(caption) for caption in captions)
        caption = element("figcaption", words) if captions else ""
        place = self.place(node, "html_id", "identifier")
        return element("figure", rest + caption, id=place, class_=node.get("class"))

    def on_captionNumber(self, node: dict) -> str:  # MyST's name of the node
        return element("b", self.inside(node)) + " "

    def on_image(self, node: dict) -> str:
        if "alt" not in node:
            raise RenderError(f"{self.name}: the image {node['url']} has no alt text")
        given = {key: node.get(key) for key in ("alt", "width", "title")}
        return f"<img{attributes(src=self.link(node['url']), **given)} loading=\"lazy\">"
