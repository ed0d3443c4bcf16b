"use strict";
// Plots, sortable tables, legend, galleries and copy buttons of the report page. Every text comes from the page's JSON and is set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const hidden = new Set();
  const shown = { axis: "epochs", single: false, a: 0, b: 0 };

  // ---- styles ----------------------------------------------------------------------------------------------------------

  // Plotly interprets some tags and entities in texts
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faint = (color, alpha) => color + Math.round(alpha * 255).toString(16).padStart(2, "0");
  const short = (text, most = 26) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const axis = (more = {}) => ({
    gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true, ...more,
    title: more.title ? { text: plain(more.title), standoff: 8 } : undefined,
  });
  const layout = (more = {}) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 12, t: 10, b: 44 }, showlegend: false,
    font: { color: css("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 }, hovermode: "closest",
    hoverlabel: { align: "left", namelength: -1 }, ...more, xaxis: axis(more.xaxis), yaxis: axis(more.yaxis),
  });
  const plotlyOptions = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  // ---- plots -----------------------------------------------------------------------------------------------------------

  const plots = {
    cells(place) {
      const most = place.clientWidth < 600 ? 18 : 44;
      const settings = data.settings.filter((setting) => setting.values.length && !hidden.has(setting.number));
      const at = (number) => settings.length - 1 - number;
      const traces = settings.flatMap((setting, number) => [
        {
          x: setting.values, y: setting.values.map(() => at(number) + 0.25), mode: "markers", type: "scatter",
          marker: { color: faint(setting.color, 0.55), size: 6 }, text: setting.runs.map((run, i) => `${plain(run)}<br>${setting.values[i]}`),
          hovertemplate: "%{text}<extra></extra>",
        },
        {
          x: [setting.mean], y: [at(number)], mode: "markers", type: "scatter", marker: { color: setting.color, size: 10, symbol: setting.symbol },
          error_x: setting.low === null ? undefined : {
            type: "data", symmetric: false, array: [setting.high - setting.mean], arrayminus: [setting.mean - setting.low], color: setting.color,
          },
          text: [`${plain(setting.label)}<br>mean ${setting.mean}` + (setting.low === null ? "" : `<br>${setting.low} to ${setting.high}`)],
          hovertemplate: "%{text}<extra></extra>",
        },
      ]);
      return [traces, layout({
        height: Math.max(180, 70 + 30 * settings.length), xaxis: { title: "test accuracy" },
        yaxis: {
          tickvals: settings.map((_, number) => at(number)), ticktext: settings.map((setting) => plain(short(setting.label, most))), zeroline: false,
          range: [-0.6, settings.length - 0.4],
        },
      })];
    },

    curve(place) {
      const traces = [];
      for (const { setting: number, band, runs } of data.curves[place.dataset.metric]) {
        if (hidden.has(number)) continue;
        const setting = data.settings[number];
        const line = { color: setting.color, dash: setting.dash };
        const x = band[shown.axis];
        if (band.low.some((low, i) => low !== band.high[i])) {
          traces.push({
            x: [...x, ...x.toReversed()], y: [...band.high, ...band.low.toReversed()], fill: "toself", fillcolor: faint(setting.color, 0.16),
            line: { width: 0 }, hoverinfo: "skip", type: "scatter", mode: "lines",
          });
        }
        if (shown.single) {
          for (const run of runs) {
            traces.push({
              x: run[shown.axis], y: run.values, line: { ...line, width: 1 }, opacity: 0.5, type: "scatter", mode: "lines",
              text: run.epochs.map((epoch, i) => `${plain(run.run)}<br>epoch ${epoch}: ${run.values[i]}`),
              hovertemplate: "%{text}<extra></extra>",
            });
          }
        }
        traces.push({
          x, y: band.mean, line: { ...line, width: 2.2 }, type: "scatter", mode: x.length > 1 ? "lines" : "markers",
          marker: { color: setting.color, symbol: setting.symbol, size: 9 },
          text: band.epochs.map((epoch, i) => `${plain(setting.label)}, mean of ${band.count[i]}<br>epoch ${epoch}: ${band.mean[i]}`),
          hovertemplate: "%{text}<extra></extra>",
        });
      }
      const loss = place.dataset.metric.endsWith("loss");
      return [traces, layout({ xaxis: { title: shown.axis }, yaxis: { type: loss && data.log_loss ? "log" : "linear" } })];
    },

    cost(place) {
      const { name, points } = data.costs[Number(place.dataset.cost)];
      const seen = points.filter((point) => !hidden.has(point.cell_index));
      const front = seen.filter((point) => point.front).sort((one, other) => one.cost - other.cost);
      const traces = [{
        x: front.map((point) => point.cost), y: front.map((point) => point.accuracy), mode: "lines", type: "scatter",
        line: { color: css("--soft"), dash: "dot", width: 1.5 }, hoverinfo: "skip",
      }];
      for (const point of seen) {
        const setting = data.settings[point.cell_index];
        traces.push({
          x: [point.cost], y: [point.accuracy], mode: seen.length > 12 ? "markers" : "markers+text", type: "scatter", textposition: "top center",
          cliponaxis: false,
          marker: { color: setting.color, size: 11, symbol: setting.symbol, line: { color: css("--ink"), width: point.front ? 2.5 : 0 } },
          text: [plain(short(setting.label, 20))], textfont: { size: 10 }, customdata: [`${plain(setting.label)}<br>${plain(name)} ${point.cost}<br>test accuracy ${point.accuracy}`],
          hovertemplate: "%{customdata}<extra></extra>",
        });
      }
      const values = seen.map((point) => point.cost);
      const wide = Math.max(...values) > 5 * Math.min(...values);
      return [traces, layout({ xaxis: { title: name, type: wide ? "log" : "linear" }, yaxis: { title: "test accuracy" } })];
    },

    confusion(place) {
      const { classes, settings } = data.errors;
      const a = settings[shown.a].confusion, b = settings[shown.b].confusion;
      const shares = (rows) => rows.map((row) => { const sum = row.reduce((s, n) => s + n, 0); return row.map((n) => (sum ? (100 * n) / sum : null)); });
      const difference = place.dataset.of === "difference";
      const [first, second] = [shares(a), shares(b)];
      const z = difference ? first.map((row, i) => row.map((value, j) => (value === null || second[i][j] === null ? null : value - second[i][j]))) : first;
      // leave the diagonal out of the colour scale: it would hide the errors
      const scale = Math.max(1e-9, ...z.flatMap((row, i) => row.filter((_, j) => difference || i !== j)).map(Math.abs));
      const ticks = classes.map((_, number) => number);
      const describe = (value, i, j) => `true class ${plain(classes[i])}, predicted class ${plain(classes[j])}<br>` +
        (difference ? `${value > 0 ? "+" : ""}${value?.toFixed(1)} points` : `${a[i][j]} times, ${value?.toFixed(1)} %`);
      const few = classes.length <= 12;
      const labels = { tickvals: ticks, ticktext: classes.map((name) => plain(short(name, 12))), showgrid: false, zeroline: false };
      return [[{
        z, type: "heatmap", xgap: few ? 1 : 0, ygap: few ? 1 : 0, zmin: difference ? -scale : 0, zmax: scale, showscale: !few,
        colorscale: difference ? [[0, "#0072B2"], [0.5, css("--paper")], [1, "#D55E00"]] : [[0, css("--paper")], [1, "#0072B2"]],
        text: z.map((row, i) => row.map((value, j) => describe(value, i, j))), hovertemplate: "%{text}<extra></extra>",
      }], layout({
        xaxis: { ...labels, title: "predicted class", constrain: "domain" }, yaxis: { ...labels, title: "true class", autorange: "reversed", scaleanchor: "x", constrain: "domain" },
        annotations: few ? z.flatMap((row, i) => row.map((value, j) => ({
          x: j, y: i, showarrow: false, font: { size: 9, color: Math.abs(value) > 0.6 * scale ? "#ffffff" : css("--ink") },
          text: value === null ? "" : difference ? (Math.abs(value) < 0.05 ? "" : value.toFixed(1)) : a[i][j] || "",
        }))) : [],
      })];
    },

    classes() {
      const { classes, settings } = data.errors;
      const traces = pair().map(({ setting, entry, symbol }) => ({
        x: entry.per_class, y: classes.map((_, number) => classes.length - 1 - number), mode: "markers", type: "scatter",
        marker: { color: setting.color, size: 9, symbol }, text: classes.map((name, i) => `${plain(setting.label)}<br>${plain(name)}: ${entry.per_class[i]}`),
        hovertemplate: "%{text}<extra></extra>",
      }));
      const step = Math.ceil(classes.length / 40);
      const ticks = classes.map((_, number) => number).filter((number) => number % step === 0);
      return [traces, layout({
        height: Math.max(320, 60 + Math.min(60, classes.length) * 18), xaxis: { title: "accuracy: ● A, ◆ B" },
        yaxis: { tickvals: ticks.map((number) => classes.length - 1 - number), ticktext: ticks.map((number) => plain(short(classes[number], 16))), zeroline: false },
      })];
    },

    reliability() {
      const traces = [{ x: [0, 1], y: [0, 1], mode: "lines", type: "scatter", line: { color: css("--soft"), dash: "dot", width: 1 }, hoverinfo: "skip" }];
      for (const { setting, entry, symbol } of pair()) {
        traces.push({
          x: entry.confidence, y: entry.accuracy, mode: "lines+markers", type: "scatter", line: { color: setting.color, dash: setting.dash },
          marker: { color: setting.color, symbol, size: entry.count.map((count) => 5 + 9 * Math.sqrt(count / Math.max(...entry.count))) },
          text: entry.count.map((count, i) => `${plain(setting.label)}<br>confidence ${entry.confidence[i]}, accuracy ${entry.accuracy[i]}<br>${count} predictions<br>ECE ${plain(entry.ece)}`),
          hovertemplate: "%{text}<extra></extra>",
        });
      }
      const errors = pair().map(({ name, entry }) => `${name} ECE ${entry.ece}`);
      return [traces, layout({
        xaxis: { title: "confidence", range: [0, 1.03] }, yaxis: { title: "accuracy", range: [0, 1.03] },
        annotations: [{ x: 0.03, y: 1, xanchor: "left", yanchor: "top", align: "left", showarrow: false, text: errors.map(plain).join("<br>") }],
      })];
    },
  };

  const pair = () => {
    const two = [{ name: "A", at: shown.a, symbol: "circle" }, { name: "B", at: shown.b, symbol: "diamond" }];
    return two.filter(({ at }, i) => i === 0 || at !== shown.a).map(({ name, at, symbol }) => {
      const entry = data.errors.settings[at];
      return { name, entry, symbol, setting: data.settings[entry.setting] };
    });
  };

  const draw = (place) => {
    const [traces, made] = plots[place.dataset.plot](place);
    place.dataset.drawn = "";
    return Plotly.react(place, traces, made, plotlyOptions);
  };
  const redraw = (kinds) => all("[data-drawn]").filter((place) => !kinds || kinds.includes(place.dataset.plot)).forEach(draw);

  if (window.Plotly) {
    const near = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
      if (isIntersecting) { near.unobserve(target); draw(target); }
    }), { rootMargin: "600px" });
    all("[data-plot]").forEach((place) => near.observe(place));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
    window.addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; all("[data-plot]").forEach(draw); });
    window.addEventListener("afterprint", () => { delete document.documentElement.dataset.print; redraw(); });
  }

  // ---- settings ------------------------------------------------------------------------------------------------------------

  const paint = (place, setting) => {
    if (setting) place.classList.add(setting.symbol);
    place.style.background = setting?.color ?? "";
    return place;
  };
  const swatch = (number) => paint(Object.assign(document.createElement("span"), { className: "swatch" }), data.settings[number]);
  all("[data-swatch]").forEach((place) => paint(place, data.settings[Number(place.dataset.swatch)]));
  for (const place of all("[data-legend]")) {
    for (const setting of data.settings) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(swatch(setting.number), setting.label);
      button.addEventListener("click", () => {
        hidden.has(setting.number) ? hidden.delete(setting.number) : hidden.add(setting.number);
        button.setAttribute("aria-pressed", String(!hidden.has(setting.number)));
        redraw(["cells", "curve", "cost"]);
      });
      place.append(button);
    }
  }
  for (const button of all("[data-axis]")) {
    button.addEventListener("click", () => {
      shown.axis = button.dataset.axis;
      all("[data-axis]").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      redraw(["curve"]);
    });
  }
  one("[data-single]")?.addEventListener("change", (event) => { shown.single = event.target.checked; redraw(["curve"]); });

  // ---- errors ----------------------------------------------------------------------------------------------------------

  const tile = (image) => {
    const { classes, pictures } = data.errors;
    const figure = document.createElement("figure");
    const picture = Object.assign(new Image(), { src: pictures[image.index], alt: `test image ${image.index}`, loading: "lazy" });
    const caption = document.createElement("figcaption");
    const target = Object.assign(document.createElement("div"), { textContent: `true class ${classes[image.target]}` });
    const predictions = image.predicted.slice(0, 3).map(([setting, label, share]) => {
      const line = document.createElement("div");
      line.append(swatch(setting), `${classes[label]}, ${Math.round(100 * share)} %`);
      return line;
    });
    caption.append(target, ...predictions);
    const lines = image.predicted.map(([setting, label, share]) => `${data.settings[setting].label}: ${classes[label]}, ${Math.round(100 * share)} % right`);
    figure.title = [`test image ${image.index}`, `true class ${classes[image.target]}`, ...lines].join("\n");
    figure.append(picture, caption);
    return figure;
  };
  const fill = (place, images, none) => place.replaceChildren(...(images.length ? images.map(tile) : [none]));
  const gallery = () => {
    if (!data.errors.pictures) return;
    const { only, settings } = data.errors;
    const found = (ours, theirs) => only[`${settings[ours].setting} ${settings[theirs].setting}`];
    for (const [name, ours, theirs] of [["a", shown.a, shown.b], ["b", shown.b, shown.a]]) {
      const images = found(ours, theirs);
      const none = ours === theirs ? "A and B are the same." : images ? "None of the images that were kept." : "Images are kept for the first six settings that were tested on the same images, and for pairs with the baseline.";
      fill(one(`[data-gallery="${name}"]`), images ?? [], none);
    }
  };
  const compare = () => {
    const { settings, pairs } = data.errors;
    const [a, b] = [settings[shown.a].setting, settings[shown.b].setting];
    one("[data-mcnemar]").textContent = pairs[`${a} ${b}`] ?? pairs[`${b} ${a}`] ?? (a === b ? "A and B are the same." : "Settings are compared image by image if they were tested on the same images; with more than twelve settings, only pairs with the baseline.");
    gallery();
    redraw(["confusion", "classes", "reliability"]);
  };
  if (data.errors) {
    shown.a = data.errors.first[0];
    shown.b = data.errors.first[1];
    for (const select of all("[data-setting]")) {
      data.errors.settings.forEach((entry, number) => select.add(new Option(data.settings[entry.setting].label, number)));
      select.value = shown[select.dataset.setting];
      select.addEventListener("change", () => { shown[select.dataset.setting] = Number(select.value); compare(); });
    }
    if (data.errors.pictures) fill(one('[data-gallery="missed"]'), data.errors.missed, "None.");
    compare();
  }

  // ---- tables ----------------------------------------------------------------------------------------------------------

  const value = (cell) => {
    const text = cell?.dataset.sort ?? cell?.textContent.trim() ?? "";
    const number = text === "" ? NaN : Number(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  const order = (one, other) => {
    if (one === "" || other === "") return one === other ? 0 : one === "" ? 1 : -1;
    return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
  };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
      rows.sort(([one], [other]) => (one === "" || other === "" || up ? order(one, other) : order(other, one)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
      } catch { // the browser may deny the clipboard to a page from disk
        const area = Object.assign(document.createElement("textarea"), { value: button.dataset.copy });
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  }
})();
