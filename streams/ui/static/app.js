/* What pages do beyond HTML: charts. Everything can be read, and every form sent, without it. */
"use strict";
(() => {
  const COLOURS = ["--s1", "--s2", "--s3", "--s4", "--s5", "--s6", "--s7"];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shown = (value) => value == null ? "–" : value.toLocaleString("en", {maximumFractionDigits: Math.abs(value) < 0.01 ? 9 : 2});
  const two = (number) => String(number).padStart(2, "0");

  /* Series are drawn on top of each other, the sums first, so that the smaller ones cover them. */
  function stacked(series) {
    const sums = [];
    series.forEach((each, row) => {
      sums.push(each.values.map((value, i) => value == null ? null : value + (row ? sums[row - 1][i] ?? 0 : 0)));
    });
    return sums;
  }

  function draw(box) {
    const given = JSON.parse(box.dataset.chart);
    const {times, series} = given;
    const sums = stacked(series);
    const axis = {stroke: colour("--soft"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}, font: "12px system-ui, sans-serif"};
    const date = (seconds) => uPlot.tzDate(new Date(seconds * 1000), given.zone);
    const label = (seconds) => {
      const at = date(seconds);
      const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}`;
      if (given.grain === "month") return day;
      return `${day}-${two(at.getDate())}` + (given.grain === "hour" ? ` ${two(at.getHours())}:00` : "");
    };
    const last = sums.length - 1;
    const short = (seconds) => given.grain === "hour" ? label(seconds).slice(11) || "" : given.grain === "day" ? label(seconds).slice(5) : label(seconds);
    const step = {hour: 3600, day: 86400}[given.grain];
    const steps = step && {incrs: [1, 2, 3, 6, 7, 14, 28, 56, 112].map((each) => each * step)};
    const half = (times.length > 1 ? times[1] - times[0] : given.grain === "hour" ? 3600 : 86400) / 2;
    const options = {
      width: Math.max(240, box.clientWidth), height: 230, tzDate: date,
      cursor: {points: {show: false}, drag: {x: false, y: false}},
      legend: {live: true},
      scales: {x: {range: (_, low, high) => [low - half, high + half]}, y: {range: (_, low, high) => [Math.min(0, low ?? 0), (high > 0 ? high * 1.06 : 1)]}},
      axes: [{...axis, ...steps, values: (_, all) => all.map(short), space: 64}, {...axis, size: 64, values: (_, all) => all.map(shown)}],
      series: [{label: "Time", value: (_, at) => at == null ? "–" : label(at)}].concat(
        series.map((each, i) => last - i).map((row) => ({
          label: series[row].label,
          fill: colour(COLOURS[row % COLOURS.length]), stroke: colour(COLOURS[row % COLOURS.length]), width: 0,
          paths: uPlot.paths.bars({size: [0.8, 48]}), points: {show: false},
          value: (_, value, column, i) => i == null ? "–" : shown(series[row].values[i]),
        }))),
      hooks: {draw: [(chart) => { if (given.open_from != null) hatch(chart, given.open_from, times); }]},
    };
    box.replaceChildren();
    new uPlot(options, [times, ...sums.slice().reverse()], box);
    const canvas = box.querySelector("canvas");
    if (canvas) { canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", "Chart of the numbers in the table below"); }
  }

  /* A span that is not over yet is hatched. */
  function hatch(chart, from, times) {
    const {ctx, bbox} = chart;
    const half = times.length > 1 ? (times[1] - times[0]) / 2 : 1800;
    const left = Math.max(bbox.left, chart.valToPos(from - half, "x", true));
    const right = Math.min(bbox.left + bbox.width, chart.valToPos(from + half, "x", true));
    if (right <= left) return;
    ctx.save();
    ctx.beginPath(); ctx.rect(left, bbox.top, right - left, bbox.height); ctx.clip();
    ctx.strokeStyle = colour("--soft"); ctx.globalAlpha = 0.45; ctx.lineWidth = 1; ctx.beginPath();
    for (let x = left - bbox.height; x < right; x += 7) { ctx.moveTo(x, bbox.top + bbox.height); ctx.lineTo(x + bbox.height, bbox.top); }
    ctx.stroke(); ctx.restore();
  }

  function charts(root) {
    if (typeof uPlot === "undefined") return;
    root.querySelectorAll("[data-chart]").forEach(draw);
  }

  document.addEventListener("DOMContentLoaded", () => charts(document));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("#ask textarea")) event.target.form.requestSubmit();
  });
  document.addEventListener("htmx:afterSwap", (event) => charts(event.target));
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => charts(document), 150); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts(document));
})();
