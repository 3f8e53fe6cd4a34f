'use strict';
// Training curves, and the signatures of every layer over the steps.

const sideNumber = {
  activation: 0,
  fisher: 1,
  input: 2
};
const sideDash = {
  activation: 'solid',
  fisher: 'dash',
  input: 'dashdot'
};
/** One run: a colour a side. Several: a colour a run, and the sides by their dashes. */
function rowColor(row) { return seriesColor(several ? row.run : sideNumber[row.side]); }
const sideText = {
  activation: 'activation (layer output)',
  input: 'input',
  fisher: 'Fisher (gradient at the output)'
};
const sourceLook = {
  step: {
    symbol: 'circle',
    size: 4,
    width: 1,
    opacity: 0.55,
    text: 'inside a training step (mini-batch, empirical Fisher)'
  },
  read: {symbol: 'diamond', size: 8, width: 1.8, opacity: 1, text: 'checkpoint read (probe batch)'},
};

/** What is drawn of a signature. `value` is null where there is nothing to draw. */
const observables = [
  {
    title: 'Smallest singular value σ<sub>min</sub>',
    unit: 'rows’ unit',
    axis: 'σ<sub>min</sub>',
    log: true,
    floor: r => r.floor,
    // An exact zero has no logarithm: it stands, hollow, on its floor.
    value: r => r.sigma_min === 0 ? r.floor : r.sigma_min,
    hollow: r => r.at_floor,
    note: 'dotted: the floor, below which all is rounding noise; hollow: σ<sub>min</sub> stands on it'
  },
  {
    title: 'Smallest positive eigenvalue λ<sub>min</sub>⁺',
    unit: 'log₁₀ of rows’ unit²',
    axis: 'log₁₀ λ<sub>min</sub>⁺',
    value: r => r.log10_lambda_min_plus,
    hollow: r => r.at_floor,
    note: 'the rate observable; hollow: directions below it are at the floor'
  },
  {
    title: 'λ<sub>min</sub>⁺ as a share of the trace',
    unit: 'log₁₀, no unit',
    axis: 'log₁₀ (λ<sub>min</sub>⁺ / tr)',
    value: r => r.log10_lambda_share,
    hollow: r => r.at_floor,
    note: 'what a falling loss scales everywhere is taken out'
  },
  {
    title: 'Volume log det⁺ per dimension',
    unit: 'nat',
    axis: 'log det⁺ / rank',
    hollow: r => r.at_floor,
    value: r => r.volume_per_dimension,
    note: 'the mean of ln λ over the positive eigenvalues'
  },
  {
    title: 'Dead directions',
    unit: 'count',
    axis: 'bound − rank',
    whole: true,
    hollow: () => false,
    value: r => r.dead_directions,
    note: 'structural bound less numerical rank'
  },
  {
    title: 'Numerical rank',
    unit: 'count',
    axis: 'rank',
    whole: true,
    hollow: () => false,
    value: r => r.rank,
    floor: r => r.structural_bound,
    note: 'dotted: the structural bound'
  },
];

function signatureHover(r) {
  return `${several ? `${escapeHtml(runName(r.run))} · ` : ''}<b>${escapeHtml(r.layer)}</b> · ${r.side} · ${r.source}${
             r.fisher_kind ? ` · ${escapeHtml(r.fisher_kind)} Fisher` : ''}<br>step ${r.step}` +
      `<br>σ<sub>min</sub> ${show(r.sigma_min)}, floor ${show(r.floor)}${r.at_floor ? ' (at the floor)' : ''}` +
      `<br>log₁₀ λ<sub>min</sub>⁺ ${show(r.log10_lambda_min_plus)}, log₁₀ tr ${show(r.log10_trace)}` +
      `<br>log det⁺ ${show(r.logdet_plus)} over rank ${show(r.rank)} of ${show(r.structural_bound)}` +
      `<br>${show(r.rows)} rows × ${show(r.width)}, ${escapeHtml(show(r.dtype))}, ${escapeHtml(r.status)}`;
}

/** The line of one series, and its floor or bound. */
function seriesTraces(rows, observable) {
  const {side, source} = rows[0];
  const look = sourceLook[source] ?? sourceLook.step;
  const color = rowColor(rows[0]);
  const x = rows.map(r => stepPosition(r.step));
  const line = {
    type: 'scatter',
    mode: 'lines+markers',
    x,
    y: rows.map(observable.value),
    connectgaps: false,
    opacity: look.opacity,
    line: {color, width: look.width, dash: several ? sideDash[side] : 'solid'},
    marker: {
      color,
      size: look.size,
      symbol: rows.map(r => look.symbol + (observable.hollow(r) ? '-open' : '')),
      line: {width: 1.5, color}
    },
    text: rows.map(signatureHover),
    hovertemplate: '%{text}<extra></extra>',
  };
  if (!observable.floor) return [line];
  return [
    {
      type: 'scatter',
      mode: 'lines',
      x,
      y: rows.map(observable.floor),
      hoverinfo: 'skip',
      opacity: look.opacity,
      line: {color, width: 1.3, dash: 'dot'}
    },
    line
  ];
}

function chosenSignatures(layer) {
  return signatures.filter(r => r.layer === layer && view.runs.has(r.run) && view.sides.has(r.side) && view.sources.has(r.source));
}

/** An axis for whole numbers: from zero, and no tick between two of them. */
function countAxis(counts) {
  const most = Math.max(1, ...counts.filter(Number.isFinite));
  const tick = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find(size => most / size <= 6);
  return {range: [-0.04 * most, 1.08 * most], tick0: 0, dtick: tick ?? 10 ** Math.ceil(Math.log10(most / 6))};
}

