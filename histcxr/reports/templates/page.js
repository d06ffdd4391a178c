"use strict";
// Sorts a table by a column: a click on its head; the other way round with a second one.
const words = new Intl.Collator(undefined, { numeric: true });
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const read = new Map(); // column -> [key, row] of every row, read once
  const keys = (column) => {
    if (!read.has(column)) {
      const key = (cell) => cell.dataset.key ?? cell.textContent;
      read.set(column, [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]));
    }
    return read.get(column);
  };
  for (const head of heads) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const sign = up ? 1 : -1;
      const order = head.classList.contains("n")
        ? (a, b) => (a[0] === "") - (b[0] === "") || sign * (a[0] - b[0])
        : (a, b) => sign * words.compare(a[0], b[0]);
      const rows = [...keys(head.cellIndex)].sort(order);
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = document.createElement("tbody"); // filled out of sight
      body.append(...rows.map((pair) => pair[1]));
      table.tBodies[0].replaceWith(body);
    });
  }
}
