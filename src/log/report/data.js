'use strict';
// The runs as the page gets them, turned into rows, and what all charts need to know of them.

/** {column: [values]} -> [{column: value}]. */
function rowsOf(table) {
  const names = Object.keys(table);
  return (table[names[0]] || []).map((_, i) => Object.fromEntries(names.map(name => [name, table[name][i]])));
}

/** Of rows with the same key the last one counts: a resumed run may log a step twice. */
function lastOfEach(rows, keyOf) {
  return [...new Map(rows.map(row => [keyOf(row), row])).values()].sort((a, b) => a.step - b.step);
}

function unique(values) { return [...new Set(values)]; }

/** Rows grouped by a key, in order of first appearance. */
function groups(rows, keyOf) {
  const map = new Map();
  for (const row of rows) {
    const key = keyOf(row);
    if (!map.has(key)) map.set(key, []);
    map.get(key).push(row);
  }
  return map;
}

function median(values) {
  const sorted = values.filter(v => v !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The rows of one table of every run, each with the number of its run. */
function rowsOfRuns(table) {
  return data.runs.flatMap((run, number) => rowsOf(run[table]).map(row => Object.assign(row, {run: number})));
}

const several = data.runs.length > 1;
const allSignatures = data.runs.flatMap((run, number) => {
  const rows = rowsOf(run.signatures).map(row => Object.assign(row, {run: number}));
  for (const [row, spectrum] of Object.entries(run.spectra)) rows[row].spectrum = spectrum;
  return rows;
});

const layerNames = unique(allSignatures.map(row => row.layer ?? ''));
const layerLabels = labelsOf(layerNames, 28);
const signatures = lastOfEach(allSignatures, r => [r.run, r.step, r.layer, r.side, r.source, r.fisher_kind].join('\n'));
const estimates = lastOfEach(rowsOfRuns('llc'), r => [r.run, r.step, r.kind].join('\n'));
const metrics = lastOfEach(rowsOfRuns('metrics'), r => [r.run, r.step, r.name].join('\n'));
// The monitor logs what its readings take as metrics.
const isDuration = metric => /_seconds$/.test(metric.name ?? '');

/** What the reader of the page has chosen. */
const view = {
  logSteps: true,
  steps: null,  // first and last step that all charts are zoomed to; null: all there are
  sameScale: false,
  symlogLlc: true,
  layers: new Set(layerNames.slice(0, 12)),
  runs: new Set(data.runs.keys()),
  sides: new Set(unique(signatures.map(r => r.side)).filter(side => side !== 'input')),
  sources: new Set(['step', 'read']),
  profileStep: null,  // the step of the profile over the layers
  measure: data.measures[0].key,
  llcKind: null,
  spectrumSide: null,
};

function runName(number) { return data.runs[number].name; }

/** What a layer's panel is drawn for: the layer, or the layer in one run. */
function panelTitle(layer, run) { return several ? `${layer || '(root)'} · ${runName(run)}` : layer; }

/** A column that tells the run, where there are several. */
const runColumn = several ? [['run', r => runName(r.run), 'text']] : [];
