'use strict';
// The tables of the report: cost, statuses, meaning of the columns.

const sum = values => values.reduce((a, b) => a + b, 0);

function drawCost(parent) {
  const rows = [...groups(allSignatures, r => [r.run, r.source].join('\n')).values()].map(list => {
    const {run, source} = list[0];
    const steps = [...groups(list, r => r.step).values()].map(group => sum(group.map(r => r.seconds ?? 0)));
    return {
      run,
      what: `spectral work of a reading, source ${source}`,
      count: steps.length,
      one: median(steps),
      total: sum(steps),
      row: median(list.map(r => r.seconds))
    };
  });
  for (const list of groups(metrics.filter(isDuration), r => [r.run, r.name].join('\n')).values()) {
    const {run, name} = list[0];
    const seconds = list.map(r => r.value ?? 0);
    rows.push({run, what: `whole reading (${name})`, count: seconds.length, one: median(seconds), total: sum(seconds), row: null});
  }
  for (const list of groups(estimates, r => [r.run, r.kind].join('\n')).values()) {
    const {run, kind} = list[0];
    const seconds = list.map(r => r.seconds ?? 0);
    rows.push({run, what: `LLC, ${kind}`, count: seconds.length, one: median(seconds), total: sum(seconds), row: null});
  }
  if (!rows.length) return quiet(parent, 'Nothing was read.');
  quiet(
      parent,
      'A reading is all layers and sides at one step. A whole checkpoint read has its forward and backward passes in it; a ' +
          'whole reading of a training step what comes on top of the step.');
  table(
      parent,
      [
        ...runColumn, ['what', r => r.what, 'text'], ['count', r => r.count], ['median seconds each', r => r.one, '', 3],
        ['median seconds per layer and side', r => r.row, '', 3], ['seconds in all', r => r.total, '', 3]
      ],
      rows);
}

function drawCounts(parent) {
  const counts = data.runs.flatMap((run, number) => run.counts.map(count => ({...count, run: number})));
  if (!counts.length) return quiet(parent, 'No spectra were logged.');
  const interval = r => r.ratio === null ? null : `${show(r.ratio, 3)} [${show(r.ratio_low, 3)}, ${show(r.ratio_high, 3)}]`;
  table(
      parent,
      [
        ...runColumn, ['layer', r => r.layer, 'text'], ['side', r => r.side, 'text'],
        ['source', r => r.source, 'text'], ['Fisher', r => r.fisher_kind, 'text'], ['count', r => r.count],
        ['between', r => r.count === null && r.status === 'undecided' ? `${r.low} and ${r.high}` : null, 'text'],
        ['of rank', r => r.rank], ['status', r => r.status.replaceAll('_', ' '), 'text'],
        ['rates', r => r.count === null ? null : r.rates, 'text'], ['log det⁺ / log λ_min⁺', interval, 'text'],
        ['decades of λ_min⁺', r => r.decades, '', 3], ['first step', r => r.first_step], ['last step', r => r.last_step]
      ],
      counts);
}

function drawStatuses(parent) {
  const odd = allSignatures.filter(r => r.status !== 'ok');
  if (!odd.length) return quiet(parent, 'None: every reading is ok.');
  const rows = [...groups(odd, r => [r.run, r.layer, r.side, r.source, r.status].join('\n')).values()].map(list => {
    const steps = list.map(r => r.step);
    return {...list[0], count: list.length, first: Math.min(...steps), last: Math.max(...steps)};
  });
  table(
      parent,
      [
        ...runColumn, ['layer', r => r.layer, 'text'], ['side', r => r.side, 'text'],
        ['source', r => r.source, 'text'], statusColumn, ['readings', r => r.count], ['first step', r => r.first],
        ['last step', r => r.last]
      ],
      rows);
}

function drawColumns(parent) {
  for (const [file, notes] of Object.entries(data.notes)) {
    const details = document.createElement('details');
    details.innerHTML = `<summary>${file}</summary>`;
    table(
        details, [['column', n => n[0], 'text'], ['unit', n => n[1], 'text'], ['meaning', n => n[2], 'text long']],
        notes);
    parent.append(details);
  }
}
