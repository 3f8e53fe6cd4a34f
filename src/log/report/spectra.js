'use strict';
// All singular values of a layer, one line a checkpoint.

const kMostLines = 16;

/**
 * The readings whose spectra are drawn: checkpoint reads where there are any, at most so many, spread over training.
 */
function spectrumRows(layer, side) {
  const rows = signatures.filter(r => r.layer === layer && r.side === side && r.spectrum);
  const reads = rows.filter(r => r.source === 'read');
  const shown = reads.length ? reads : rows;
  if (shown.length <= kMostLines) return shown;
  return unique(
      Array.from({length: kMostLines}, (_, i) => shown[Math.round(i * (shown.length - 1) / (kMostLines - 1))]));
}

function spectrumPanel(layer) {
  const rows = spectrumRows(layer, view.spectrumSide);
  const order = spectrumSteps();
  const traces = rows.map(r => ({
                            type: 'scatter',
                            mode: 'lines',
                            x: r.spectrum.map((_, i) => i + 1),
                            y: r.spectrum.map(s => s > 0 ? s : null),
                            line: {color: viridis(order.indexOf(r.step), order.length), width: 1.6},
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
      line: {color: '#5b6475', width: 1.3, dash: 'dot'}
    });
  }
  return {title: layer, traces, x: {nticks: 6, tickformat: 'd'}, y: {type: 'log', exponentformat: 'power', nticks: 6}};
}

function spectrumSteps() {
  return unique(layerNames.flatMap(layer => spectrumRows(layer, view.spectrumSide)).map(r => r.step))
      .sort((a, b) => a - b);
}

function drawSpectrumLegend(parent) {
  const steps = spectrumSteps();
  const items = steps.map(
      (step, i) =>
          [`<line x1="1" x2="33" y1="7" y2="7" stroke="${viridis(i, steps.length)}" stroke-width="3"/>`,
           `step ${step}`]);
  items.push([
    '<line x1="1" x2="33" y1="7" y2="7" stroke="#5b6475" stroke-width="1.5" stroke-dasharray="2 3"/>',
    'floor of the last'
  ]);
  parent.innerHTML = items.map(([svg, text]) => `<span>${swatch(svg)}${text}</span>`).join('');
}

function drawSpectra(parent) {
  const sides = unique(signatures.filter(r => r.spectrum).map(r => r.side));
  if (!sides.length) return quiet(parent, 'No spectra were logged.');
  view.spectrumSide = sides[0];
  const legend = document.createElement('div');
  legend.className = 'legend';
  parent.append(choice('side', sides.map(side => [side, side]), () => view.spectrumSide, value => {
                  view.spectrumSide = value;
                  drawSpectrumLegend(legend);
                  redraw();
                }), legend);
  drawSpectrumLegend(legend);
  addChart(
      parent,
      () => grid(
          shownLayers().filter(layer => spectrumRows(layer, view.spectrumSide).length).map(spectrumPanel),
          {xTitle: 'i', yTitle: 'σ<sub>i</sub>', height: 220}));
}
