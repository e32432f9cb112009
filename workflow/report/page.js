// Tables that a person can sort and filter. Without scripts they are the tables that they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const key = cell => {
    const text = cell.textContent.trim().replaceAll("−", "-").replaceAll(",", "");
    const number = text.match(/^[^\d+-]?([+-]?\d+(\.\d+)?)/);
    return number ? Number(number[1]) : text.toLowerCase();
  };
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = rows.toSorted((a, b) => order(key(a.cells[column]), key(b.cells[column])));
      body.append(...(down ? sorted.reverse() : sorted));
    });
  });
  if (rows.length < 6) continue;
  const field = document.createElement("input");
  Object.assign(field, { type: "search", placeholder: "Filter rows" });
  field.setAttribute("aria-label", `Filter rows: ${table.caption.textContent}`);
  field.addEventListener("input", () => {
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(field.value.toLowerCase());
  });
  table.before(field);
}
