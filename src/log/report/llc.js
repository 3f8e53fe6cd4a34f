'use strict';
// The local learning coefficient over training, and DDS against it.

const kindColor = {
  plain: '#6a3d9a',
  tilted: '#12836f'
};
const llcKinds = unique(estimates.map(r => r.kind));

function estimateHover(r) {
  return `<b>${r.kind} LLC</b>, step ${r.step}<br>λ̂ ${show(r.lambda)} ± ${show(r.standard_error)}<br>${
             escapeHtml(r.verdict)}` +
      (r.gamma === undefined ? '' : `<br>γ ${show(r.gamma)}, nβ ${show(r.n_beta)}, resolution ${show(r.resolution)}`);
}

function estimatePanel(kind) {
  const rows = estimates.filter(r => r.kind === kind);
  const color = kindColor[kind];
  const trace = {
    type: 'scatter',
    mode: 'lines+markers',
    x: rows.map(r => stepPosition(r.step)),
    y: rows.map(r => llcPosition(r.lambda)),
    connectgaps: false,
    error_y: llcBars(rows, color),
    line: {color, width: 1, dash: 'dot'},
    marker: {
      color,
      size: 9,
      symbol: rows.map(r => r.verdict === 'converged' ? 'circle' : 'circle-open'),
      line: {width: 1.6, color}
    },
    text: rows.map(estimateHover),
    hovertemplate: '%{text}<extra></extra>',
  };
  const converged = rows.filter(r => r.verdict === 'converged').length;
  return {
    title: `${kind} LLC`,
    note: `${converged} of ${rows.length} converged · filled: converged, hollow: not`,
    traces: [trace],
    x: stepLayout(),
    y: llcLayout(rows.map(r => r.lambda)),
    mark: zeroMark
  };
}

function drawLlc(parent) {
  if (!estimates.length) return quiet(parent, 'No LLC was estimated.');
  parent.append(choice('λ̂ axis', [['signed log', true], ['linear', false]], () => view.symlogLlc, value => {
    view.symlogLlc = value;
    redraw();
  }));
  addChart(parent, () => grid(llcKinds.map(estimatePanel), {xTitle: 'training step', yTitle: 'λ̂', height: 300}));
  table(
      parent,
      [
        ['step', r => r.step],
        ['kind', r => r.kind, 'text'],
        ['λ̂', r => r.lambda],
        ['standard error', r => r.standard_error, '', 2],
        ['verdict', r => r.verdict, 'text long'],
        ['γ', r => r.gamma],
        ['nβ', r => r.n_beta],
        ['resolution γ/(nβ)', r => r.resolution, '', 3],
        ['R-hat', r => r.r_hat],
        ['ESS', r => r.ess, '', 3],
        ['acceptance', r => r.acceptance, '', 3],
        ['|w − w*| / |w*|', r => r.relative_distance, '', 3],
        ['seconds', r => r.seconds, '', 3],
      ],
      estimates);
}

/** "+0.83 [+0.21, +0.97]", or a dash. */
function correlationText({rho, low, high}) {
  if (rho === null) return '–';
  const signed = v => (v < 0 ? '−' : '+') + Math.abs(v).toFixed(2);
  return `${signed(rho)} [${signed(low)}, ${signed(high)}]`;
}

function comparisonPanel(comparison) {
  const pairs = comparison.pairs;
  const converged = r => r.verdict === 'converged';
  const look = (rows, marker) => ({
    type: 'scatter',
    mode: 'markers',
    x: rows.map(r => comparison.measure === 'sigma_min' && r.reading === 0 ? null : r.reading),
    y: rows.map(r => llcPosition(r.lambda)),
    error_y: llcBars(rows, '#aab2c0'),
    marker: {size: 10, line: {width: 1.5, color: marker.color}, ...marker},
    text: rows.map(
        r => `reading ${show(r.reading)}${r.at_floor ? ' (at the floor)' : ''}<br>${
            estimateHover({...r, kind: comparison.kind})}`),
    hovertemplate: '%{text}<extra></extra>',
  });
  const good = pairs.filter(converged), bad = pairs.filter(r => !converged(r));
  const order = unique(pairs.map(r => r.step));
  const traces = [
    look(bad, {symbol: 'circle-open', color: '#8a93a3'}),
    look(good, {symbol: 'circle', color: good.map(r => viridis(order.indexOf(r.step), order.length))}),
  ];
  const rho = comparison.raw.rho === null ?
      `n = ${comparison.raw.n}` :
      `ρ ${correlationText(comparison.raw).split(' ')[0]}, n = ${comparison.raw.n}`;
  return {
    title: comparison.layer,
    note: rho,
    traces,
    x: comparison.measure === 'sigma_min' ? {type: 'log', exponentformat: 'power', nticks: 4} : {nticks: 5},
    y: llcLayout(pairs.map(r => r.lambda))
  };
}

function chosenComparisons() {
  return data.comparisons.filter(
      c => c.measure === view.measure && c.kind === view.llcKind && view.layers.has(c.layer));
}

/** One row a layer and measure, the kinds of LLC beside each other. */
function correlationTable(parent) {
  const labels = Object.fromEntries(data.measures.map(m => [m.key, m.label]));
  const rows = [...groups(data.comparisons, c => [c.layer, c.measure].join('\n')).values()]
                   .sort((a, b) => layerNames.indexOf(a[0].layer) - layerNames.indexOf(b[0].layer))
                   .map(list => ({
                          layer: list[0].layer,
                          label: labels[list[0].measure],
                          ...Object.fromEntries(list.map(c => [c.kind, c]))
                        }));
  const columns = [['layer', r => r.layer, 'text'], ['reading', r => r.label, 'text html']];
  for (const kind of llcKinds) {
    columns.push(
        [`n, ${kind}`, r => r[kind]?.raw.n ?? null],
        [`ρ, ${kind} LLC`, r => r[kind] ? correlationText(r[kind].raw) : null],
        [`ρ detrended, ${kind} LLC`, r => r[kind] ? correlationText(r[kind].detrended) : null]);
  }
  table(parent, columns, rows);
}

function drawComparison(parent) {
  if (!data.comparisons.length) return quiet(parent, 'No checkpoint has both a read and an LLC.');
  const kinds = unique(data.comparisons.map(c => c.kind));
  const converged = kind => estimates.filter(r => r.kind === kind && r.verdict === 'converged').length;
  view.llcKind = kinds.reduce((best, kind) => converged(kind) > converged(best) ? kind : best);
  const controls = document.createElement('div');
  controls.className = 'control';
  controls.append(
      selection('reading', data.measures.map(m => [m.key, m.label.replace(/<[^>]*>/g, '')]), view.measure, value => {
        view.measure = value;
        redraw();
      }), choice('LLC', kinds.map(kind => [kind, kind]), () => view.llcKind, value => {
        view.llcKind = value;
        redraw();
      }));
  parent.append(controls);
  addChart(
      parent,
      () => grid(
          chosenComparisons().map(comparisonPanel),
          {xTitle: data.measures.find(m => m.key === view.measure).label, yTitle: `λ̂, ${view.llcKind}`, height: 220}));
  quiet(
      parent,
      'Colour: order of the steps, early dark to late light; grey and hollow: not converged, not in the correlation.');
  correlationTable(parent);
}
