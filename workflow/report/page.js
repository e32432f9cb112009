// Tables that a person can sort and filter. Without scripts they are the tables that they are.
const made = (name, properties, ...inside) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...inside);
  return element;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  if (rows.length < 2) continue;
  const key = cell => {
    const text = cell.textContent.trim().replaceAll("−", "-").replaceAll(",", "");
    const number = text.match(/^[^\d+-]?([+-]?\d+(\.\d+)?)/);
    return number ? Number(number[1]) : text.toLowerCase();
  };
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  // On a narrow screen rows are stacks and there are no heads: a list of the columns and a direction take their place.
  const columns = heads.map((head, column) => made("option", { value: column }, head.textContent.trim() || "Group"));
  const choice = made("select", {}, made("option", { value: -1 }, "the table’s order"), ...columns);
  const turn = made("button", { type: "button" });
  const sort = (column, down) => {
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column]?.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sorted = column < 0 ? rows : rows.toSorted((a, b) => order(key(a.cells[column]), key(b.cells[column])));
    body.append(...(down ? sorted.toReversed() : sorted));
    choice.value = column;
    turn.textContent = down ? "descending ↓" : "ascending ↑";
    turn.onclick = () => sort(column, !down);
    choice.onchange = () => sort(Number(choice.value), down);
  };
  heads.forEach((head, column) => {
    const onclick = () => sort(column, head.getAttribute("aria-sort") === "ascending");
    head.append(made("button", { type: "button", onclick }, ...head.childNodes));
  });
  sort(-1, false);
  table.before(made("div", { className: "sorting" }, made("label", {}, "Sort by ", choice), turn));
  choice.setAttribute("aria-label", `Sort by, in ${table.caption.textContent}`);
  if (rows.length < 6) continue;
  const field = made("input", { type: "search", placeholder: "Filter rows" });
  field.setAttribute("aria-label", `Filter rows: ${table.caption.textContent}`);
  field.addEventListener("input", () => {
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(field.value.toLowerCase());
  });
  table.before(field);
}
