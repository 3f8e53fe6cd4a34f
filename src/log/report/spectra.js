'use strict';
// All singular values of a layer, one line a checkpoint.

const kMostLines = 16;

/**
 * The readings whose spectra are drawn: checkpoint reads where there are any, at most so many, spread over training.
 */
function spectrumRows(layer, side, run) {
  const rows = signatures.filter(r => r.layer === layer && r.side === side && r.run === run && r.spectrum);
  const reads = rows.filter(r => r.source === 'read');
  const shown = reads.length ? reads : rows;
  if (shown.length <= kMostLines) return shown;
  return unique(
      Array.from({length: kMostLines}, (_, i) => shown[Math.round(i * (shown.length - 1) / (kMostLines - 1))]));
}

function spectrumPanel([layer, run]) {
  const rows = spectrumRows(layer, view.spectrumSide, run);
  const order = spectrumSteps();
  const traces = rows.map(r => ({
                            type: 'scatter',
                            mode: 'lines',
                            x: r.spectrum.map((_, i) => i + 1),
                            y: r.spectrum.map(s => s > 0 ? s : null),
                            line: {color: scaleColor(order.indexOf(r.step), order.length), width: 1.6},
                            hovertemplate: `step ${r.step}<br>σ<sub>%{x}</sub> = %{y:.4g}<extra></extra>`,
                          }));
  const last = rows[rows.length - 1];
  if (last && last.floor !== null) {
    traces.push({
      type: 'scatter',
      mode: 'lines',
      x: [1, last.spectrum.length],
      y: [last.floor, last.floor],
      hoverinfo: 'skip',
      line: {color: theme().soft, width: 1.3, dash: 'dot'}
    });
  }
  return {
    title: panelTitle(layer, run),
    traces,
    x: {nticks: 6, tickformat: 'd'}, y: {type: 'log', exponentformat: 'power', nticks: 6}};
}

function spectrumSteps() {
  return unique(spectrumPanels().flatMap(([layer, run]) => spectrumRows(layer, view.spectrumSide, run)).map(r => r.step))
      .sort((a, b) => a - b);
}

/** The layers that have spectra, in each run. */
function spectrumPanels() {
  return shownLayers()
      .flatMap(layer => [...view.runs].map(run => [layer, run]))
      .filter(([layer, run]) => spectrumRows(layer, view.spectrumSide, run).length);
}

function drawSpectrumLegend(parent) {
  const steps = spectrumSteps();
  const items = steps.map(
      (step, i) =>
          [`<line x1="1" x2="33" y1="7" y2="7" stroke="${scaleColor(i, steps.length)}" stroke-width="3"/>`,
           `step ${step}`]);
  items.push([
    `<line x1="1" x2="33" y1="7" y2="7" stroke="${theme().soft}" stroke-width="1.5" stroke-dasharray="2 3"/>`,
    'floor of the last'
  ]);
  drawLegend(parent, items);
}

function redrawSpectrumLegend() {
  const legend = document.getElementById('spectrum-legend');
  if (legend) drawSpectrumLegend(legend);
}

function drawSpectra(parent) {
  const sides = unique(signatures.filter(r => r.spectrum).map(r => r.side));
  if (!sides.length) return quiet(parent, 'No spectra were logged.');
  view.spectrumSide = sides[0];
  const legend = document.createElement('div');
  legend.className = 'legend';
  legend.id = 'spectrum-legend';
  parent.append(choice('side', sides.map(side => [side, side]), () => view.spectrumSide, value => {
                  view.spectrumSide = value;
                  drawSpectrumLegend(legend);
                  redraw();
                }), legend);
  drawSpectrumLegend(legend);
  addChart(
      parent, 'Singular values of every layer, one line a checkpoint',
      () => grid(spectrumPanels().map(spectrumPanel), {xTitle: 'i', yTitle: 'σ<sub>i</sub>', height: 220}));
}
