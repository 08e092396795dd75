"use strict";
(() => {
  const root = document.documentElement;
  const get = (id) => document.getElementById(id);
  const main = document.querySelector("main");
  const held = (id, otherwise) => JSON.parse(get(id)?.textContent || "null") ?? otherwise;

  // --- light and dark ---------------------------------------------------------------------------

  const theme = get("theme");
  const darkened = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkened.matches);
  // A page of a file or of a private window may keep nothing.
  const remembered = (write) => {
    try {
      return write ? localStorage.setItem("hotnas-theme", write) : localStorage.getItem("hotnas-theme");
    } catch {
      return null;
    }
  };
  const nameTheme = () => (theme.textContent = isDark() ? "Light" : "Dark");
  const chosen = remembered();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    nameTheme();
  });
  darkened.addEventListener("change", nameTheme);
  theme.hidden = false;
  nameTheme();

  // --- table: sorting and filtering ---------------------------------------------------------------

  const inOrder = { column: 0, up: true }; // as the page has it
  const words = new Intl.Collator(undefined, { numeric: true });
  let order = inOrder;
  let sought = "";

  const number = (text) => (/^[-+.\d]/.test(text) ? Number(text) : NaN);
  const shownAs = (row, column) => row.cells[column].textContent.trim();

  function sort() {
    const table = get("table");
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => shownAs(row, order.column));
    const numbers = texts.map(number);
    // Texts beside numbers ("known before") and what is missing come last, whichever way.
    const numeric = numbers.some((one) => !Number.isNaN(one)) && order.column < table.tHead.rows[0].cells.length - 1;
    const sign = order.up ? 1 : -1;
    const places = rows.map((_, place) => place);
    places.sort((a, b) => {
      if (numeric) {
        const [left, right] = [Number.isNaN(numbers[a]), Number.isNaN(numbers[b])];
        if (left || right) return left - right || a - b;
        return sign * (numbers[a] - numbers[b]) || a - b;
      }
      if (!texts[a] || !texts[b]) return !texts[a] - !texts[b] || a - b;
      return sign * words.compare(texts[a], texts[b]) || a - b;
    });
    table.tBodies[0].append(...places.map((place) => rows[place]));
    showOrder();
  }

  function showOrder() {
    for (const [place, head] of [...get("table").tHead.rows[0].cells].entries()) {
      const which = place === order.column ? (order.up ? "ascending" : "descending") : "none";
      head.setAttribute("aria-sort", which);
    }
  }

  function filter() {
    const parts = sought.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = get("table").tBodies[0].rows;
    let count = 0;
    for (const row of rows) {
      const text = parts.length ? row.textContent.toLowerCase() : "";
      const left = !parts.every((part) => text.includes(part));
      if (row.hidden !== left) row.hidden = left;
      count += !left;
    }
    get("count").textContent =
      parts.length ? `${count} of ${rows.length}` : `${rows.length} evaluation${rows.length === 1 ? "" : "s"}`;
    get("evaluations").classList.toggle("long", count > 100);
  }

  function prepareTable() {
    const table = get("table");
    if (!table) return;
    for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.id = `sort-${place}`;
      button.textContent = head.textContent;
      button.addEventListener("click", () => {
        order = { column: place, up: order.column === place ? !order.up : true };
        sort();
      });
      head.replaceChildren(button);
    }
    const input = get("filter");
    input.closest(".tools").hidden = false;
    input.value = sought;
    input.addEventListener("input", () => {
      sought = input.value;
      filter();
    });
    if (order === inOrder) showOrder();
    else sort();
    filter();
  }

  // --- what is pointed at ---------------------------------------------------------------------------

  const tip = get("tip");
  let pictures = held("pictures", { cells: [], rows: {} });
  let heat = held("heat", null);

  const line = (text, kind) => {
    const made = document.createElement(kind || "p");
    made.textContent = text;
    return made;
  };

  function describe(id) {
    const row = get(id);
    if (!row) return [];
    const heads = [...get("table").tHead.rows[0].cells].map((head) => head.textContent);
    const last = heads.length - 1;
    const first = shownAs(row, 0);
    const said = heads.slice(1, last).flatMap((name, place) => {
      const text = shownAs(row, place + 1);
      return text ? [`${name} ${text}`] : [];
    });
    const lines = [line(/^\d/.test(first) ? `evaluation ${first}` : first), line(said.join(" · "))];
    const name = document.createElement("p");
    name.append(line(row.querySelector("code").textContent, "code"));
    lines.push(name);
    const why = row.querySelector(".failed");
    if (why) {
      const failed = line(why.textContent);
      failed.className = "failed";
      lines.push(failed);
    }
    for (const cell of pictures.rows[id] || []) {
      const drawn = document.createElement("div");
      drawn.innerHTML = pictures.cells[cell]; // ours, with every name in it escaped
      lines.push(drawn);
    }
    return lines;
  }

  function show(event, lines) {
    if (!lines.length) return hide();
    tip.replaceChildren(...lines);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const room = { x: root.clientWidth - box.width - 8, y: innerHeight - box.height - 8 };
    const above = event.clientY - box.height - 14;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, room.x))}px`;
    tip.style.top = `${Math.max(8, event.clientY + 16 > room.y ? above : event.clientY + 16)}px`;
  }

  function hide() {
    tip.hidden = true;
  }

  function pointed(event) {
    const target = event.target instanceof Element ? event.target : root;
    const one = target.closest("[data-row]");
    if (one) return show(event, describe(one.dataset.row));
    if (heat && target.matches(".heat img")) return show(event, pair(event, target));
    hide();
  }

  function pair(event, image) {
    const box = image.getBoundingClientRect();
    const size = heat.rows.length;
    const at = (share) => Math.max(0, Math.min(size - 1, Math.floor(share * size)));
    const i = at((event.clientY - box.top) / box.height);
    const j = at((event.clientX - box.left) / box.width);
    const distance = i === j ? 0 : heat.distances[Math.max(i, j)][Math.min(i, j)];
    const names = [i, j].map((place) => {
      const row = get(heat.rows[place]);
      const made = document.createElement("p");
      made.append(`${shownAs(row, 0)}: `, line(row.querySelector("code").textContent, "code"));
      return made;
    });
    return [line(`distance ${distance}`), ...names];
  }

  document.addEventListener("pointermove", pointed);
  document.addEventListener("pointerdown", pointed);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  root.addEventListener("pointerleave", hide);

  // --- a search that goes on ----------------------------------------------------------------------

  const sections = new Map();

  /** Take over the parts of a newer page that differ; what was typed, opened and scrolled stays. */
  function adopt(fresh) {
    const focused = document.activeElement?.id;
    const caret = get("filter")?.selectionStart;
    const opened = [...main.querySelectorAll("details[open]")].map((one) => one.id);
    const scrolled = main.querySelector(".scroll")?.scrollTop ?? 0;
    // What is being looked at stays where it is, whatever grows above it.
    const top = (id) => get(id)?.getBoundingClientRect().top ?? 0;
    const inView = (one) => one.getBoundingClientRect().bottom > innerHeight / 2;
    const anchor = focused || [...main.children].find(inView)?.id;
    const before = top(anchor);
    const parts = [...fresh.querySelector("main").children];
    let changedTable = false;
    let cursor = main.firstElementChild;
    for (const part of parts) {
      const old = get(part.id);
      if (old && sections.get(part.id) === part.outerHTML) {
        if (old === cursor) cursor = cursor.nextElementSibling;
        else main.insertBefore(old, cursor);
        continue;
      }
      sections.set(part.id, part.outerHTML);
      changedTable ||= part.id === "evaluations";
      const made = document.importNode(part, true);
      if (old) {
        if (old === cursor) cursor = cursor.nextElementSibling;
        old.remove();
      }
      main.insertBefore(made, cursor);
    }
    while (cursor) {
      const next = cursor.nextElementSibling;
      sections.delete(cursor.id);
      cursor.remove();
      cursor = next;
    }
    document.title = fresh.title;
    document.querySelector("h1").textContent = fresh.querySelector("h1").textContent;
    pictures = held("pictures", { cells: [], rows: {} });
    heat = held("heat", null);
    if (changedTable) prepareTable();
    opened.forEach((id) => get(id)?.setAttribute("open", ""));
    const box = main.querySelector(".scroll");
    if (box) box.scrollTop = scrolled;
    if (focused && document.activeElement?.id !== focused) get(focused)?.focus({ preventScroll: true });
    if (focused === "filter" && caret != null) get("filter").setSelectionRange(caret, caret);
    scrollBy(0, top(anchor) - before);
    hide();
  }

  async function follow() {
    const state = get("state");
    let wait = 1000;
    try {
      const said = await (await fetch("state", { cache: "no-store" })).json();
      if (said.version !== root.dataset.live) {
        const answer = await fetch(".", { cache: "no-store" });
        adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
        root.dataset.live = said.version;
      }
      if (state.textContent !== said.state) state.textContent = said.state;
    } catch {
      state.textContent = "hotnas report --watch has ended; this is how far it had come.";
      wait = 15000;
    }
    setTimeout(follow, wait);
  }

  if (root.dataset.live) {
    for (const part of main.children) sections.set(part.id, part.outerHTML); // before it is touched
    setTimeout(follow, 1000);
  }
  prepareTable();
})();
