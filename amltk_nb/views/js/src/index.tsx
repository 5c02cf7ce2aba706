// The entry that anywidget loads: one connection and one tree of views per place it is shown.

import { render as draw } from "preact";
import { App } from "./app";
import { Connection } from "./connection";
import { Line } from "./hooks";
import "./style.css";
import { follow } from "./theme";
import type { AnyModel } from "./wire";

const VIEWS = ["header", "progress", "controls", "queue", "timeline", "workers", "events", "plugins", "log"];

interface RenderProps {
  model: AnyModel;
  el: HTMLElement;
}

function render({ model, el }: RenderProps): () => void {
  const controller = new AbortController();
  const root = document.createElement("div");
  root.className = "amltk-nb";
  keepKeys(root, controller.signal);
  el.append(root);
  follow(root, controller.signal);
  const connection = new Connection(model, undefined, controller.signal);
  const wanted = model.get("views");
  const views = Array.isArray(wanted) && wanted.length > 0 ? wanted.map(String) : VIEWS;
  const task = model.get("task");
  draw(
    <Line.Provider value={connection}>
      <App views={views} task={typeof task === "string" ? task : undefined} />
    </Line.Provider>,
    root,
  );
  return () => {
    controller.abort();
    draw(null, root);
    root.remove();
  };
}

/**
 * Keep plain keys pressed in here away from JupyterLab's shortcuts: D D on a focused button would
 * delete the cell, Enter would leave for the editor. Ctrl+S and the like still work.
 *
 * Lab asks for this attribute of the focused element itself, in a listener that comes first of
 * all those in the document; only the window's come earlier.
 */
function keepKeys(root: HTMLElement, signal: AbortSignal): void {
  const mark = (event: KeyboardEvent) => {
    const { target } = event;
    if (!(target instanceof Element) || !root.contains(target)) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    target.toggleAttribute("data-lm-suppress-shortcuts", plain);
  };
  window.addEventListener("keydown", mark, { capture: true, signal });
}

export default { render };
