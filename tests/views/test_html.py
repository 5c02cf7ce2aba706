"""The static HTML: exact fragments, well formed, harmless, readable by everyone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amltk_nb.scheduling.snapshot import Snapshot
from amltk_nb.scheduling.states import CallState, RunState
from amltk_nb.views import html, words
from amltk_nb.views.style import DARK, LIGHT, ROOT_CLASS, STYLE
from tests.views.snapshots import ALL, GOLDEN, HOSTILE, call, counts
from tests.views.test_text import ANY_TEXT, retimed

NAMES = sorted(ALL)
FORMS = {"full": False, "stable": True}
PAGES = [pytest.param(n, stable, id=f"{n}-{f}") for n in NAMES for f, stable in FORMS.items()]

ALLOWED = {
    "style": set(),
    "p": {"class"},
    "div": {"class", "role", "tabindex", "aria-label", "aria-hidden"}
    | {f"aria-value{x}" for x in ("min", "max", "now", "text")},
    "span": {"class", "style", "aria-hidden"},
    "strong": {"class"},
    "code": {"class"},
    "pre": set(),
    "details": {"open"},
    "summary": set(),
    "table": {"aria-label", "class"},
    "svg": {"width", "height", "aria-hidden"},
    "defs": set(),
    "pattern": {"id", "width", "height", "patternunits"},
    "path": {"d"},
    "circle": {"cx", "cy", "r"},
    "rect": {"class", "x", "y", "width", "height", "fill", "pointer-events"},
    "title": set(),
    "caption": set(),
    "thead": set(),
    "tbody": set(),
    "tr": set(),
    "th": {"class", "scope"},
    "td": {"class"},
    "ul": {"class"},
    "li": set(),
}


@dataclass(eq=False)
class Node:
    """One element of a parsed fragment."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def all(self, tag: str = "") -> Iterator[Node]:
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag or not tag:
                    yield child
                yield from child.all(tag)

    @property
    def text(self) -> str:
        """The text a reader sees; a style sheet is none."""
        parts = (c if isinstance(c, str) else c.text for c in self.children)
        return "" if self.tag == "style" else "".join(parts)


