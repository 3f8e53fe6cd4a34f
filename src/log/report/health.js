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
        ['of', r => r.structural_bound, '', 4, meaningOf('structural bound')],
        ['why', r => foundCauses(r).map(causeText).join(', '), 'text'], ['dead since step', r => r.since],
        ['decades above the floor', r => r.above, '', 3, meaningOf('floor')], ['change of λ_min⁺ / tr, decades', r => r.fall, '', 3, meaningOf('lambda_min+')],
        ['step', r => r.step], statusColumn
      ],
      rows);
}

// ---- causes ----

const byArchitecture = new Set(['softmax', 'layer_norm', 'shape', 'probe']);

/** "relu_off:2[3,8] upstream:1(fc1)" -> [{kind, directions, units, layer}]. */
function causesOf(row) {
  const parts = (row.causes ?? '').matchAll(/(\w+):(\d+)(?:\[([\d,-]*)\])?(?:\((\S*)\))?(?= |$)/g);
  return [...parts].map(([, kind, directions, units, layer]) => ({kind, directions: +directions, units, layer: layer && decodeURIComponent(layer)}));
}

function foundCauses(row) { return causesOf(row).filter(cause => !byArchitecture.has(cause.kind)); }

function causeText(cause) {
  return cause.kind.replaceAll('_', ' ') + ' ' + cause.directions + (cause.layer ? ` (${cause.layer})` : '');
}

/** Rows of a table: a cause of a series, with the readings that have it. */
function causeRows(wanted) {
  const rows = signatures.flatMap(r => causesOf(r).filter(wanted).map(cause => ({...r, cause})));
  const key = r => [r.run, r.layer, r.side, r.source, r.fisher_kind, r.cause.kind, r.cause.layer].join('\n');
  return [...groups(rows, key).values()].map(list => {
    const last = list[list.length - 1], series = signatures.filter(r => key({...r, cause: last.cause}) === key(last));
    return {...last, readings: list.length, of: series.length, first: list[0].step};
  });
}

function causeTable(parent, rows) {
  table(
      parent,
      [
        ...runColumn, ['layer', r => r.layer || '(root)', 'text'], ['side', r => r.side, 'text'],
        ['source', r => r.source, 'text'],
        ['cause', r => r.cause.kind.replaceAll('_', ' '), 'text', 4, r => meaningOf(`cause ${r.cause.kind}`)],
        ['in', r => r.cause.layer ?? '', 'text'], ['dimensions', r => r.cause.directions], ['of', r => r.width],
        ['units', r => (r.cause.units ?? '').replaceAll(',', ', '), 'text'], ['first step', r => r.first],
        ['last step', r => r.step], ['readings', r => `${r.readings} of ${r.of}`, 'text']
      ],
      rows);
}

function drawCauses(parent) {
  const found = causeRows(cause => !byArchitecture.has(cause.kind));
  if (found.length) {
    causeTable(parent, found.sort((a, b) => b.cause.directions / b.width - a.cause.directions / a.width));
  } else {
    quiet(parent, 'Nothing is dead but by architecture, or no causes were logged.');
  }
  const expected = causeRows(cause => byArchitecture.has(cause.kind));
  if (!expected.length) return;
  const details = document.createElement('details');
  details.innerHTML = '<summary>What the architecture and the probe leave out</summary>';
  causeTable(details, expected);
  parent.append(details);
}
