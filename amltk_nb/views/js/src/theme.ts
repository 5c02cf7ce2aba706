// Dark or light: each host says it in its own way, and the reader's system decides where none does.

export type Theme = "dark" | "light";

/** Find out which theme surrounds an element. */
export function detect(el: Element): Theme {
  const doc = el.ownerDocument;
  const lab = closest(el, "[data-jp-theme-light]") ?? doc.querySelector("[data-jp-theme-light]");
  if (lab) return lab.getAttribute("data-jp-theme-light") === "false" ? "dark" : "light";
  const body = doc.body?.classList;
  if (body?.contains("vscode-light") || body?.contains("vscode-high-contrast-light")) return "light";
  if (body?.contains("vscode-dark") || body?.contains("vscode-high-contrast")) return "dark";
  const colab = doc.documentElement.getAttribute("theme");
  if (colab) return colab === "dark" ? "dark" : "light";
  // Books and marimo; "auto" is none of these and leaves it to the reader's system.
  const book = closest(el, '[data-theme="dark"], [data-theme="light"]');
  if (book) return book.getAttribute("data-theme") as Theme;
  const material = closest(el, '[data-md-color-scheme="slate"], [data-md-color-scheme="default"]');
  if (material) return material.getAttribute("data-md-color-scheme") === "slate" ? "dark" : "light";
  return doc.defaultView?.matchMedia?.("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** The nearest element around that a selector finds, out of shadow roots too: marimo uses them. */
function closest(el: Element, selector: string): Element | null {
  const found = el.closest(selector);
  const root = el.getRootNode();
  return found ?? ("host" in root ? closest((root as ShadowRoot).host, selector) : null);
}

const FLAGS = ["class", "theme", "data-theme", "data-jp-theme-light", "data-md-color-scheme"];

/** Keep `data-amltk-theme` of an element true while the host changes its theme. */
export function follow(el: HTMLElement, signal: AbortSignal): void {
  const apply = () => {
    const theme = detect(el);
    if (el.dataset["amltkTheme"] !== theme) el.dataset["amltkTheme"] = theme;
  };
  const observer = new MutationObserver(apply);
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true, attributeFilter: FLAGS });
  }
  const query = window.matchMedia?.("(prefers-color-scheme: dark)");
  query?.addEventListener("change", apply, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  apply();
  // A host may render into an element that it puts into the document only afterwards.
  requestAnimationFrame(apply);
}
