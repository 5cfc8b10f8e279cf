"use strict";
(() => {
  const table = document.getElementById("forecasts");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const numbers = new Intl.NumberFormat("en-US");

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = words.every((word) => row.dataset.words.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    found.textContent = `${numbers.format(shown)} of ${numbers.format(rows.length)} pools`;
  };

  const cell = (row, column) => row.cells[column].dataset.value;
  const compare = (column, numeric, direction) => (left, right) => {
    const a = cell(left, column), b = cell(right, column);
    if (a === "" || b === "") return (a === "") - (b === "");
    return direction * (numeric ? a - b : a.localeCompare(b));
  };

  const sort = (header) => {
    const numeric = header.dataset.kind === "number";
    const now = header.getAttribute("aria-sort");
    const direction = now ? (now === "ascending" ? -1 : 1) : numeric ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    rows.sort(compare(header.cellIndex, numeric, direction));
    body.append(...rows);
  };

  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header));
  }
  search.addEventListener("input", show);
  document.getElementById("searchbar").hidden = false;
  show();
})();