class StrictParser(HTMLParser):
    """Builds a tree and refuses what a browser would silently repair."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("root")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs})
        assert len(node.attributes) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.open[-1].children.append(node)
        self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def unexpected(self, data: str) -> None:
        raise AssertionError(f"neither element nor text: {data!r}")

    handle_comment = handle_decl = handle_pi = unknown_decl = unexpected


def parse(fragment: str) -> Node:
    parser = StrictParser()
    parser.feed(fragment)
    parser.close()
    (root,) = parser.open
    return root


def attribute_values(node: Node) -> list[str]:
    """What a browser could act on: every attribute but the label, which is only read out."""
    return [value for key, value in node.attributes.items() if key != "aria-label"]


def page(name: str, stable: bool = False) -> Node:
    return parse(html.render(ALL[name], stable=stable))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, form: str) -> None:
    expected = (GOLDEN / f"{name}.{form}.html").read_text("utf-8")
    fragment = html.render(ALL[name], stable=FORMS[form])
    assert fragment.count(STYLE) == 1
    assert fragment.replace(STYLE, "").replace("><", ">\n<") + "\n" == expected


@pytest.mark.parametrize(("name", "stable"), PAGES)
def test_well_formed_and_only_known_harmless_elements(name: str, stable: bool) -> None:
    root = page(name, stable)
    (outer,) = root.children
    assert isinstance(outer, Node)
    assert outer.attributes["class"] == f"{ROOT_CLASS} mathjax_ignore tex2jax_ignore"
    odd = [(n.tag, set(n.attributes) - ALLOWED.get(n.tag, {"?"})) for n in root.all()]
    assert [entry for entry in odd if entry[0] not in ALLOWED or entry[1]] == []
    styles = {n.attributes["style"] for n in root.all() if "style" in n.attributes}
    assert [style for style in styles if not re.fullmatch(r"flex:\d+(\.\d+)?", style)] == []
    classes = {c for n in root.all() for c in n.attributes.get("class", "").split()}
    ours = re.compile(r"amltk-nb-[a-z]+|mathjax_ignore|tex2jax_ignore")
    assert [c for c in classes if not ours.fullmatch(c)] == []


def test_nothing_is_loaded_from_anywhere() -> None:
    for sign in ("url(", "@import", "http:", "https:", "//", "expression", "</style", "<script"):
        assert sign not in STYLE.removesuffix("</style>")


@pytest.mark.parametrize("stable", [False, True])
def test_hostile_strings_are_shown_as_text(stable: bool) -> None:
    root = page("hostile", stable)
    cells = {td.text for td in root.all("td")}
    assert {words.visible(raw) for raw in HOSTILE} <= cells
    assert len(list(root.all("style"))) == 1
    lines = [pre.text for pre in root.all("pre")]
    assert sorted(lines) == sorted(words.visible(raw, lines=True) for raw in HOSTILE)
    assert root.text.count("javascript:alert(1)") > 3
    assert not any("javascript" in value for n in root.all() for value in attribute_values(n))


def test_a_huge_argument_is_cut_with_a_note() -> None:
    fragment = html.render(ALL["hostile"])
    assert "x" * words.ONE_LINE_CHARS + "… (cut, 10,000,000 characters)" in fragment
    assert "x" * (words.ONE_LINE_CHARS + 1) not in fragment
    assert len(fragment) < 40_000


@given(ANY_TEXT)
def test_any_string_anywhere_leaves_the_structure_alone(raw: str) -> None:
    def said_everywhere(text: str) -> Snapshot:
        before = ALL["exception"]
        one = call(1, CallState.FAILED, task=None, function=text, args=text, error=text)
        return replace(
            before,
            name="n" + text,
            run=replace(before.run, reason="r" + text),
            calls=(one,),
            tasks=(replace(before.tasks[0], signature=text, ref=text),),
        )

    def shape(node: Node) -> list[object]:
        kids = [shape(child) for child in node.children if isinstance(child, Node)]
        return [node.tag, sorted(set(node.attributes) - {"aria-label"}), kids]

    fragment = html.render(said_everywhere("x" + raw), title=raw)
    assert shape(parse(fragment)) == shape(parse(html.render(said_everywhere("x"))))
    fragment.encode("utf-8")


@given(st.integers(0, 10**9), st.sampled_from(NAMES))
@settings(max_examples=50)
def test_the_stable_form_does_not_depend_on_timing(seed: int, name: str) -> None:
    other = retimed(ALL[name], Random(seed))
    assert html.render(other, stable=True) == html.render(ALL[name], stable=True)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"idle"}))
def test_the_full_form_does_depend_on_timing(name: str) -> None:
    assert html.render(retimed(ALL[name], Random(1))) != html.render(ALL[name])


def test_the_stable_form_names_no_time_worker_or_process() -> None:
    full, stable = page("running").text, page("running", True).text
    for sign in (r"worker-\d", r"\d m?s\b", r"\b421[12]\b", r"\d\d:\d\d:\d\d"):
        assert re.search(sign, full), sign
        assert not re.search(sign, stable), sign


def columns(table: Node) -> list[str]:
    return [th.text for th in table.all("th") if th.attributes["scope"] == "col"]


def column(name: str, header: str, *, stable: bool = False, table: int = 0) -> list[str]:
    found = list(page(name, stable).all("table"))[table]
    index = columns(found).index(header)
    rows = [list(tr.all("td")) for tr in found.all("tr")]
    return [row[index].text for row in rows if row]


def test_failures_come_first_then_what_goes_on_then_the_latest_ended() -> None:
    assert column("running", "Id") == ["3", "5", "6", "7", "8", "9", "4", "2", "1"]
    assert column("running", "Id", stable=True) == ["3", "1", "2", "4", "5", "6", "7", "8", "9"]


def test_the_calls_table_has_only_columns_that_say_something() -> None:
    def of(name: str, stable: bool = False) -> list[str]:
        return columns(next(page(name, stable).all("table")))

    everything = ["Id", "Task", "Arguments", "State", "Time", "Worker", "Attempt", "Error"]
    assert of("running") == everything
    assert of("running", stable=True) == [*everything[:4], *everything[6:]]
    assert of("exhausted") == everything[:6]
    assert of("exhausted", stable=True) == everything[:4]


def test_each_call_says_what_it_knows() -> None:
    assert column("running", "Task")[:3] == ["collatz", "collatz resubmit of 3", "collatz"]
    assert column("running", "Time")[:4] == [f"{n}\N{NO-BREAK SPACE}s" for n in ("0.75", "7.34", "6.34")] + [""]  # fmt: skip # noqa: E501
    assert column("running", "Attempt")[:3] == ["", "2", ""]
    assert column("running", "Error")[0] == "ValueError: n must be positive"
    # Two tasks run functions of one name: only their refs tell them apart.
    assert set(column("exhausted", "Task")) == {"Task-collatz-1", "Task-collatz-2"}


@pytest.mark.parametrize(("stable", "n_rows"), [(False, html.N_ROWS), (True, html.N_ROWS_STABLE)])
def test_a_crowd_is_bounded_and_says_what_is_left_out(stable: bool, n_rows: int) -> None:
    ids = column("crowd", "Id", stable=stable)
    assert len(ids) == n_rows
    assert ids[0] == "17"  # the failure, however long ago
    latest = [f"{n:,}" for n in range(10_000, 10_001 - n_rows, -1)]
    assert ids[1:] == (latest[::-1] if stable else latest)
    assert f"… and {10_000 - n_rows:,} more calls" in page("crowd", stable).text
    log = column("crowd", "Message", stable=stable, table=1 if stable else 2)
    assert log == [f"row {n}" for n in (range(20) if stable else range(450, 500))]
    assert f"… and {500 - len(log)} more messages" in page("crowd", stable).text


def test_a_crowd_of_workers_is_counted_by_machine_and_the_first_are_named() -> None:
    machines, named = [t for t in page("cluster").all("table") if t.attributes.get("aria-label") in ("Machines", "Workers")]  # fmt: skip # noqa: E501
    assert columns(machines) == ["Machine", "Workers", "Busy"]
    assert [[td.text for td in tr.all("td")] for tr in machines.all("tr")][1:3] == [
        ["node-00", "32", "0"],
        ["node-01", "32", "32"],
    ]
    assert len(list(named.all("tr"))) == 1 + html.N_WORKERS
    assert "… and 2 more machines" in page("cluster").text
    assert "… and 970 more workers" in page("cluster").text
    assert len(html.render(ALL["cluster"])) < 60_000


def test_few_workers_say_what_they_run_where_and_since_when() -> None:
    assert column("elsewhere", "Worker", table=2) == [
        "tcp://10.0.0.7:40713",
        "tcp://10.0.0.8:40813",
    ]
    assert column("elsewhere", "Machine", table=2) == ["10.0.0.7", "10.0.0.8"]
    assert column("elsewhere", "Process", table=2) == ["71", ""]
    assert column("elsewhere", "Call", table=2) == ["2 · collatz (and 1 more)", "4 · collatz"]
    assert column("elsewhere", "Time", table=2) == ["18.0\N{NO-BREAK SPACE}s", "16.0\N{NO-BREAK SPACE}s"]  # fmt: skip # noqa: E501


def test_the_queue_says_that_nobody_is_there() -> None:
    assert "3 calls wait for workers of SLURMCluster." in page("waiting").text
    assert "waiting 25.0 s for workers of SLURMCluster" in page("waiting").text
    assert "2 jobs in the batch queue" in page("waiting").text
    assert "wait" not in page("waiting", stable=True).text


def test_stable_failures_are_left_where_they_stand_unless_all_are_known() -> None:
    """Which old failures a bounded snapshot still holds depends on timing."""
    some = replace(ALL["crowd"], counts=counts(done=9_997, failed=3))
    ids = [td.text for tr in parse(html.render(some, stable=True)).all("tr") for td in tr.all("td")]
    assert "17" not in ids


def test_progress_has_a_role_and_a_text() -> None:
    (bar,) = [n for n in page("running").all("div") if n.attributes.get("role") == "progressbar"]
    assert bar.attributes == {
        "class": "amltk-nb-bar",
        "role": "progressbar",
        "aria-label": "Progress",
        "aria-valuetext": "4 of 9 calls ended",
        "aria-valuemin": "0",
        "aria-valuemax": "9",
        "aria-valuenow": "4",
    }
    assert [(n.attributes["class"][9:], n.attributes["style"]) for n in bar.all()] == [
        ("done", "flex:3"),
        ("failed", "flex:1"),
        ("running", "flex:2"),
        ("queued", "flex:3"),
    ]


def test_without_calls_it_says_what_to_do() -> None:
    assert "No calls yet: submit one with task.submit(…)." in page("idle").text
    over = replace(ALL["idle"], run=replace(ALL["idle"].run, state=RunState.FINISHED))
    assert "No calls were made." in parse(html.render(over)).text


@pytest.mark.parametrize(("name", "stable"), PAGES)
def test_tables_details_and_icons_are_accessible(name: str, stable: bool) -> None:
    root = page(name, stable)
    assert {th.attributes.get("scope") for th in root.all("th")} <= {"col", "row"}
    assert [d.children[0].tag for d in root.all("details")] == (  # type: ignore[union-attr]
        ["summary"] * len(list(root.all("details")))
    )
    icons = [n for n in root.all("span") if n.attributes.get("aria-hidden") == "true"]
    assert {n.text for n in icons} <= set(words.ICONS.values())
    shown = sum(root.text.count(icon) for icon in set(words.ICONS.values()))
    assert len(icons) == shown  # no icon is read out
    scrolled = [n for n in root.all("div") if n.attributes.get("class") == "amltk-nb-scroll"]
    assert len(scrolled) == len([n for n in root.all("table") if "aria-label" in n.attributes])
    for area in scrolled:  # reachable by keyboard
        assert area.attributes["tabindex"] == "0"
        assert area.attributes["aria-label"]


def test_it_reads_well_where_styles_are_taken_away() -> None:
    text = page("running").text.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "Scheduler 'seeds' · ◐ running · ProcessExecutor {'max_workers': 2} · 12.3 s"
        "4 of 9 calls ended · ○ 3 queued · ◐ 2 running · ✓ 3 done · ✕ 1 failed · ⊘ 0 cancelled"
        "Calls 9"
    )
    assert "@on_start 1def start_all() -> None (1) cell [3]" in text
    assert "lambda _ (4) ✕ 1 error cell [4]" in text
    assert "_book" not in text


def test_title_replaces_the_name() -> None:
    fragment = html.render(ALL["idle"], title="Night <run>")
    assert 'aria-label="Night &lt;run&gt;"' in fragment
    assert "seeds" not in fragment


def test_a_task_alone() -> None:
    root = parse(html.render_task(ALL["running"].tasks[0], stable=True))
    assert next(root.all("div")).attributes["aria-label"] == "Task collatz(n: int) -> int"
    assert [caption.text for caption in root.all("caption")] == ["Limiter", "Cache"]
    assert [(tr.text) for tr in root.all("tr")] == [
        "calls9/20",
        "concurrent2/2",
        "hits3",
        "misses6",
    ]
    assert [d.attributes for d in root.all("details")] == [{"open": ""}]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Behind the output: our own background, then JupyterLab's, VS Code's and Colab's.
BACKGROUNDS = [("light", "#ffffff"), ("light", "#fafafa")] + [
    ("dark", colour) for colour in ("#0d1117", "#111111", "#1e1e1e", "#1f1f1f")
]


@pytest.mark.parametrize(("scheme", "background"), BACKGROUNDS)
def test_contrast(scheme: str, background: str) -> None:
    palette = {"light": LIGHT, "dark": DARK}[scheme]
    texts = set(palette) - {"bg", "line"}
    found = {name: contrast(palette[name], background) for name in texts}
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_styles_are_scoped_and_use_only_defined_colours() -> None:
    css = STYLE.removeprefix("<style>").removesuffix("</style>")
    flat = re.sub(r"@media\([^)]*\)\{((?:[^{}]*\{[^{}]*\})*)\}", r"\1", css)
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", flat)
    assert len(rules) > 50
    root = re.escape(f".{ROOT_CLASS}")
    scoped = re.compile(rf"({root}|:is\(#amltk-nb,{root}\))( .*)?")
    hosts = re.compile(r":where\((?:[^()]|\([^()]*\))*\) ")
    # A comma inside parentheses does not separate selectors.
    heads = [
        part
        for selector, _ in rules
        for part in re.split(r",(?![^()]*\))", hosts.sub("", selector.strip()))
    ]
    assert [head for head in heads if not scoped.fullmatch(head)] == []
    assert sum(len(hosts.findall(selector)) for selector, _ in rules) == 4
    used = set(re.findall(r"var\(--amltk-(\w+)\)", css))
    assert used <= set(LIGHT)
    assert set(LIGHT) == set(DARK)
    assert css.count("--amltk-failed:") == 6  # alone, by system, two by books, two by notebooks
