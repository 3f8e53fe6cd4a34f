'use strict';
// Grids of panels, drawn by Plotly when they come into sight, and the look that all of them share.

const font = {
  family: 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif',
  size: 12,
  color: '#1d2330'
};
const plotlyConfig = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [['toImage', 'resetScale2d']],
  toImageButtonOptions: {format: 'svg', scale: 1}
};
const axisLook = {
  gridcolor: '#e9ecf1',
  linecolor: '#aab2c0',
  zeroline: false,
  showline: true,
  ticks: 'outside',
  ticklen: 4,
  tickcolor: '#aab2c0',
  tickfont: {size: 11},
  automargin: false
};

const charts = new Map();  // element -> function that makes its {data, layout}
const sight = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries)
    if (isIntersecting) draw(target);
}, {rootMargin: '600px'});

function draw(element) {
  if (element.dataset.drawn === 'true') return;
  element.dataset.drawn = 'true';
  const {traces, layout} = charts.get(element)();
  element.style.height = `${layout.height}px`;
  Plotly.react(element, traces, layout, plotlyConfig);
}

/** A chart that `make` describes; it is drawn once it is near the window. */
function addChart(parent, make) {
  const element = document.createElement('div');
  element.className = 'chart';
  element.style.minHeight = '200px';
  parent.append(element);
  charts.set(element, make);
  sight.observe(element);
}

/** Draws everything anew after a choice of the reader. */
function redraw() {
  for (const element of charts.keys()) {
    element.dataset.drawn = 'false';
    sight.unobserve(element);
    sight.observe(element);
  }
}

/**
 * Panels in a grid. Each is {title, note, traces, x, y}, x and y being layouts of its axes; `xTitle` stands below the
 * lowest panel of every column, `yTitle` left of the first panel of every row.
 */
function grid(panels, {xTitle, yTitle, height = 190, widest = 5}) {
  const width = Math.min(window.innerWidth, 1480) - 90;
  const columns =
      Math.max(1, Math.min(panels.length <= widest ? panels.length : Math.min(widest, 4), Math.floor(width / 250)));
  const rows = Math.ceil(panels.length / columns);
  const top = 40, bottom = 48, between = 62, left = 74, right = 12;
  const total = top + bottom + rows * height + (rows - 1) * between;
  const inner = total - top - bottom;
  const gap = columns > 1 ? 58 / (width - left - right) : 0;
  const cell = (1 - gap * (columns - 1)) / columns;
  const layout = {
    height: total,
    margin: {t: top, b: bottom, l: left, r: right},
    font,
    showlegend: false,
    hovermode: 'closest',
    paper_bgcolor: '#fff',
    plot_bgcolor: '#fff',
    annotations: [],
    shapes: [],
    hoverlabel: {align: 'left', font: {size: 12}}
  };
  const traces = [];
  panels.forEach((panel, i) => {
    const n = i ? i + 1 : '';
    const row = Math.floor(i / columns), column = i % columns;
    const x0 = column * (cell + gap);
    const y1 = 1 - row * (height + between) / inner;
    const lowest = i + columns >= panels.length;
    layout[`xaxis${n}`] = {
      ...axisLook,
      ...panel.x,
      domain: [x0, x0 + cell],
      anchor: `y${n}`,
      title: {text: lowest ? xTitle : '', font: {size: 12}, standoff: 6}
    };
    layout[`yaxis${n}`] = {
      ...axisLook,
      ...panel.y,
      domain: [Math.max(0, y1 - height / inner), y1],
      anchor: `x${n}`,
      title: {text: column === 0 ? yTitle : '', font: {size: 12}, standoff: 8}
    };
    layout.annotations.push({
      text: `<b>${
                escapeHtml(shortened(
                    panel.title,
                    Math.floor(cell * width / 8 - (panel.note ?? '').replace(/<[^>]*>/g, '').length)))}</b>` +
          (panel.note ? `  <span style="color:#5b6475">${panel.note}</span>` : ''),
      hovertext: escapeHtml(panel.title),
      x: x0,
      y: y1,
      xref: 'paper',
      yref: 'paper',
      xanchor: 'left',
      yanchor: 'bottom',
      yshift: 4,
      showarrow: false,
      font: {size: 12}
    });
    if (panel.mark) layout.shapes.push(...panel.mark(i));
    traces.push(...panel.traces.map(trace => ({...trace, xaxis: `x${n}`, yaxis: `y${n}`})));
  });
  return {traces, layout};
}

/** One range for the y axes of all panels. */
function shareScale(panels, log) {
  const values = panels.flatMap(p => p.traces.flatMap(t => t.y))
                     .filter(v => v !== null && (!log || v > 0))
                     .map(v => log ? Math.log10(v) : v);
  if (!values.length) return;
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const pad = 0.05 * (high - low) || 0.5;
  const tick = Math.max(...panels.map(panel => panel.y.dtick ?? 0));
  for (const panel of panels) {
    panel.y.range = [low - pad, high + pad];
    if (tick) panel.y.dtick = tick;
  }
}

/** The colour of number i of n on a scale from early (dark) to late (light). */
function viridis(i, n) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [223, 200, 30]];
  const at = (n > 1 ? i / (n - 1) : 0) * (stops.length - 1);
  const k = Math.min(stops.length - 2, Math.floor(at));
  return `rgb(${stops[k].map((c, j) => Math.round(c + (at - k) * (stops[k + 1][j] - c))).join(',')})`;
}

function heading(parent, html) {
  const element = document.createElement('h3');
  element.innerHTML = html;
  parent.append(element);
}

function quiet(parent, text) {
  const element = document.createElement('p');
  element.className = 'quiet';
  element.textContent = text;
  parent.append(element);
}
