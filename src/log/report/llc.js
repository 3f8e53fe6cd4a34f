'use strict';
// The local learning coefficient over training, and DDS against it.

const kindNumber = {
  plain: 3,
  tilted: 2
};
const comparisons =
    data.runs.flatMap((run, number) => run.comparisons.map(comparison => ({...comparison, run: number})));
const llcKinds = unique(estimates.map(r => r.kind));

function estimateHover(r) {
  return `${several && r.run !== undefined ? `${escapeHtml(runName(r.run))} · ` : ''}<b>${r.kind} LLC</b>, step ${r.step}<br>λ̂ ${show(r.lambda)} ± ${show(r.standard_error)}<br>${
             escapeHtml(r.verdict)}` +
      (r.gamma === undefined ? '' : `<br>γ ${show(r.gamma)}, nβ ${show(r.n_beta)}, resolution ${show(r.resolution)}`);
}

function estimatePanel(kind) {
  const rows = estimates.filter(r => r.kind === kind && view.runs.has(r.run));
  const traces = [...groups(rows, r => r.run).values()].map(estimateTrace);
  const converged = rows.filter(r => r.verdict === 'converged').length;
  return {
    title: `${kind} LLC`,
    note: `${converged} of ${rows.length} converged · filled: converged, hollow: not`,
    traces,
    x: stepLayout(),
    y: llcLayout(rows.map(r => r.lambda)),
    mark: zeroMark
  };
}

/** The estimates of one kind and run. */
function estimateTrace(rows) {
  const color = seriesColor(several ? rows[0].run : kindNumber[rows[0].kind]);
  return {
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
}

function drawLlc(parent) {
  if (!estimates.length) return quiet(parent, 'No LLC was estimated.');
  parent.append(choice('λ̂ axis', [['signed log', true], ['linear', false]], () => view.symlogLlc, value => {
    view.symlogLlc = value;
    redraw();
  }));
  addChart(parent, 'LLC estimates over the steps', () => grid(llcKinds.map(estimatePanel), {xTitle: 'training step', yTitle: 'λ̂', height: 300}));
  table(
      parent,
      [
        ...runColumn,
        ['step', r => r.step],
        ['kind', r => r.kind, 'text'],
        ['λ̂', r => r.lambda],
        ['standard error', r => r.standard_error, '', 2],
        ['verdict', r => r.verdict, 'text long', 4, r => meaningOfVerdict(r.verdict)],
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
    error_y: llcBars(rows, theme().line),
    marker: {size: 10, line: {width: 1.5, color: marker.color}, ...marker},
    text: rows.map(
        r => `reading ${show(r.reading)}${r.at_floor ? ' (at the floor)' : ''}<br>${
            estimateHover({...r, kind: comparison.kind})}`),
    hovertemplate: '%{text}<extra></extra>',
  });
  const good = pairs.filter(converged), bad = pairs.filter(r => !converged(r));
  const order = unique(pairs.map(r => r.step));
  const traces = [
    look(bad, {symbol: 'circle-open', color: theme().soft}),
    look(good, {symbol: 'circle', color: good.map(r => scaleColor(order.indexOf(r.step), order.length))}),
  ];
  const rho = comparison.raw.rho === null ?
      `n = ${comparison.raw.n}` :
      `ρ ${correlationText(comparison.raw).split(' ')[0]}, n = ${comparison.raw.n}`;
  return {
    title: panelTitle(comparison.layer, comparison.run),
    note: rho,
    traces,
    x: comparison.measure === 'sigma_min' ? {type: 'log', exponentformat: 'power', nticks: 4} : {nticks: 5},
    y: llcLayout(pairs.map(r => r.lambda))
  };
}

function chosenComparisons() {
  return comparisons.filter(
      c => c.measure === view.measure && c.kind === view.llcKind && view.layers.has(c.layer) && view.runs.has(c.run));
}

/** One row a layer and measure, the kinds of LLC beside each other. */
function correlationTable(parent) {
  const labels = Object.fromEntries(data.measures.map(m => [m.key, m.label]));
  const rows = [...groups(comparisons, c => [c.run, c.layer, c.measure].join('\n')).values()]
                   .sort((a, b) => a[0].run - b[0].run || layerNames.indexOf(a[0].layer) - layerNames.indexOf(b[0].layer))
                   .map(list => ({
                          run: list[0].run,
                          layer: list[0].layer,
                          label: labels[list[0].measure],
                          ...Object.fromEntries(list.map(c => [c.kind, c]))
                        }));
  const columns = [...runColumn, ['layer', r => r.layer, 'text'], ['reading', r => r.label, 'text html']];
  for (const kind of llcKinds) {
    columns.push(
        [`n, ${kind}`, r => r[kind]?.raw.n ?? null],
        [`ρ, ${kind} LLC`, r => r[kind] ? correlationText(r[kind].raw) : null],
        [`ρ detrended, ${kind} LLC`, r => r[kind] ? correlationText(r[kind].detrended) : null]);
  }
  table(parent, columns, rows);
}

function drawComparison(parent) {
  if (!comparisons.length) return quiet(parent, 'No checkpoint has both a read and an LLC.');
  const kinds = unique(comparisons.map(c => c.kind));
  const converged = kind => estimates.filter(r => r.kind === kind && r.verdict === 'converged').length;
  view.llcKind = kinds.reduce((best, kind) => converged(kind) > converged(best) ? kind : best);
  const controls = document.createElement('div');
  controls.className = 'control';
  controls.append(
      selection('reading', data.measures.map(m => [m.key, plain(m.label)]), view.measure, value => {
        view.measure = value;
        redraw();
      }), choice('LLC', kinds.map(kind => [kind, kind]), () => view.llcKind, value => {
        view.llcKind = value;
        redraw();
      }));
  parent.append(controls);
  addChart(
      parent, 'Readings against the LLC, layer by layer',
      () => grid(
          chosenComparisons().map(comparisonPanel),
          {xTitle: data.measures.find(m => m.key === view.measure).label, yTitle: `λ̂, ${view.llcKind}`, height: 220}));
  quiet(
      parent,
      'Colour: order of the steps, early dark to late light; grey and hollow: not converged, not in the correlation.');
  correlationTable(parent);
}
