export default {
  render({ model, el }) {
    const pre = document.createElement("pre");
    el.append(pre);
    model.on("msg:custom", (m) => {
      if (m.model) pre.textContent = JSON.stringify({ ...m.model.run.run, ...m.model.counts }, null, 1);
    });
    model.send({ kind: "command", id: 1, name: "snapshot", args: {} });
  },
};
