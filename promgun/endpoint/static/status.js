
"use strict";
// Whatever comes from the server is put in as text, never as markup; the policy of the page has browsers enforce it.
(() => {
  const PERIOD = 1000;
  // An answer that takes longer is none: the page had better say so.
  const PATIENCE = 4000;
  const PIECES = 60;
  const HEIGHT = 24;
  const NOTHING = "–";
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);

  // Numbers in three digits, as the terminal view has them.
  const three = (value) => value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
  const known = (value) => value !== null && value !== undefined;
  const rate = (value) => (!known(value) ? NOTHING : value ? three(value) : "0");
  const share = (value) => (!known(value) ? NOTHING : `${value ? three(100 * value) : 0} %`);
  const count = (value) => (known(value) ? String(value) : NOTHING);
  const cpu = (value) => (known(value) ? `${(100 * value).toFixed(0)} %` : NOTHING);

  function duration(seconds) {
    const parts = [];
    let left = Math.floor(seconds);
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
      const amount = Math.floor(left / size);
      left %= size;
      if (amount || parts.length) parts.push(`${amount}${unit}`);
    }
    return parts.slice(0, 2).join(" ") || "0s";
  }

  function time(seconds) {
    if (!known(seconds)) return NOTHING;
    if (seconds < 0.9995) return `${three(1000 * seconds)} ms`;
    return seconds < 99.95 ? `${three(seconds)} s` : duration(seconds);
  }

  const age = (seconds) => (seconds < 9.95 ? `${seconds.toFixed(1)}s` : duration(seconds));

  function memory(bytes) {
    if (!known(bytes)) return NOTHING;
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let size = bytes;
    let unit = 0;
    while (size >= 999.5 && unit < units.length - 1) {
      size /= 1024;
      unit += 1;
    }
    return `${unit ? three(size) : size} ${units[unit]}`;
  }

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

  // The head: how a figure reads now, what its chart shows, the value of a full bar at least.
  const alarm = (value, warn, bad) => (known(value) && value >= warn ? (value >= bad ? "bad" : "warn") : "");
  const quantile = (name) => ({
    label: name,
    key: `${name}_seconds`,
    format: time,
    text: (data) => {
      const value = data.now[`${name}_seconds`];
      return known(value) && value === data.now.longest_bound_seconds ? `> ${time(value)}` : time(value);
    },
  });
  const figures = [
    {
      label: "workers", key: "workers", least: 1, format: count, wide: true,
      text: (data) => {
        const states = Object.keys(data.workers_by_state).sort().map((state) => `${data.workers_by_state[state]}\u00a0${state}`);
        return `${data.now.workers} of ${data.workers_target}: ${states.join(", ") || "none alive"}`;
      },
      role: (data) => ("hung" in data.workers_by_state ? "bad" : data.now.workers < data.workers_target ? "warn" : ""),
    },
    {
      label: "requests", key: "requests_per_second", format: rate,
      text: (data) => `${rate(data.now.requests_per_second)} /s`,
    },
    {
      label: "errors", key: "error_share", least: 0.01, format: share,
      text: (data) => share(data.now.error_share),
      role: (data) => alarm(data.now.error_share, 1e-9, 0.01),
    },
    {
      label: "utilised", key: "utilisation_share", least: 1, format: share,
      text: (data) => share(data.now.utilisation_share),
      role: (data) => alarm(data.now.utilisation_share, 0.8, 0.95),
    },
    {
      label: "queue", key: "queue_connections", least: 1, format: count,
      text: (data) => (known(data.now.queue_connections) ? `${data.now.queue_connections} of ${data.now.queue_limit}` : NOTHING),
    },
    {
      label: "in use", key: "requests_in_progress", least: 1, format: count,
      text: (data) => `${data.now.requests_in_progress} of ${data.now.capacity}`,
    },
    quantile("p50"), quantile("p95"), quantile("p99"),
  ];

  for (const figure of figures) {
    const box = element("div", figure.wide ? "figure wide" : "figure");
    box.id = `figure-${figure.label.replace(" ", "-")}`;
    figure.value = element("div", "value", NOTHING);
    figure.peak = element("div", "peak");
    figure.chart = document.createElementNS(SVG, "path");
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", `0 0 ${PIECES} ${HEIGHT}`);
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    picture.append(figure.chart);
    box.append(element("div", "label", figure.label), figure.peak, figure.value, picture);
    byId("figures").append(box);
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

  function most(data, key) {
    return data.history.points.reduce((peak, point) => (known(point[key]) ? Math.max(peak, point[key]) : peak), 0);
  }

  function drawFigure(data, figure) {
    setText(figure.value, figure.text(data));
    figure.value.className = `value ${figure.role ? figure.role(data) : ""}`;
    const any = data.history.points.some((point) => known(point[figure.key]));
    setText(figure.peak, any ? `most ${figure.format(most(data, figure.key))}` : "");
    const ceiling = Math.max(figure.least || 0, most(data, figure.key)) || 1;
    let path = "";
    pieces(data, figure.key).forEach((value, index) => {
      if (value === null) return;
      const height = value > 0 ? Math.max(1.5, (HEIGHT * value) / ceiling) : 0.5;
      path += `M${index} ${HEIGHT}v${-height.toFixed(2)}h.8V${HEIGHT}z`;
    });
    figure.chart.setAttribute("d", path);
  }

  // The workers: a line each
  function request(worker) {
    const oldest = worker.running[0];
    if (!oldest) return "";
    const where = oldest.path || oldest.route;
    const text = oldest.method ? `${oldest.method} ${where || `(${oldest.phase})`}` : `(${oldest.phase})`;
    const others = Math.max(worker.running.length, worker.requests_in_progress) - 1;
    return others > 0 ? `${text} +${others}` : text;
  }

  const columns = [
    ["worker", "slot", (worker) => String(worker.worker_id)],
    ["pid", "pid", (worker) => count(worker.pid)],
    ["state", "state", (worker) => worker.state],
    ["request", "request", request],
    ["age", "age", (worker) => (worker.running.length ? age(worker.running[0].age_seconds) : "")],
    ["req/s", "rate", (worker) => rate(worker.requests_per_second)],
    ["in use", "use", (worker) => `${worker.requests_in_progress}/${worker.capacity}`],
    ["CPU", "cpu", (worker) => cpu(worker.cpu_share)],
    ["memory", "memory", (worker) => memory(worker.resident_memory_bytes)],
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
    if (body.querySelector(".none")) body.replaceChildren();
    data.workers.forEach((worker, index) => {
      const row = body.rows[index] || newRow();
      columns.forEach(([, , read], column) => setText(row.cells[column], read(worker)));
      row.cells[2].className = `state ${roles[worker.state] || ""}`;
      row.cells[3].title = request(worker);
    });
    while (body.rows.length > data.workers.length) body.deleteRow(-1);
    if (data.workers.length) return;
    const cell = element("td", "none", "No worker is alive.");
    cell.colSpan = columns.length;
    body.insertRow().append(cell);
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
      known(instance.uptime_seconds) ? `up ${duration(instance.uptime_seconds)}` : "",
      instance.addresses.join(" "),
      instance.gunicorn ? `Gunicorn ${instance.gunicorn}, promgun ${instance.promgun}, Python ${instance.python}` : "",
    ];
    setText(byId("name"), name);
    setText(byId("about"), about.filter(Boolean).join(" · "));
    setText(byId("clock"), `${clock(data.taken_unix_seconds)} · every second`);
    for (const figure of figures) drawFigure(data, figure);
    drawWorkers(data);
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
