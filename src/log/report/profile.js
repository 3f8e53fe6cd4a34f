'use strict';
// The numbers of one step over the layers, from the first to the last: what a single checkpoint has to show.

function profilePanel(observable, step) {
  const rows = signatures.filter(
      r => r.step === step && view.runs.has(r.run) && view.sides.has(r.side) && view.sources.has(r.source));
  const layers = layerNames.filter(layer => rows.some(r => r.layer === layer));
  const labels = labelsOf(layers, 16);
  const series = [...groups(rows, r => [r.run, r.source, r.side, r.fisher_kind].join('\n')).values()].map(
      list => list.sort((a, b) => layers.indexOf(a.layer) - layers.indexOf(b.layer)));
  const x = list => list.map(r => layers.indexOf(r.layer));
  const each = Math.ceil(layers.length / 24);
  const labelled = layers.map((_, i) => i).filter(i => i % each === 0);
  return {
    title: plain(observable.title),
    html: observable.title,
    note: observable.unit,
    traces: series.flatMap(list => seriesTraces(list, observable).map(trace => ({...trace, x: x(list)}))),
    x: {
      range: [-0.5, layers.length - 0.5],
      tickmode: 'array',
      tickvals: labelled,
      ticktext: labelled.map(i => labels.get(layers[i])),
      tickangle: -60
    },
    y: observableAxis(observable, rows)
  };
}

function drawProfile(parent) {
  const steps = unique(signatures.map(r => r.step)).sort((a, b) => b - a);
  view.profileStep = steps[0];
  parent.append(selection('step', steps.map(step => [step, String(step)]), view.profileStep, value => {
    view.profileStep = Number(value);
    redraw();
  }));
  addChart(
      parent, 'Numbers of one step over the layers',
      () => grid(
          observables.map(observable => profilePanel(observable, view.profileStep)),
          {xTitle: '', yTitle: '', widest: 2, height: 220, between: 150, bottom: 120}));
}
