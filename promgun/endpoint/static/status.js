
"use strict";
// Whatever comes from the server is put in as text, never as markup; the policy of the page has browsers enforce it.
(() => {
  const PERIOD = 1000;
  // Whoever has not answered by then is reported as silent.
  const PATIENCE = 4000;
  const PIECES = 60;
  const HEIGHT = 24;
  const NOTHING = "–";
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);

  const known = (value) => value !== null && value !== undefined;
  const count = (value) => (known(value) ? String(value) : NOTHING);

  function clock(seconds) {
    const at = new Date(1000 * seconds);
    return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
  }

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  // The head: the server says how each figure reads; a box is made when a figure is first told.
  const boxes = new Map();

  function newBox(name) {
    const box = element("div", name === "workers" ? "figure wide" : "figure");
    box.id = `figure-${name.replace(" ", "-")}`;
    const parts = {
      value: element("div", "value", NOTHING),
      peak: element("div", "peak"),
      chart: document.createElementNS(SVG, "path"),
    };
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", `0 0 ${PIECES} ${HEIGHT}`);
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    picture.append(parts.chart);
    box.append(element("div", "label", name), parts.peak, parts.value, picture);
    byId("figures").append(box);
    boxes.set(name, parts);
    return parts;
  }

  // The largest value in each piece of the window. Pieces begin at multiples of their length, so that a chart moves by
  // whole pieces; an interval speaks for all the time it took.
  function pieces(data, key) {
    const length = data.history.seconds / PIECES;
    const last = Math.floor(data.taken_unix_seconds / length);
    const found = new Array(PIECES).fill(null);
    for (const point of data.history.points) {
      const value = point[key];
      if (!known(value)) continue;
      const end = Math.floor(point.at_unix_seconds / length);
      const begin = Math.min(end, Math.floor((point.at_unix_seconds - point.interval_seconds) / length) + 1);
      for (let piece = Math.max(begin, last - PIECES + 1); piece <= Math.min(end, last); piece += 1) {
        const index = PIECES - 1 - (last - piece);
        found[index] = found[index] === null ? value : Math.max(found[index], value);
      }
    }
    return found;
  }

  function drawFigure(data, figure) {
    const box = boxes.get(figure.name) || newBox(figure.name);
    setText(box.value, figure.text);
    box.value.className = `value ${figure.level}`;
    setText(box.peak, figure.most && `most ${figure.most}`);
    let path = "";
    pieces(data, figure.point).forEach((value, index) => {
      if (value === null) return;
      const height = value > 0 ? Math.max(1.5, (HEIGHT * value) / (figure.ceiling || 1)) : 0.5;
      path += `M${index} ${HEIGHT}v${-height.toFixed(2)}h.8V${HEIGHT}z`;
    });
    box.chart.setAttribute("d", path);
  }

  // The workers: a line each
  const columns = [
    ["worker", "slot", (worker) => String(worker.worker_id)],
    ["pid", "pid", (worker) => count(worker.pid)],
    ["state", "state", (worker) => worker.state],
    ["request", "request", (worker) => worker.texts.request],
    ["age", "age", (worker) => worker.texts.age],
    ["req/s", "rate", (worker) => worker.texts.rate],
    ["in use", "use", (worker) => worker.texts.in_use],
    ["lag", "lag", (worker) => worker.texts.lag],
    ["CPU", "cpu", (worker) => worker.texts.cpu],
    ["memory", "memory", (worker) => worker.texts.memory],
    ["left", "left", (worker) => count(worker.requests_left)],
  ];
  const roles = { idle: "quiet", busy: "good", booting: "warn", draining: "warn", hung: "bad" };
  const body = byId("workers").tBodies[0];
  for (const [label, name] of columns) byId("workers").tHead.rows[0].append(element("th", name, label));

  function newRow() {
    const row = body.insertRow();
    for (const [label, name] of columns) {
      const cell = element("td", name);
      cell.dataset.label = label;
      row.append(cell);
    }
    return row;
  }

  function drawWorkers(data) {
    byId("workers").classList.toggle("unlimited", !data.workers.some((worker) => known(worker.requests_left)));
    byId("workers").classList.toggle("loopless", !data.workers.some((worker) => known(worker.loop_lag_seconds)));
    if (body.querySelector(".none")) body.replaceChildren();
    data.workers.forEach((worker, index) => {
      const row = body.rows[index] || newRow();
      columns.forEach(([, , read], column) => setText(row.cells[column], read(worker)));
      row.cells[2].className = `state ${roles[worker.state] || ""}`;
      row.cells[3].title = worker.texts.request;
    });
    while (body.rows.length > data.workers.length) body.deleteRow(-1);
    if (data.workers.length) return;
    const cell = element("td", "none", "No worker is alive.");
    cell.colSpan = columns.length;
    body.insertRow().append(cell);
  }

  // The routes: the server says which and how they read; a click on a heading sorts them.
  const routeColumns = [
    ["route", "route", null],
    ["req/s", "rate", "requests_per_second"],
    ["errors", "errors", "error_share"],
    ["p50", "p50", "p50_seconds"],
    ["p95", "p95", "p95_seconds"],
    ["busy", "busy", "busy_share"],
    ["CPU", "cpu", "cpu_share"],
  ];
  const routeBody = byId("routes").tBodies[0];
  let sortedBy = "busy_share";
  let drawn = null;
  for (const [label, name, key] of routeColumns) {
    const heading = element("th", name);
    if (key) {
      const button = element("button", "", label);
      button.type = "button";
      button.addEventListener("click", () => {
        sortedBy = key;
        drawRoutes(drawn);
      });
      heading.append(button);
      heading.dataset.key = key;
    } else {
      heading.textContent = label;
    }
    byId("routes").tHead.rows[0].append(heading);
  }

  function routeRow(index) {
    if (routeBody.rows[index]) return routeBody.rows[index];
    const row = routeBody.insertRow();
    for (const [label, name] of routeColumns) {
      const cell = element("td", name);
      cell.dataset.label = label;
      row.append(cell);
    }
    return row;
  }

  function drawRoutes(data) {
    drawn = data;
    const found = data.routes || [];
    byId("by-route").hidden = !found.length;
    for (const heading of byId("routes").tHead.rows[0].cells) {
      if (heading.dataset.key) heading.setAttribute("aria-sort", heading.dataset.key === sortedBy ? "descending" : "none");
    }
    // Array.sort is stable: routes that are equal stay in the server's order, by busy time.
    const sorted = [...found].sort((one, other) => (other[sortedBy] || 0) - (one[sortedBy] || 0));
    if (data.routes_left_out) sorted.push(data.routes_left_out);
    sorted.forEach((route, index) => {
      const row = routeRow(index);
      routeColumns.forEach(([, name], column) => setText(row.cells[column], route.texts[name]));
      row.cells[0].title = route.texts.route;
      row.classList.toggle("quiet", !known(route.route));
    });
    while (routeBody.rows.length > sorted.length) routeBody.deleteRow(-1);
  }

  function drawExits(data) {
    const { total, since_watch: seen, last } = data.exits;
    const causes = Object.keys(total).filter((cause) => total[cause] > 0).sort((one, other) => total[other] - total[one]);
    const texts = causes.map((cause) => `${cause} ${total[cause]}${seen[cause] ? ` (+${seen[cause]} while watched)` : ""}`);
    setText(byId("causes"), texts.join(", ") || "None since the start.");
    byId("exits").replaceChildren(...last.map((event) => {
      const line = element("li");
      line.append(element("time", "", clock(event.at_unix_seconds)), event.count > 1 ? `${event.cause} × ${event.count}` : event.cause);
      return line;
    }));
  }

  function draw(data) {
    const { instance } = data;
    const name = instance.name || instance.application || "promgun";
    const about = [
      instance.application !== name ? instance.application : "",
      instance.worker_type,
      instance.uptime_text && `up ${instance.uptime_text}`,
      instance.addresses.join(" "),
      instance.gunicorn ? `Gunicorn ${instance.gunicorn}, promgun ${instance.promgun}, Python ${instance.python}` : "",
    ];
    setText(byId("name"), name);
    setText(byId("about"), about.filter(Boolean).join(" · "));
    setText(byId("clock"), `${clock(data.taken_unix_seconds)} · every second`);
    for (const figure of data.figures) drawFigure(data, figure);
    drawWorkers(data);
    drawRoutes(data);
    drawExits(data);
    say(data.up ? "" : "The server is not running.", name);
  }

  function say(trouble, name) {
    document.body.classList.toggle("away", Boolean(trouble));
    byId("banner").hidden = !trouble;
    setText(byId("banner"), trouble);
    document.title = `${trouble ? "(!) " : ""}${name || byId("name").textContent} – promgun`;
  }

  // One question at a time, a second from one to the next, and none while nobody can see the answer.
  let timer = 0;
  let asking = false;
  let begun = -PERIOD;
  let answered = Date.now() / 1000;

  function askLater() {
    clearTimeout(timer);
    timer = setTimeout(ask, Math.max(0, begun + PERIOD - performance.now()));
  }

  async function ask() {
    if (asking || document.hidden) return;
    asking = true;
    begun = performance.now();
    try {
      const response = await fetch("status.json", { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
      if (!response.ok) throw new Error("no status");
      draw(await response.json());
      answered = Date.now() / 1000;
    } catch {
      say(`No answer from the server since ${clock(answered)}. What is shown is its last one; it is asked again every second.`);
    }
    asking = false;
    askLater();
  }

  document.addEventListener("visibilitychange", askLater);
  ask();
})();
