import { afterEach, describe, expect, test, vi } from "vitest";
import { detect, follow } from "../src/theme";

const PREFERS = "(prefers-color-scheme: dark)";

/** A document as a host makes it, read by somebody whose system is dark or light. */
function surroundings(html: string, body: string, { dark = false, around = "" } = {}): Element {
  const inner = `<div ${around}><div id="x"></div></div>`;
  const doc = new DOMParser().parseFromString(`<html ${html}><body ${body}>${inner}</body></html>`, "text/html");
  const view = { matchMedia: (query: string) => ({ matches: dark && query === PREFERS }) };
  Object.defineProperty(doc, "defaultView", { value: view });
  return doc.getElementById("x") as Element;
}

describe("the theme", () => {
  // The reader's system says the opposite each time, so the host's flag alone decides.
  test.each([
    ["", 'data-jp-theme-light="false"', "dark"],
    ["", 'data-jp-theme-light="true"', "light"],
    ["", 'data-jp-theme-light="true" class="vscode-dark"', "light"],
    ["", 'class="vscode-dark"', "dark"],
    ["", 'class="vscode-light"', "light"],
    ["", 'class="vscode-high-contrast"', "dark"],
    ["", 'class="vscode-high-contrast vscode-high-contrast-light"', "light"],
    ["", 'class="vscode-high-contrast-light"', "light"],
    ['theme="dark"', "", "dark"],
    ['theme="light"', "", "light"],
    ['theme="light" data-theme="dark"', "", "light"],
    ['data-theme="dark"', "", "dark"],
    ['data-theme="light"', "", "light"],
    ["", 'data-theme="dark" class="dark dark-theme"', "dark"],
    ["", 'data-md-color-scheme="slate"', "dark"],
    ["", 'data-md-color-scheme="default"', "light"],
  ])("of <html %s><body %s> is %s", (html, body, theme) => {
    expect(detect(surroundings(html, body, { dark: theme === "light" }))).toBe(theme);
  });

  test.each([
    ["", ""], ['class="js"', 'class="vscode"'], ["", 'data-theme="auto"'], ["", 'data-md-color-scheme="own"'],
  ])("of <html %s><body %s> is the system's", (html, body) => {
    expect(detect(surroundings(html, body, { dark: true }))).toBe("dark");
    expect(detect(surroundings(html, body, { dark: false }))).toBe("light");
  });

  test("is that of the nearest part of the page that has one", () => {
    const around = 'data-theme="dark"';
    expect(detect(surroundings('data-theme="light"', "", { around }))).toBe("dark");
    expect(detect(surroundings("", 'data-jp-theme-light="true"', { around: 'data-jp-theme-light="false"' }))).toBe("dark");
  });

  test("is seen out of shadow roots, one within the other", () => {
    const host = surroundings("", "", { around: 'data-theme="dark"' });
    const [outer, inner] = [host, host.ownerDocument.createElement("div")];
    outer.attachShadow({ mode: "open" }).append(inner);
    const el = host.ownerDocument.createElement("p");
    inner.attachShadow({ mode: "open" }).append(el);
    expect(detect(el)).toBe("dark");
  });
});

describe("a view", () => {
  const controller = new AbortController();
  afterEach(() => {
    vi.unstubAllGlobals();
    controller.abort();
    for (const { name } of [...document.body.attributes]) document.body.removeAttribute(name);
    document.documentElement.removeAttribute("theme");
  });

  test("follows each flag of its host while it changes, and the system where there is none", async () => {
    const system = new EventTarget() as EventTarget & { matches: boolean };
    system.matches = false;
    vi.stubGlobal("matchMedia", () => system);
    const el = document.createElement("div");
    document.body.append(el);
    follow(el, controller.signal);
    const theme = async () => {
      await Promise.resolve(); // observers are told in a microtask
      return el.dataset["amltkTheme"];
    };
    expect(await theme()).toBe("light");

    const { body, documentElement: html } = document;
    for (const [where, name, dark, light] of [
      [body, "data-md-color-scheme", "slate", "default"],
      [body, "data-theme", "dark", "light"],
      [html, "theme", "dark", "light"],
      [body, "class", "vscode-dark", "vscode-light"],
      [body, "data-jp-theme-light", "false", "true"],
    ] as const) {
      where.setAttribute(name, dark);
      expect(await theme()).toBe("dark");
      where.setAttribute(name, light);
      expect(await theme()).toBe("light");
    }

    for (const { name } of [...body.attributes]) body.removeAttribute(name);
    html.removeAttribute("theme");
    system.matches = true;
    system.dispatchEvent(new Event("change"));
    expect(await theme()).toBe("dark");

    controller.abort();
    body.setAttribute("data-theme", "light");
    expect(await theme()).toBe("dark");
  });
});
