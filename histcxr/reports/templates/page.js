"use strict";
// Sorts a table by a column: a click on its head; the other way round with a second one.
const words = new Intl.Collator(undefined, { numeric: true });
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const key = (row) => row.cells[head.cellIndex].dataset.key ?? row.cells[head.cellIndex].textContent;
      const rows = [...body.rows].map((row) => [key(row), row]);
      const numbers = head.classList.contains("n");
      const order = numbers
        ? (a, b) => (a[0] === "") - (b[0] === "") || (up ? 1 : -1) * (a[0] - b[0])
        : (a, b) => (up ? 1 : -1) * words.compare(a[0], b[0]);
      rows.sort(order);
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows.map((pair) => pair[1]));
    });
  }
}
