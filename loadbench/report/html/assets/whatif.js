(() => {
  "use strict";
  const data = loadbench.data("what-if");
  const form = document.getElementById("whatif");
  const body = document.querySelector("#whatif-levels tbody");
  const now = document.getElementById("whatif-now");
  const sliders = Object.fromEntries([...form.elements].filter((one) => one.name).map((one) => [one.name, one]));
  const steps = Number(sliders[data.kinds[0]].max);

  // The share of completed requests that took at most so long: all but one in x did, x between two of its points.
  function within({ oneIn, ms }, limit) {
    if (limit >= ms[ms.length - 1]) return 1;
    const i = ms.findIndex((value) => value > limit);
    if (i === 0) return 0;
    const at = (limit - ms[i - 1]) / (ms[i] - ms[i - 1]);
    const [low, high] = [1 - 1 / oneIn[i - 1], 1 - 1 / oneIn[i]];
    return low + at * (high - low);
  }

  function attained(row, metric, limit) {
    const own = row.own.find((one) => one.metric === metric && one.ms === limit);
    return own && own.attainment !== null ? own.attainment : row.share * within(row.times[metric], limit);
  }

  // Where a slider stands; untouched, the run's own bound.
  function limit(metric) {
    const { low, high, start } = data.ranges[metric];
    if (!sliders[metric].dataset.moved && start !== null) return start;
    return low * (high / low) ** (Number(sliders[metric].value) / steps);
  }

  function judged(limits, share) {
    return data.rows.map((row) => {
      const shares = data.kinds.map((metric) => attained(row, metric, limits[metric]));
      const least = Math.max(0, shares.reduce((sum, one) => sum + one, 0) - (shares.length - 1));
      const offered = row.perS === null ? null : row.perS / row.share;
      const goodput = offered === null ? null : [least * offered, Math.min(...shares) * offered];
      return { ...row, shares, goodput, met: shares.every((one) => one >= share) };
    });
  }

  const percent = (share) => `${(100 * share).toFixed(share > 0.99 && share < 1 ? 1 : 0)}%`;
  const time = (ms) => (ms < 1000 ? `${Number(ms.toPrecision(3))} ms` : `${Number((ms / 1000).toPrecision(3))} s`);
  const figure = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(3))));

  function capacity(rows) {
    const best = new Map();
    const ended = new Set();
    for (const row of rows) {
      if (ended.has(row.model)) continue;
      if (row.met) best.set(row.model, row.words); else ended.add(row.model);
    }
    return [...new Set(rows.map((row) => row.model))].map((model) => `${model}: ${best.get(model) ?? "not even the lowest load"}`);
  }

  function show() {
    const limits = Object.fromEntries(data.kinds.map((metric) => [metric, limit(metric)]));
    const share = Number(sliders.share.value) / 100;
    for (const metric of data.kinds) sliders[metric].nextElementSibling.textContent = time(limits[metric]);
    sliders.share.nextElementSibling.textContent = percent(share);
    const rows = judged(limits, share);
    rows.forEach((row, i) => {
      const cells = body.rows[i].cells;
      row.shares.forEach((one, k) => { cells[2 + k].textContent = percent(one); });
      const at = 2 + row.shares.length;
      const range = row.goodput && [...new Set(row.goodput.map(figure))].join(" to ");
      cells[at].textContent = range ?? "-";
      cells[at + 1].textContent = row.met ? "met" : "missed";
      cells[at + 1].className = row.met ? "" : "bad";
    });
    now.textContent = `Within this SLO, of the loads measured: ${capacity(rows).join("; ")}.`;
  }

  for (const metric of data.kinds) {
    const { low, high, start } = data.ranges[metric];
    sliders[metric].value = start === null ? steps : Math.round((steps * Math.log(start / low)) / Math.log(high / low));
  }
  form.addEventListener("input", (event) => {
    event.target.dataset.moved = "1";
    show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
  loadbench.judged = judged;
})();
