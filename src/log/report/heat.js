'use strict';
// Layer by step at a glance, of all layers: how small the smallest singular value is, and how many directions are dead.

const kMostLabels = 110;  // of rows

const heatMaps = [
  {
    title: 'Smallest singular value, layer by step',
    unit: 'log₁₀ σ<sub>min</sub>',
    note: 'a scale for each side; a cross: on the floor, where the number is rounding noise',
    colors: () => theme().scale,
    // An exact zero has no logarithm: it stands on its floor.
    value: r => log10(r.sigma_min === 0 ? r.floor : r.sigma_min),
    cross: r => r.at_floor
  },
  {
    title: 'Dead directions, layer by step',
    unit: 'count',
    note: 'structural bound less numerical rank',
    whole: true,
    colors: () => [theme().grid, theme().series[1]],
    value: r => r.dead_directions,
    cross: () => false
  },
];

function log10(value) { return value > 0 ? Math.log10(value) : null; }

/** What a map is of, a list of rows each: two kinds of reading never share one. */
function heatRows() {
  const rows = signatures.filter(r => view.runs.has(r.run) && view.sides.has(r.side) && view.sources.has(r.source));
  return [...groups(rows, r => [r.run, r.source, r.side, r.fisher_kind].join('\n')).values()];
}

function heatPanel(map, rows) {
  const {run, side} = rows[0];
  const steps = unique(rows.map(r => r.step)).sort((a, b) => a - b);
  const layers = layerNames.filter(layer => rows.some(r => r.layer === layer));
  const at = new Map(rows.map(r => [`${r.layer}\n${r.step}`, r]));
  const cells = of => layers.map(layer => steps.map(step => {
    const row = at.get(`${layer}\n${step}`);
    return row ? of(row) : null;
  }));
  const crossed = rows.filter(map.cross);
  const labels = labelsOf(layers, 18);
  const each = Math.ceil(layers.length / kMostLabels);
  const labelled = layers.map((_, i) => i).filter(i => i % each === 0);
  return {
    title: several ? `${runName(run)} · ${side}` : side,
    note: escapeHtml([rows[0]?.source, rows[0]?.fisher_kind].filter(Boolean).join(', ')),
    traces: [
      {
        type: 'heatmap',
        x: steps.map(stepPosition),
        y: layers.map((_, i) => i),
        z: cells(map.value),
        text: cells(signatureHover),
        hovertemplate: '%{text}<extra></extra>',
        hoverongaps: false
      },
      {
        type: 'scatter',
        mode: 'markers',
        x: crossed.map(r => stepPosition(r.step)),
        y: crossed.map(r => layers.indexOf(r.layer)),
        marker: {symbol: 'x-thin', size: 6, line: {width: 1.2, color: theme().ground}},
        hoverinfo: 'skip'
      }
    ],
    side,
    x: {...stepLayout(), showgrid: false},
    y: {
      range: [layers.length - 0.5, -0.5],
      showgrid: false,
      tickmode: 'array',
      tickvals: labelled,
      ticktext: labelled.map(i => labels.get(layers[i]))
    }
  };
}

/** One scale for the panels of a side, so that runs compare. */
function heatColors(map, panels) {
  const values = panels.flatMap(panel => panel.traces[0].z.flat()).filter(v => v !== null);
  const low = map.whole ? 0 : values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), map.whole ? 1 : -Infinity);
  return {
    colorscale: map.colors().map((color, i, all) => [i / (all.length - 1), color]),
    ...(low < high ? {cmin: low, cmax: high} : {}),
    colorbar: {
      thickness: 12,
      outlinewidth: 0,
      tickfont: {size: 11},
      ...(map.whole && high < 6 ? {dtick: 1} : {nticks: 5})
    }
  };
}

function drawHeat(parent) {
  for (const map of heatMaps) {
    heading(parent, `${map.title} <small>[${map.unit}] · ${map.note}</small>`);
    addChart(parent, `${map.title}: heat map`, () => {
      const panels = heatRows().map(rows => heatPanel(map, rows));
      for (const panel of panels) panel.colors = heatColors(map, panels.filter(other => other.side === panel.side));
      const most = Math.max(1, ...panels.map(panel => panel.traces[0].y.length));
      return grid(panels, {
        xTitle: 'training step',
        yTitle: '',
        left: 150,
        right: 84,
        widest: 2,
        height: Math.max(90, Math.min(24 * most, Math.max(640, 13 * Math.min(most, kMostLabels))))
      });
    });
  }
}
