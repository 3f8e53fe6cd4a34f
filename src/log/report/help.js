'use strict';
// What statuses, verdicts and terms mean, in the words of the guide.

function meaningOf(name) {
  const [what, remedy] = data.terms[name] ?? [''];
  return what + (remedy ? `. What to do: ${remedy}` : '');
}

/** The column of a reading's status, each part of it with its meaning. */
const statusColumn = [
  'status', r => r.status, 'text', 4,
  r => r.status === 'ok' ? '' : r.status.split('+').map(status => `${status}: ${meaningOf(status)}`).join('\n')
];

/** The meanings of what failed in an estimate. */
function meaningOfVerdict(verdict) {
  return Object.keys(data.terms)
      .filter(name => verdict.includes(name))
      .map(name => `${name}: ${meaningOf(name)}`)
      .join('\n');
}

function drawTerms(parent) {
  table(
      parent, [['name', t => t[0], 'text'], ['what it is', t => t[1][0], 'text long'], ['what to do', t => t[1][1], 'text long']],
      Object.entries(data.terms));
}
