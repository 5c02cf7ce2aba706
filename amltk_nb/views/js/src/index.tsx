// The entry that anywidget loads: one connection and one tree of views per place it is shown.

import { render as draw } from "preact";
import { App } from "./app";
import { Connection } from "./connection";
import { Line } from "./hooks";
import "./style.css";
import { follow } from "./theme";
import type { AnyModel } from "./wire";

const VIEWS = ["header", "controls", "queue", "events", "plugins", "log"];

interface RenderProps {
  model: AnyModel;
  el: HTMLElement;
}

function render({ model, el }: RenderProps): () => void {
  const controller = new AbortController();
  const root = document.createElement("div");
  root.className = "amltk-nb";
  // JupyterLab's shortcuts would take the arrow keys and Enter away from the buttons.
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  el.append(root);
  follow(root, controller.signal);
  const connection = new Connection(model, undefined, controller.signal);
  const wanted = model.get("views");
  const views = Array.isArray(wanted) && wanted.length > 0 ? wanted.map(String) : VIEWS;
  draw(
    <Line.Provider value={connection}>
      <App views={views} />
    </Line.Provider>,
    root,
  );
  return () => {
    controller.abort();
    draw(null, root);
    root.remove();
  };
}

export default { render };
