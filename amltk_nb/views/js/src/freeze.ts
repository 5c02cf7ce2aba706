// What a run leaves in the notebook's file, where the kernel itself cannot put it.
//
// At the end of a run the kernel replaces the outputs that show it, by their display ids. A page that
// was reloaded or opened later knows no display ids: they are not in the file. So such a page does it
// itself, where its host lets a widget reach the notebook: JupyterLab and Notebook 7, whose widget
// manager has the document's context. Elsewhere the last state stays, as it is.

import type { AnyModel, Frozen } from "./wire";

const VIEW = "application/vnd.jupyter.widget-view+json";

// The part of JupyterLab's models that is needed here: INotebookModel, IOutputAreaModel.
interface Manager {
  context?: { model?: { cells?: Iterable<{ outputs?: Outputs }> } };
}

interface Outputs {
  length: number;
  get(i: number): { data?: Record<string, unknown> };
  set(i: number, output: object): void;
}

/** Put what is to stay in place of every output that shows a widget. */
export function freeze(model: AnyModel, frozen: Frozen | undefined): void {
  if (!frozen) return;
  try {
    for (const outputs of outputsOf(model.widget_manager)) replace(outputs, frozen);
  } catch {
    // A host that only looks like Jupyter's: the page goes on showing the last state.
  }
}

function outputsOf(manager: unknown): Outputs[] {
  const cells = (manager as Manager | undefined)?.context?.model?.cells;
  return [...(cells ?? [])].flatMap((cell) => cell.outputs ?? []);
}

function replace(outputs: Outputs, { model_id, bundle }: Frozen): void {
  for (let i = 0; i < outputs.length; i++) {
    const view = outputs.get(i).data?.[VIEW] as { model_id?: unknown } | undefined;
    if (view?.model_id === model_id) {
      outputs.set(i, { output_type: "display_data", data: bundle, metadata: {} });
    }
  }
}
