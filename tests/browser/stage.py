"""The built dashboard on an empty page, without a server or a kernel: the test plays the kernel.

The page comes with a Content-Security-Policy that allows its own script and style sheet and
nothing else, and counts what is tried all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Dialog, Locator, Page, Route

import amltk_nb.views

__all__ = ["Stage"]

STATIC = Path(amltk_nb.views.__file__).parent / "static"
ORIGIN = "http://localhost"  # nobody is asked: each request ends in `Stage._answer`
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'"
ICON = f"{ORIGIN}/favicon.ico"  # which the browser asks for by itself
DOCUMENT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src {ICON}"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Stage</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="widget.css"><link rel="stylesheet" href="stage.css">
<script type="module" src="stage.js"></script></head>
<body><main id="here"></main></body></html>
"""
_STYLE = "body { margin: 8px; font-family: system-ui, sans-serif; background: Canvas; }"

# Runs before anything else of a page does, whatever its policy.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""

# Answers what a page asks as the kernel would; a test replaces `full`, `rows` and `detail`.
_SCRIPT = """
import widget from "./widget.js";
const heard = new Map();
const stage = {
  sent: [], full: null, rows: [], views: [], detail: (id) => ({ call: id }),
  tell(message) { heard.get("msg:custom")?.(message); },
  async flush() { for (let n = 0; n < 8; n++) await null; return document.body.offsetHeight; },
};
window.stage = stage;
const values = {
  snapshot: () => (stage.tell(stage.full), null),
  detail: ({ call }) => stage.detail(call),
  rows: ({ state, before, limit }) => ({
    rows: stage.rows
      .filter((row) => (!state || row.state === state) && (before == null || row.id < before))
      .slice(0, limit),
  }),
};
function send({ id, name, args }) {
  stage.sent.push({ name, args });
  queueMicrotask(() => {
    const value = values[name]?.(args) ?? null;
    stage.tell({ kind: "reply", id, ok: true, error: null, value });
  });
}
stage.open = () => widget.render({
  el: document.getElementById("here"),
  model: {
    get: (key) => (key === "views" ? stage.views : undefined),
    on: (event, callback) => heard.set(event, callback),
    off: (event) => heard.delete(event),
    send,
  },
});
"""


class Stage:
    """A page with one live view on it, and what it asked for, tried and complained of."""

    def __init__(self, page: Page) -> None:
        """Load the page; nothing is shown yet."""
        self.page = page
        self._requests: list[str] = []
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        self.document = ""
        page.on("request", lambda request: self._requests.append(request.url))
        page.on("websocket", lambda socket: self._requests.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("console", self._note)
        page.on("dialog", self._dismiss)
        page.add_init_script(_WATCH)
        page.route("**/*", self._answer)
        page.goto(f"{ORIGIN}/")
        page.wait_for_function("window.stage !== undefined")

    def show(self, full: dict[str, Any], *, views: tuple[str, ...] = ()) -> None:
        """Show a view whose kernel answers with this message; see `Feed`."""
        self.page.evaluate(
            "([full, views]) => { stage.full = full; stage.views = views; stage.open(); }",
            [full, list(views)],
        )
        self.root.locator(".amltk-name, .amltk-section").first.wait_for()

    def show_document(self, html: str) -> None:
        """Show a document, or a part of one as a saved notebook does, that can run scripts.

        Its policy only reports, so that what has run is seen as well as what has tried to.
        """
        self.document = html
        self.page.goto(f"{ORIGIN}/document")

    def tell(self, *messages: dict[str, Any]) -> None:
        """Have the kernel send something, and wait until it is shown."""
        script = "async (all) => { for (const m of all) { stage.tell(m); await stage.flush(); } }"
        self.page.evaluate(script, list(messages))

    @property
    def root(self) -> Locator:
        """The dashboard."""
        return self.page.locator(".amltk-nb .amltk-all")

    @property
    def violations(self) -> list[str]:
        """What the page tried that its policy forbids."""
        found: list[str] = self.page.evaluate("window.violations")
        return found

    @property
    def requests(self) -> list[str]:
        """What was asked of anybody."""
        return [url for url in self._requests if url != ICON]

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _answer(self, route: Route) -> None:
        files = {
            "/": ("text/html", _PAGE),
            "/document": ("text/html", self.document),
            "/stage.css": ("text/css", _STYLE),
            "/stage.js": ("text/javascript", _SCRIPT),
            "/widget.js": ("text/javascript", (STATIC / "widget.js").read_text("utf-8")),
            "/widget.css": ("text/css", (STATIC / "widget.css").read_text("utf-8")),
        }
        found = files.get(route.request.url.removeprefix(ORIGIN))
        if found is None:
            route.abort()
            return
        headers = {"content-type": f"{found[0]}; charset=utf-8"}
        if found[1] is self.document:
            headers["content-security-policy-report-only"] = DOCUMENT_POLICY
        else:
            headers["content-security-policy"] = POLICY
        route.fulfill(headers=headers, body=found[1])
