"""What the figures to play with have in common: a card with sliders in CSS, and the functions that make them."""

from collections.abc import Mapping

#: For the class `widget`, which every such figure has beside its own.
_CARD = """
.widget {
  margin: 0.4rem 0;
  padding: 0.9rem 1.1rem 0.7rem;
  background: var(--card, #fbfaf7);
  border: 1px solid var(--card-edge, #e3dfd6);
  border-radius: 10px;
  font-family: var(--sans, sans-serif);
  font-size: 0.9rem;
  color: var(--ink, #1b2430);
}
.widget .controls {
  display: grid;
  grid-template-columns: max-content 1fr 3rem;
  gap: 0.25rem 0.7rem;
  align-items: center;
  margin-top: 0.6rem;
}
.widget .controls label { margin: 0; }
.widget .controls input { width: 100%; accent-color: var(--pst-color-primary, #24558f); }
.widget .controls output { text-align: right; font-variant-numeric: tabular-nums; }
"""

#: Elements, drawn ones too; a slider for each [name, label, min, max, step], which changes `state` and calls `draw`.
_MAKE = """
  const NS = "http://www.w3.org/2000/svg";
  function make(parent, name, attributes, text, drawn) {
    const e = drawn ? document.createElementNS(NS, name) : document.createElement(name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    if (text !== undefined) e.textContent = text;
    return parent.appendChild(e);
  }
  function sliders(root, prefix, knobs, state, draw) {
    const controls = make(root, "div", { class: "controls" }), inputs = {};
    knobs.forEach(([name, label, min, max, step]) => {
      const id = `${prefix}-${name}`;
      make(controls, "label", { for: id }, label);
      const input = make(controls, "input", { type: "range", id, min, max, step, "data-name": name });
      input.value = state[name];
      input.output = make(controls, "output", { for: id });
      input.addEventListener("input", () => { state[name] = Number(input.value); draw(); });
      inputs[name] = input;
    });
    return inputs;
  }
"""


def widget(kind: str, values: Mapping[str, float], said: str, css: str, script: str) -> str:
    """A figure as HTML: what is said without scripts, in a div of the classes "widget" and `kind`, and what livens it.

    values: become the div's data-attributes. script: JavaScript that may call `make` and `sliders`; it has a scope of
    its own.
    """
    data = " ".join(f'data-{name}="{value:g}"' for name, value in values.items())
    body = f'(function () {{\n  "use strict";{_MAKE}{script}}})();'
    return f'<div class="widget {kind}" {data}>{said}</div><style>{_CARD}{css}</style><script>{body}</script>'
