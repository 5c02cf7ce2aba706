"""The style sheet of the static HTML: one quiet look, in the colours of whatever page it is on.

Jupyter, VS Code, Colab and book themes each mark dark pages in their own way, and a saved output
meets all of them; where a page says nothing, the reader's system decides. Pages that do not say
get an opaque background, since the colour behind the output is then unknown.
"""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "LINE_STYLE", "ROOT_CLASS", "STYLE"]

ROOT_CLASS = "amltk-nb-static"

LIGHT = {
    "bg": "#ffffff",
    "fg": "#1f2328",
    "muted": "#59636e",
    "line": "#d1d9e0",
    "accent": "#0969da",
    "queued": "#59636e",
    "running": "#0969da",
    "done": "#1a7f37",
    "failed": "#cf222e",
    "cancelled": "#9a6700",
}
DARK = {
    "bg": "#0d1117",
    "fg": "#e6edf3",
    "muted": "#9198a1",
    "line": "#3d444d",
    "accent": "#4493f8",
    "queued": "#9198a1",
    "running": "#4493f8",
    "done": "#3fb950",
    "failed": "#f85149",
    "cancelled": "#d29922",
}

# Hosts whose own colours stand behind the output; the latter of two flags on one page wins.
_BOOKS = {
    "light": "[data-md-color-scheme=default],[data-theme=light],html[theme=light]",
    "dark": "[data-md-color-scheme=slate],[data-theme=dark],html[theme=dark]",
}
_NOTEBOOKS = {
    "light": "[data-jp-theme-light=true],body.vscode-light,body.vscode-high-contrast-light",
    "dark": "[data-jp-theme-light=false],body.vscode-dark,"
    "body.vscode-high-contrast:not(.vscode-high-contrast-light)",
}


def _colours(palette: dict[str, str], scheme: str, **changed: str) -> str:
    values = palette | changed
    names = "".join(f"--amltk-{name}:{value};" for name, value in values.items())
    return f"{{{names}color-scheme:{scheme}}}"


def _themes() -> str:
    light, dark = _colours(LIGHT, "light"), _colours(DARK, "dark")
    root = f".{ROOT_CLASS}"
    rules = [f"{root}{light}", f"@media(prefers-color-scheme:dark){{{root}{dark}}}"]
    for scheme, colours in (("light", light), ("dark", dark)):
        # :where() adds no weight, so that the order of these rules alone decides.
        rules.append(f":where({_BOOKS[scheme]}) {root}{colours}")
    host = {"bg": "transparent", "fg": "var(--jp-content-font-color1,var(--vscode-foreground,{}))"}
    for scheme, palette in (("light", LIGHT), ("dark", DARK)):
        mixed = host | {"fg": host["fg"].format(palette["fg"])}
        rules.append(f":where({_NOTEBOOKS[scheme]}) {root}{_colours(palette, scheme, **mixed)}")
    return "\n".join(rules)


