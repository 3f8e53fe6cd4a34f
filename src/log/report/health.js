'use strict';
// Layer by layer, worst first: what is dead, since when, and what is on its way down.

/** What one series has come to: its last reading, and how it got there. */
function healthOf(rows) {
  const read = rows.filter(r => r.rank !== null);
  const last = read[read.length - 1];
  if (!last) return {...rows[rows.length - 1], dead: null, since: null, fall: null, above: null};
  let since = null;
  for (const r of read) since = r.dead_directions > 0 ? since ?? r.step : null;
  const first = read.find(r => r.log10_lambda_share !== null), falls = first && first !== last;
  return {
    ...last,
    dead: last.dead_directions,
    since,
    fall: falls && last.log10_lambda_share !== null ? last.log10_lambda_share - first.log10_lambda_share : null,
    above: last.sigma_min_plus > 0 && last.floor > 0 ? Math.log10(last.sigma_min_plus / last.floor) : null
  };
}

/** The share that is dead, then the layers without numbers, then those whose smallest value is nearest to the floor. */
function worseFirst(a, b) {
  const share = r => r.dead === null ? 0 : r.dead / Math.max(1, r.structural_bound);
  return share(b) - share(a) || (a.dead !== null) - (b.dead !== null) || (a.above ?? Infinity) - (b.above ?? Infinity);
}

function drawHealth(parent) {
  const series = groups(signatures, r => [r.run, r.layer, r.side, r.source, r.fisher_kind].join('\n'));
  const hasReads = new Set(signatures.filter(r => r.source === 'read').map(r => r.run));
  const rows = [...series.values()]
                   .filter(list => list[0].source === (hasReads.has(list[0].run) ? 'read' : 'step'))
                   .map(healthOf)
                   .sort(worseFirst);
  table(
      parent,
      [
        ...runColumn, ['layer', r => r.layer || '(root)', 'text'], ['kind', r => r.kind, 'text'], ['side', r => r.side, 'text'],
        ['dead', r => r.dead, '', 4, meaningOf('dead directions')],
        ['of', r => r.structural_bound, '', 4, meaningOf('structural bound')], ['dead since step', r => r.since],
        ['decades above the floor', r => r.above, '', 3, meaningOf('floor')], ['change of λ_min⁺ / tr, decades', r => r.fall, '', 3, meaningOf('lambda_min+')],
        ['step', r => r.step], statusColumn
      ],
      rows);
}
