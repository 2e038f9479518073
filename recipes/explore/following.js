// How the model goes on after the passage: with everything kept, and with each memory, where it parts from that.
function drawFollowing({ full, rows }) {
  const cell = (...children) => element("td", { class: "said" }, ...children);
  document.getElementById("following").append(
    element("thead", {}, element("tr", {}, ["Cache", "What it says", "Parts after"].map((name) => element("th", { class: "text" }, name)))),
    element("tbody", {},
      element("tr", {}, element("th", {}, "everything kept"), cell(visible(full)), element("td", {}, "")),
      Object.entries(rows).map(([name, { same, rest, parts }]) => element("tr", {}, element("th", {}, name),
        cell(visible(same), rest && element("mark", {}, visible(rest))),
        element("td", { class: "text" }, parts === null ? "never" : `${integer(parts)} tokens`)))));
}
