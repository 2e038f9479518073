// Buttons that save every table with data-export as CSV and LaTeX, and every picture as SVG and PNG.
{
  const save = (name, address) => element("a", { download: name, href: address }).click();
  const text = (kind, content) => `data:${kind};charset=utf-8,${encodeURIComponent(content)}`;
  // The interval of a cell stands below its value on the page, and in brackets in a file.
  const written = (cell) => {
    const [small, all] = [cell.querySelector("small")?.textContent ?? "", cell.textContent.trim()];
    return small ? `${all.slice(0, all.length - small.length).trim()} [${small}]` : all.replace(/\s+/g, " ");
  };
  const lines = (table) => [...table.rows].map((row) => [...row.cells].map(written));

  const csv = (table) => lines(table).map((line) => line.map((cell) => `"${cell.replaceAll('"', '""')}"`).join(",")).join("\r\n");

  const marks = { "▲": "$\\blacktriangle$", "▼": "$\\blacktriangledown$", "●": "$\\bullet$", "…": "to", "\u2212": "$-$", "τ": "$\\tau$", "×": "$\\times$", "–": "--" };
  const escape = (cell) => cell.replace(/[\\&%$#_{}~^]/g, (c) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[c] ?? `\\${c}`)
    .replace(/[▲▼●…\u2212τ×–]/g, (c) => marks[c]);
  function latex(table) {
    const [head, ...body] = lines(table).map((line) => `${line.map(escape).join(" & ")} \\\\`);
    return [`\\begin{tabular}{l${"c".repeat(table.rows[0].cells.length - 1)}}`, "\\hline", head, "\\hline", ...body, "\\hline", "\\end{tabular}", ""].join("\n");
  }

  function png(drawing, name) {
    const { width, height } = drawing.viewBox.baseVal, image = new Image(), canvas = element("canvas", { width: 2 * width, height: 2 * height });
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      save(`${name}.png`, canvas.toDataURL("image/png"));
    };
    image.src = text("image/svg+xml", new XMLSerializer().serializeToString(drawing));
  }

  for (const shown of document.querySelectorAll("[data-export]")) {
    const name = shown.dataset.export, drawing = shown.querySelector("svg");
    const kinds = shown.tagName === "TABLE"
      ? { CSV: () => save(`${name}.csv`, text("text/csv", csv(shown))), LaTeX: () => save(`${name}.tex`, text("application/x-tex", latex(shown))) }
      : { SVG: () => save(`${name}.svg`, text("image/svg+xml", new XMLSerializer().serializeToString(drawing))), PNG: () => png(drawing, name) };
    const buttons = Object.entries(kinds).map(([kind, onclick]) => element("button", { "data-kind": kind, onclick }, kind));
    (shown.tagName === "TABLE" ? shown.parentElement : shown).before(element("p", { class: "export" }, buttons));
  }
}
