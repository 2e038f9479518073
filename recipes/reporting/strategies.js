// Strategies, each with a colour and a mark: colour is never the only difference between them.
const strategies = data.strategies;
const others = strategies.filter((name) => name !== data.baseline);
const colourOf = (name) => (name === data.baseline ? "var(--base)" : `var(--s${others.indexOf(name) % 8})`);
const shapes = ["M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-5.5L5 4H-5Z", "M0-6L6 0L0 6L-6 0Z",
  "M0 5.5L5-4H-5Z", "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z", "M-5.5 0L4-5V5Z", "M5.5 0L-4-5V5Z",
  "M-5-5H5L-5 5H5Z", "M-1.5-6H1.5V6H-1.5Z", "M-6-1.5H6V1.5H-6Z"];
const shapeOf = (name) => shapes[strategies.indexOf(name) % shapes.length];
const badgeMark = (name) =>
  svg("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true", class: "mark", "--c": colourOf(name) },
    svg("path", { d: shapeOf(name), fill: "currentColor" }));

// Buttons that show and hide strategies; they change the set `shown`.
function strategyButtons(root, names, shown, onchange) {
  root.replaceChildren(...names.map((name) => {
    const button = element("button", {
      "data-strategy": name, "aria-pressed": String(shown.has(name)),
      onclick() {
        if (!shown.delete(name)) shown.add(name);
        button.setAttribute("aria-pressed", String(shown.has(name)));
        onchange();
      },
    }, badgeMark(name), name);
    return button;
  }));
}
