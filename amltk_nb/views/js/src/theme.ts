// Dark or light: each host says it in its own way, and the reader's system decides where none does.

export type Theme = "dark" | "light";

/** Find out which theme surrounds an element. */
export function detect(el: Element): Theme {
  const doc = el.ownerDocument;
  const lab = el.closest("[data-jp-theme-light]") ?? doc.querySelector("[data-jp-theme-light]");
  if (lab) return lab.getAttribute("data-jp-theme-light") === "false" ? "dark" : "light";
  const body = doc.body?.classList;
  if (body?.contains("vscode-light") || body?.contains("vscode-high-contrast-light")) return "light";
  if (body?.contains("vscode-dark") || body?.contains("vscode-high-contrast")) return "dark";
  const colab = doc.documentElement.getAttribute("theme");
  if (colab) return colab === "dark" ? "dark" : "light";
  const book = el.closest("[data-theme]")?.getAttribute("data-theme");
  if (book === "dark" || book === "light") return book;
  return doc.defaultView?.matchMedia?.("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Keep `data-amltk-theme` of an element true while the host changes its theme. */
export function follow(el: HTMLElement, signal: AbortSignal): void {
  const apply = () => {
    const theme = detect(el);
    if (el.dataset["amltkTheme"] !== theme) el.dataset["amltkTheme"] = theme;
  };
  const observer = new MutationObserver(apply);
  const attributeFilter = ["class", "theme", "data-theme", "data-jp-theme-light"];
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true, attributeFilter });
  }
  const query = window.matchMedia?.("(prefers-color-scheme: dark)");
  query?.addEventListener("change", apply, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  apply();
  // A host may render into an element that it puts into the document only afterwards.
  requestAnimationFrame(apply);
}
