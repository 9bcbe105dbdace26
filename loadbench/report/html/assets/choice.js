(() => {
  "use strict";
  // The formula of loadbench/select/rank.py: score = 100 * exp(sum over figures of share * log ratio to the best).
  function rank(weights, criteria, rows) {
    const whole = criteria.reduce((sum, one) => sum + weights[one.name], 0);
    const shares = {};
    for (const one of criteria) {
      for (const figure of one.figures) shares[figure] = whole ? weights[one.name] / one.figures.length / whole : 0;
    }
    const scored = rows.map((row, index) => {
      let sum = 0;
      for (const figure of Object.keys(shares)) sum += shares[figure] * row.logs[figure];
      return {index, name: row.name, score: 100 * Math.exp(sum)};
    });
    return scored.sort((a, b) => b.score - a.score || (a.name < b.name ? -1 : 1));
  }

  const data = loadbench.data("choice");
  const form = document.getElementById("choice-weights");
  const body = document.querySelector("#choice-rank tbody");
  const now = document.getElementById("choice-now");
  const usual = Object.fromEntries(data.criteria.map((one) => [one.name, one.weight]));
  const sliders = data.criteria.map((one) => document.getElementById(`choice-${one.name}`));

  function weights() {
    // A weight beyond the slider's end, or between its steps, holds as the report has it until it is moved.
    return Object.fromEntries(
      sliders.map((slider) => [slider.name, slider.dataset.moved ? Number(slider.value) : usual[slider.name]]),
    );
  }

  function show(spoken) {
    const given = weights();
    const whole = Object.values(given).reduce((sum, part) => sum + part, 0);
    for (const slider of sliders) {
      const share = whole ? `${Math.round((100 * given[slider.name]) / whole)}%` : "0%";
      slider.nextElementSibling.textContent = share;
      slider.setAttribute("aria-valuetext", `${given[slider.name]} parts, ${share}`);
    }
    const order = rank(given, data.criteria, data.rows);
    order.forEach((one, place) => {
      const row = body.querySelector(`tr[data-row="${one.index}"]`);
      row.cells[0].textContent = String(place + 1);
      row.cells[2].textContent = whole ? one.score.toFixed(1) : "-";
      body.append(row);
    });
    if (!spoken) return;
    now.textContent = whole
      ? `${order[0].name} leads with ${order[0].score.toFixed(1)}, ahead of ${order[1].name} (${order[1].score.toFixed(1)}).`
      : "Every weight is 0: nothing counts.";
  }

  form.addEventListener("input", (event) => {
    event.target.dataset.moved = "1";
    show(true);
  });
  form.addEventListener("reset", () => {
    for (const slider of sliders) delete slider.dataset.moved;
    setTimeout(() => show(true), 0); // once the sliders stand where they stood
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show(false);
  loadbench.rank = (given) => rank(given, data.criteria, data.rows);
})();
