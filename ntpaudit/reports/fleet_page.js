(() => {
  "use strict";
  const controls = document.querySelector(".controls");
  if (!controls) return;
  const field = controls.querySelector("input");
  const result = controls.querySelector("output");
  const choice = controls.querySelector("select");
  const rest = document.querySelector("details.rest");
  const tables = [...document.querySelectorAll("table.hosts")].map((table) => {
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    return { table, rows, length: table.tBodies[0].rows.length, words: null };
  });
  const total = tables.reduce((sum, one) => sum + one.rows.length, 0);
  let opened = false;

  // A body out of sight has only the height that its number of rows lets expect.
  const measure = (table) => {
    for (const body of table.tBodies) {
      const shown = [...body.rows].reduce((sum, row) => sum + !row.hidden, 0);
      body.hidden = shown === 0;
      body.style.setProperty("--rows", shown);
    }
  };

  const filter = () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const one of tables) {
      one.words ??= one.rows.map((row) => `${row.textContent} ${row.dataset.f ?? ""}`.toLowerCase());
      let here = 0;
      one.rows.forEach((row, place) => {
        const fits = wanted.every((word) => one.words[place].includes(word));
        if (row.hidden === fits) row.hidden = !fits;
        here += fits;
      });
      measure(one.table);
      shown += here;
      if (rest && rest.contains(one.table)) {
        if (wanted.length && here && !rest.open) rest.open = opened = true;
        if (!wanted.length && opened) rest.open = opened = false;
      }
    }
    result.value = wanted.length ? `${shown} of ${total} hosts` : "";
  };

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  // What has no number comes last either way.
  const compare = (a, b, sign) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a < b ? -sign : a > b ? sign : 0;
  };
  const sort = (column, down) => {
    choice.value = `${column}${down ? "d" : ""}`;
    for (const { table, rows, length } of tables) {
      const order = rows.map((row, place) => ({ row, place, key: column ? key(row, column) : place }));
      order.sort((a, b) => compare(a.key, b.key, down ? -1 : 1) || a.place - b.place);
      [...table.tBodies].forEach((body, part) => {
        body.append(...order.slice(part * length, (part + 1) * length).map(({ row }) => row));
      });
      measure(table);
      [...table.tHead.rows[0].cells].forEach((head, place) => {
        if (place === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
    }
  };

  for (const { table } of tables) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.classList.contains("band")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `sort by ${head.textContent}`);
      button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
      head.append(button);
    });
  }
  // A link may lead to a row that is filtered out or folded away.
  const reveal = (hash) => {
    const row = hash.length > 1 && document.getElementById(hash.slice(1));
    if (!row || !row.matches(".hosts tr")) return null;
    if (row.hidden) {
      field.value = "";
      filter();
    }
    if (rest && rest.contains(row)) rest.open = true;
    return row;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link) reveal(link.hash);
  });
  reveal(location.hash)?.scrollIntoView();

  choice.addEventListener("change", () => sort(parseInt(choice.value, 10), choice.value.endsWith("d")));
  field.addEventListener("input", filter);
  controls.hidden = false;
})();
