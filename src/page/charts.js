// Grids of panels, drawn by Plotly when they come into sight, and the look that all of them share.

const fontFamily = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const plotlyConfig = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [['toImage', 'resetScale2d']],
  toImageButtonOptions: {format: 'svg', scale: 1}
};

function axisLook() {
  return {
    gridcolor: theme().grid,
    linecolor: theme().line,
    zeroline: false,
    showline: true,
    ticks: 'outside',
    ticklen: 4,
    tickcolor: theme().line,
    tickfont: {size: 11},
    automargin: false
  };
}

const charts = new Map();  // element -> function that makes its {traces, layout}
const onNewChart = [];     // functions that are given each chart's element once Plotly knows it
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
  if (element.dataset.linked === 'true') return;
  element.dataset.linked = 'true';
  for (const listen of onNewChart) listen(element);
}

/** A chart that `make` describes, under a name for those who do not see it; it is drawn once it is near the window. */
function addChart(parent, name, make) {
  const element = document.createElement('div');
  element.className = 'chart';
  element.setAttribute('role', 'img');
  element.setAttribute('aria-label', name);
  element.style.minHeight = '200px';
  parent.append(element);
  charts.set(element, make);
  sight.observe(element);
}

/** Draws what was not in sight yet too, for paper. */
function drawEverything() {
  for (const element of charts.keys()) draw(element);
}

/** Draws everything anew after a choice of the reader. */
function redraw() {
  for (const element of charts.keys()) {
    element.dataset.drawn = 'false';
    sight.unobserve(element);
    sight.observe(element);
  }
}

/** A panel's title in so many characters, less those of its note. */
function panelHeading({title, html, note}, room) {
  return html ?? escapeHtml(shortened(title, room - plain(note ?? '').length));
}

/**
 * Panels in a grid. Each is {title, note, traces, x, y}, x and y being layouts of its axes. `xTitle` stands below the
 * lowest panel of every column, `yTitle` left of the first panel of every row. A title with markup is given as `html`
 * besides. A heat map has `colors` besides, the layout of its scale, which stands at its right. `mark` makes the shapes
 * of a panel from its number.
 */
function grid(panels, {xTitle, yTitle, height = 190, widest = 5, left = 74, right = 12, between = 62, bottom = 48}) {
  const width = Math.min(window.innerWidth, 1480) - 90;
  const columns =
      Math.max(1, Math.min(panels.length <= widest ? panels.length : Math.min(widest, 4), Math.floor(width / 250)));
  const rows = Math.ceil(panels.length / columns);
  const top = 52;  // the buttons of the chart stand above the panels' titles
  const total = top + bottom + rows * height + (rows - 1) * between;
  const inner = total - top - bottom;
  const gap = columns > 1 ? (left - 16 + (right - 12)) / (width - left - right) : 0;
  const cell = (1 - gap * (columns - 1)) / columns;
  const layout = {
    height: total,
    margin: {t: top, b: bottom, l: left, r: right},
    font: {family: fontFamily, size: 12, color: theme().ink},
    showlegend: false,
    hovermode: 'closest',
    dragmode: 'zoom',
    paper_bgcolor: theme().ground,
    plot_bgcolor: theme().ground,
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
      ...axisLook(),
      ...panel.x,
      ...(i === 0 ? {matches: undefined} : {}),
      domain: [x0, x0 + cell],
      anchor: `y${n}`,
      title: {text: lowest ? xTitle : '', font: {size: 12}, standoff: 6}
    };
    layout[`yaxis${n}`] = {
      ...axisLook(),
      ...panel.y,
      domain: [Math.max(0, y1 - height / inner), y1],
      anchor: `x${n}`,
      title: {text: column === 0 ? yTitle : '', font: {size: 12}, standoff: 8}
    };
    layout.annotations.push({
      text: `<b>${panelHeading(panel, Math.floor(cell * width / 8))}</b>` +
          (panel.note ? `  <span style="color:${theme().soft}">${panel.note}</span>` : ''),
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
    if (panel.colors) {
      layout[`coloraxis${n}`] = {
        ...panel.colors,
        colorbar: {
          ...panel.colors.colorbar,
          x: x0 + cell,
          xpad: 8,
          y: y1 - height / inner / 2,
          len: height,
          lenmode: 'pixels',
          ypad: 0
        }
      };
    }
    if (panel.mark) layout.shapes.push(...panel.mark(i));
    traces.push(...panel.traces.map(
        trace => ({...trace, xaxis: `x${n}`, yaxis: `y${n}`, ...(trace.z ? {coloraxis: `coloraxis${n}`} : {})})));
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

/** What stands in a chart: items are [the inside of an SVG of 34 x 14, text]. */
function drawLegend(parent, items) {
  parent.innerHTML = items
                         .map(([svg, text]) => `<span><svg width="34" height="14" viewBox="0 0 34 14" aria-hidden="true">${
                                  svg}</svg>${escapeHtml(text)}</span>`)
                         .join('');
}