function observableAxis(observable, rows) {
  if (observable.log) return {type: 'log', exponentformat: 'power', nticks: 6};
  if (!observable.whole) return {nticks: 6};
  return countAxis(rows.flatMap(r => [observable.value(r), observable.floor?.(r)]));
}

function layerPanel(layer, observable) {
  const rows = chosenSignatures(layer);
  const series = [...groups(rows, r => [r.run, r.source, r.side, r.fisher_kind].join('\n')).values()].sort(
      (a, b) => (a[0].source === 'read') - (b[0].source === 'read'));
  return {
    title: layer,
    html: escapeHtml(layerLabels.get(layer)),
    note: escapeHtml(rows[0]?.kind),
    traces: series.flatMap(r => seriesTraces(r, observable)),
    x: stepLayout(),
    y: observableAxis(observable, rows),
    mark: zeroMark
  };
}

function shownLayers() { return layerNames.filter(layer => view.layers.has(layer)); }

function drawLayers(parent) {
  for (const observable of observables) {
    heading(parent, `${observable.title} <small>[${observable.unit}] · ${observable.note}</small>`);
    addChart(parent, `${plain(observable.title)} of every layer over the steps`, () => {
      const panels = shownLayers().map(layer => layerPanel(layer, observable));
      if (view.sameScale) shareScale(panels, observable.log);
      return grid(panels, {xTitle: 'training step', yTitle: observable.axis});
    });
  }
}

/** Each run's name beside its colour. */
function runItems() {
  return [...data.runs.keys()].map(
      run => [`<line x1="1" x2="33" y1="7" y2="7" stroke="${seriesColor(run)}" stroke-width="3"/>`, runName(run)]);
}

function drawSeriesLegend(parent) {
  const soft = theme().soft;
  const sides = unique(signatures.map(r => r.side));
  const sources = unique(signatures.map(r => r.source));
  const dashes = {activation: '', fisher: '6 4', input: '6 3 1 3'};
  const items = several ? runItems() : [];
  items.push(...sides.map(
      side =>
          [several ? `<line x1="1" x2="33" y1="7" y2="7" stroke="${soft}" stroke-width="2" stroke-dasharray="${
                         dashes[side]}"/>` :
                     `<line x1="1" x2="33" y1="7" y2="7" stroke="${seriesColor(sideNumber[side])}" stroke-width="3"/>`,
           sideText[side]]));
  const mark = {
    step: `<circle cx="17" cy="7" r="2.5" fill="${soft}"/>`,
    read: `<path d="M17 2l5 5-5 5-5-5z" fill="${soft}"/>`
  };
  for (const source of sources) {
    items.push([
      `<line x1="1" x2="33" y1="7" y2="7" stroke="${soft}" stroke-width="${source === 'read' ? 1.8 : 1}"/>${
          mark[source] ?? ''}`,
      sourceLook[source]?.text ?? source
    ]);
  }
  items.push([`<path d="M17 2l5 5-5 5-5-5z" fill="none" stroke="${soft}" stroke-width="1.5"/>`, 'at the floor']);
  items.push([
    `<line x1="1" x2="33" y1="7" y2="7" stroke="${soft}" stroke-width="1.5" stroke-dasharray="2 3"/>`, 'floor, or bound'
  ]);
  drawLegend(parent, items);
}

// Training curves: train_x, test_x and their like share a panel.

function metricPanel(quantity, rows) {
  const names = unique(rows.map(r => r.name));
  const dashes = ['solid', 'dash', 'dot', 'dashdot'];
  // One run: a colour a name. Several: a colour a run, and the names by their dashes.
  const color = point => seriesColor(several ? point.run : names.indexOf(point.name));
  const dash = point => several ? dashes[names.indexOf(point.name) % dashes.length] : 'solid';
  const series = [...groups(rows.filter(r => view.runs.has(r.run)), r => [r.run, r.name].join('\n')).values()];
  const traces = series.map(points => ({
                              type: 'scatter',
                              mode: points.length <= 60 ? 'lines+markers' : 'lines',
                              connectgaps: false,
                              x: points.map(r => stepPosition(r.step)),
                              y: points.map(r => r.value),
                              line: {color: color(points[0]), dash: dash(points[0]), width: 1.6},
                              marker: {size: 6},
                              text: points.map(
                                  r => `${several ? `${escapeHtml(runName(r.run))} · ` : ''}${escapeHtml(r.name)} ${
                                      show(r.value, 5)}<br>step ${r.step}`),
                              hovertemplate: '%{text}<extra></extra>',
                            }));
  const note = names.map(
      (name, i) => several ? escapeHtml(name) : `<span style="color:${seriesColor(i)}">${escapeHtml(name)}</span>`);
  return {
    title: quantity,
    note: names.length > 1 || names[0] !== quantity ? note.join('  ') : '',
    traces,
    x: stepLayout(),
    y: {nticks: 6},
    mark: zeroMark
  };
}

function drawTraining(parent) {
  const shown = metrics.filter(r => !isDuration(r));  // what a reading took stands in the table of costs
  if (!shown.length) return quiet(parent, 'No metrics were logged.');
  const quantities = groups(shown, r => (r.name ?? '').replace(/^(train|training|test|val|valid|validation)_/, ''));
  addChart(
      parent, 'Training curves',
      () => grid(
          [...quantities].map(([quantity, rows]) => metricPanel(quantity, rows)),
          {xTitle: 'training step', yTitle: '', height: 230, widest: 4}));
}
