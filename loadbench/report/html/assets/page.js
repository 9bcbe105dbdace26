"use strict";
// The page's own script. Data comes from the JSON element alone, and becomes text or plotly's figures, never HTML.
const loadbench = (() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const root = document.documentElement;
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const drawn = new Map(); // element -> its spec, to draw again in another theme
  const font = getComputedStyle(document.body).fontFamily;
  const COLORED = new Set(["color", "fillcolor", "bgcolor", "bordercolor"]);

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);

  // Colours by name, as traces give them: "@0" to "@5", "@muted", "@bad", "@ramp0.25", each with "/0.3" for its opacity.
  const palette = () => {
    const style = getComputedStyle(root);
    const value = (name) => style.getPropertyValue(`--${name}`).trim();
    const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    const from = rgb(value("ramp-from")), to = rgb(value("ramp-to"));
    const plain = (name) => {
      if (name.startsWith("ramp")) {
        const at = Number(name.slice(4));
        return from.map((low, i) => Math.round(low + at * (to[i] - low)));
      }
      return rgb(value(/^\d$/.test(name) ? `c${name}` : name));
    };
    return (name) => {
      const [color, opacity] = name.slice(1).split("/");
      return `rgba(${plain(color).join(",")},${opacity ?? 1})`;
    };
  };

  const colored = (part, color) => {
    if (Array.isArray(part)) return part.map((one) => colored(one, color));
    if (typeof part === "string") return part.replaceAll("\n", "<br>"); // lines of what hovering says
    if (part === null || typeof part !== "object") return part;
    const found = {};
    for (const [key, value] of Object.entries(part)) {
      const isName = COLORED.has(key) && typeof value === "string" && value.startsWith("@");
      found[key] = isName ? color(value) : colored(value, color);
    }
    return found;
  };

  const merged = (under, over) => {
    if (over === undefined) return under;
    if (over === null || typeof over !== "object" || Array.isArray(over)) return over;
    const found = { ...under };
    for (const [key, value] of Object.entries(over)) found[key] = merged(found[key], value);
    return found;
  };

  let onPaper = false; // while it is printed: plots are then as wide as their places on paper, not as on the screen

  const layout = (spec, color, place) => {
    const axis = {
      gridcolor: color("@rule"), linecolor: color("@rule"), zerolinecolor: color("@rule"), zerolinewidth: 1,
      tickfont: { color: color("@muted"), size: 11 }, automargin: true, fixedrange: coarse,
      separatethousands: true,
      title: { font: { color: color("@muted"), size: 12 }, standoff: 8 },
    };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { family: font, size: 12, color: color("@ink") }, margin: { t: 16, r: 14, b: 44, l: 52 },
      dragmode: coarse ? false : "zoom", autosize: true,
      hoverlabel: {
        bgcolor: color("@surface"), bordercolor: color("@muted"), align: "left",
        font: { family: font, size: 12, color: color("@ink") },
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("@muted"), activecolor: color("@ink") },
    };
    const axes = Object.keys(spec).filter((key) => /^[xy]axis\d*$/.test(key));
    for (const name of new Set(["xaxis", "yaxis", ...axes])) base[name] = axis;
    if (onPaper) Object.assign(base, { width: place.clientWidth, height: place.clientHeight, autosize: false });
    return merged(base, colored(spec, color));
  };

  const config = {
    displaylogo: false, responsive: true, displayModeBar: coarse ? false : "hover", showLink: false, showSendToCloud: false, doubleClick: "reset",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"],
  };

  const draw = (element, spec) => {
    if (typeof Plotly === "undefined") return Promise.resolve();
    const traces = spec.traces.map((trace) => (typeof trace === "number" ? page.shared[trace] : trace));
    const color = palette();
    drawn.set(element, spec);
    return Plotly.react(element, colored(traces, color), layout(spec.layout, color, element), config).then(() => {
      element.dataset.state = "drawn";
    });
  };

  const plots = [...document.querySelectorAll("[data-plot]")];
  const drawPlot = (element) => (drawn.has(element) ? null : draw(element, page.plots[element.dataset.plot]));

  const paint = () => {
    const color = palette();
    for (const sign of document.querySelectorAll("[data-color]")) sign.style.setProperty("--key", color(sign.dataset.color));
    for (const [element, spec] of drawn) draw(element, spec);
  };

  const themed = () => {
    const button = document.getElementById("theme");
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colours`);
    button.setAttribute("aria-pressed", String(isDark()));
    paint();
  };

  const remembered = (theme) => {
    try { // pages opened from disk may have no storage
      if (theme === undefined) return localStorage.getItem("loadbench-theme");
      localStorage.setItem("loadbench-theme", theme);
    } catch { /* then the choice lasts as long as the page */ }
    return null;
  };

  // plotly travels compressed. What comes out runs because the page's policy names its checksum.
  const unpacked = async () => {
    const packed = document.getElementById("plotly");
    if (packed === null) return;
    const bytes = Uint8Array.from(atob(packed.textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    packed.remove();
    document.head.append(script);
  };

  const start = async () => {
    const kept = remembered();
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remembered(root.dataset.theme);
      themed();
    });
    systemDark.addEventListener("change", themed);
    themed();

    try {
      await unpacked();
    } catch { // a browser of before 2023
      for (const element of plots) element.textContent = "This browser is too old for the plots; the tables have the same figures.";
      root.dataset.ready = "true";
      return;
    }
    // Plots are drawn when they come near the window: a page of a hundred opens at once.
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        drawPlot(entry.target);
      }
    }, { rootMargin: "600px 0px" });
    plots.forEach((element) => watcher.observe(element));

    // A link to a section that is folded, or to a part of it, unfolds it.
    const unfold = () => {
      const target = location.hash && document.getElementById(location.hash.slice(1));
      const details = target && (target.closest("details") ?? target.querySelector(":scope > details.section"));
      if (details) details.open = true;
    };
    window.addEventListener("hashchange", unfold);
    document.querySelectorAll("nav a").forEach((link) => link.addEventListener("click", () => setTimeout(unfold)));
    unfold();

    const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
    const reading = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -70% 0px" });
    document.querySelectorAll("main > section").forEach((section) => reading.observe(section));

    // Paper is white, all that stands open is drawn on it, and nobody can unfold how it was got.
    let before;
    let unfolded = [];
    window.addEventListener("beforeprint", () => {
      unfolded = [...document.querySelectorAll("details:not([open])")].filter((one) => (
        one.classList.contains("section") || one.querySelector(":scope > dl")));
      unfolded.forEach((one) => { one.open = true; });
      before = root.dataset.theme;
      root.dataset.theme = "light";
      root.classList.add("paper"); // the page's own layout is not yet that of @media print
      onPaper = true;
      plots.filter((element) => element.offsetParent !== null).forEach(drawPlot);
      paint();
    });
    window.addEventListener("afterprint", () => {
      if (before === undefined) delete root.dataset.theme; else root.dataset.theme = before;
      root.classList.remove("paper");
      unfolded.forEach((one) => { one.open = false; });
      onPaper = false;
      paint();
    });
    root.dataset.ready = "true";
  };

  const ready = start();
  return {
    ready, // a promise: plots can be drawn from then on
    draw,
    data: (id) => page.sections[id],
    drawAll: () => ready.then(() => {
      document.querySelectorAll("details.section").forEach((one) => { one.open = true; });
      return Promise.all(plots.map(drawPlot));
    }),
  };
})();
