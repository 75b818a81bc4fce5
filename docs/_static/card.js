// What adapters cost, by the formulas of minitransformer/costs/. The base is an encoder of BERT's
// shape: its vocabulary, positions, token types and pooler; a task has a head with two classes.

const BASE = { vocab: 30522, positions: 512, tokenTypes: 2 };
const TOKENS = 128, CLASSES = 2, FLOAT32 = 4;

function baseParameters({ d, layers, dFF }) {
  const embeddings = (BASE.vocab + BASE.positions + BASE.tokenTypes) * d;
  const attention = layers * (4 * d * d + 4 * d);
  const feedForward = layers * (2 * d * dFF + dFF + d);
  const layerNorms = (2 * layers + 1) * 2 * d;
  return embeddings + attention + feedForward + layerNorms + d * d + d;
}

function adapterCosts(c) {
  const perBlock = c.sites === "both" ? 2 : 1;
  const perSite = 2 * c.d * c.m + c.d + c.m;
  const adapters = perSite * perBlock * c.layers;
  const base = baseParameters(c);
  const head = c.d * CLASSES + CLASSES;
  const taskBytes = FLOAT32 * (adapters + head);
  return {
    base,
    adapters,
    share: adapters / base,
    taskBytes,
    allBytes: FLOAT32 * base + c.tasks * taskBytes,
    copyBytes: c.tasks * FLOAT32 * (base + head),
    // The last block computes only the position that the head reads.
    multiplyAdds: 2 * c.d * c.m * perBlock * ((c.layers - 1) * TOKENS + 1),
  };
}

// Where an adapter stands unless told otherwise.
const USUAL_SITES = { after_norm: "both", houlsby: "both", pfeiffer: "ffn", parallel: "ffn" };

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; count >= 1000 && i < units.length - 1; i++) count /= 1000;
  return `${i ? count.toFixed(1) : count} ${units[i]}`;
}

function fill(form) {
  const c = { sites: form.elements.sites.value };
  for (const name of ["d", "layers", "dFF", "m", "tasks"]) {
    const field = form.elements[name];
    if (!field.checkValidity() || field.value === "") {
      form.querySelector("output").textContent =
        `${field.labels[0].textContent.trim()}: a whole number from ${field.min} to ${field.max}.`;
      return;
    }
    c[name] = Number(field.value);
  }
  const costs = adapterCosts(c);
  const whole = (count) => count.toLocaleString("en-US");
  const rows = [
    ["Parameters of the adapters", whole(costs.adapters)],
    ["Share of the base", `${(100 * costs.share).toFixed(2)} %`],
    ["A task on disk, with its head", bytes(costs.taskBytes)],
    [`The base and ${c.tasks === 1 ? "the task" : `${whole(c.tasks)} tasks`}`, bytes(costs.allBytes)],
    ["The same as full copies", bytes(costs.copyBytes)],
    [`Further multiply-adds for ${TOKENS} tokens`, whole(costs.multiplyAdds)],
  ];
  const list = document.createElement("dl");
  for (const [name, value] of rows) {
    const pair = document.createElement("div");
    pair.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
    list.append(pair);
  }
  form.querySelector("output").replaceChildren(list);
}

document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("adapter-costs");
  if (!form) return;
  form.elements.placement.addEventListener("change", (event) => {
    form.elements.sites.value = USUAL_SITES[event.target.value];
  });
  form.addEventListener("input", () => fill(form));
  form.addEventListener("change", () => fill(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  fill(form);
});