# What the lines of single things need, which are saved by the hundred; then all else.
# § stands for the root. Its unused id gives these rules more weight than the host's table and
# list rules, without !important.
_LINE_RULES = """
§{background:var(--amltk-bg);color:var(--amltk-fg);border:1px solid var(--amltk-line);\
border-radius:8px;padding:12px 16px;margin:4px 0;box-sizing:border-box;max-width:1100px;\
font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);font-variant-numeric:tabular-nums;\
text-align:left;overflow-wrap:anywhere}
§ p,§ ul,§ table,§ pre{margin:0;padding:0;font-size:inherit;line-height:inherit}
§ code,§ pre{font-family:var(--jp-code-font-family,ui-monospace,SFMono-Regular,Menlo,monospace);\
font-size:12px;color:inherit;background:none;border:0;padding:0;white-space:pre-wrap;\
overflow-wrap:anywhere}
§ .amltk-nb-title{font-size:15px}
§ .amltk-nb-muted{color:var(--amltk-muted)}
§ .amltk-nb-sep{color:var(--amltk-muted)}
§ .amltk-nb-state{white-space:nowrap}
§ .amltk-nb-queued{color:var(--amltk-queued)}
§ .amltk-nb-running{color:var(--amltk-running)}
§ .amltk-nb-done{color:var(--amltk-done)}
§ .amltk-nb-failed{color:var(--amltk-failed)}
§ .amltk-nb-cancelled{color:var(--amltk-cancelled)}
§ .amltk-nb-bar{display:flex;gap:1px;height:6px;margin:10px 0 6px;border-radius:3px;\
overflow:hidden;background:var(--amltk-line)}
§ .amltk-nb-bar span{min-width:2px;background:currentColor;forced-color-adjust:none}
§ .amltk-nb-bar .amltk-nb-queued{background:none}
"""
_RULES = """
§ .amltk-nb-small{height:4px;margin:3px 0 0}
§ td.amltk-nb-progress{min-width:7em;overflow-wrap:anywhere}
§ details{border-top:1px solid var(--amltk-line);margin-top:10px;padding-top:8px}
§ details details{border-top:0;margin-top:4px;padding:0 0 0 14px}
§ summary{cursor:pointer;font-weight:400;border-radius:3px}
§ strong{font-weight:600}
§ summary:focus-visible,§ [tabindex]:focus-visible{outline:2px solid var(--amltk-accent);\
outline-offset:2px}
§ .amltk-nb-n{color:var(--amltk-muted);margin-left:4px}
§ .amltk-nb-scroll{overflow:auto;max-height:26em;margin-top:6px}
§ table{display:table;table-layout:auto;border-collapse:collapse;border:0;width:auto;\
max-width:none;background:none;color:inherit}
§ .amltk-nb-scroll>table{width:100%}
§ tr,§ tbody tr:nth-child(n){background:none;border:0}
§ th,§ td{text-align:left;vertical-align:baseline;padding:3px 18px 3px 0;border:0;\
border-top:1px solid var(--amltk-line);font-weight:400;background:none;color:inherit;\
white-space:normal;max-width:none;min-width:0;overflow-wrap:break-word}
§ td code{overflow-wrap:inherit}
§ tr:first-child>th,§ tr:first-child>td{border-top:0}
§ tbody tr:first-child>*{border-top:1px solid var(--amltk-line)}
§ thead th,§ tbody th[scope=row]{color:var(--amltk-muted)}
§ thead th{white-space:nowrap;font-size:12px}
§ th.amltk-nb-num,§ td.amltk-nb-num{text-align:right;white-space:nowrap}
§ td.amltk-nb-name{white-space:nowrap}
§ td.amltk-nb-rest{width:100%}
§ td.amltk-nb-args{min-width:8em;overflow-wrap:anywhere}
§ td.amltk-nb-text{min-width:14em;overflow-wrap:anywhere}
§ td:last-child,§ th:last-child{padding-right:2px}
§ .amltk-nb-more{margin-top:6px;color:var(--amltk-muted)}
§ .amltk-nb-lanes{width:100%;margin-top:6px}
§ .amltk-nb-lanes td,§ .amltk-nb-lanes tbody th{padding-top:0;padding-bottom:0}
§ .amltk-nb-lanes td.amltk-nb-lane{width:100%;vertical-align:middle}
§ .amltk-nb-lanes th.amltk-nb-name{white-space:nowrap;max-width:16em;\
overflow:hidden;text-overflow:ellipsis}
§ .amltk-nb-axis span:last-child{float:right}
§ svg{display:block}
§ rect[class]{fill:currentColor;forced-color-adjust:none}
§ rect.amltk-nb-cancelled{fill-opacity:.25}
§ pattern path{fill:none;stroke:var(--amltk-bg);stroke-width:1.2}
§ pattern circle{fill:var(--amltk-cancelled)}
§ ul,§ li{list-style:none}
§ .amltk-nb-tree{margin-top:6px}
§ .amltk-nb-tree>li{padding:1px 0}
§ .amltk-nb-tree ul{margin:0 0 2px 4px;padding-left:12px;border-left:1px solid var(--amltk-line)}
§ .amltk-nb-wide{columns:24em auto;column-gap:32px}
§ .amltk-nb-wide>li{break-inside:avoid}
§ .amltk-nb-cards{display:flex;flex-wrap:wrap;align-items:flex-start;gap:8px;margin:8px 0}
§ .amltk-nb-card{border:1px solid var(--amltk-line);border-radius:6px;padding:6px 12px}
§ .amltk-nb-card th,§ .amltk-nb-card td,§ .amltk-nb-card tr:nth-child(n)>*{border:0;\
padding:1px 12px 1px 0}
§ .amltk-nb-card td:last-child{padding-right:0}
§ caption{caption-side:top;text-align:left;font-weight:600;color:inherit;padding:0 0 2px}
@media(forced-colors:active){§ .amltk-nb-bar{border:1px solid}}
"""


def _style(*rules: str) -> str:
    text = "".join([_themes(), *(rule.rstrip("\n") for rule in rules), "\n"])
    return f"<style>{text}</style>".replace("§", f":is(#amltk-nb,.{ROOT_CLASS})")


STYLE = _style(_LINE_RULES, _RULES)
LINE_STYLE = _style(_LINE_RULES)
