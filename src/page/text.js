// Numbers and names as text.

/** A number in at most `digits` significant digits; what is missing is a dash, never zero. */
function show(value, digits = 4) {
  if (value === null || value === undefined || value === '') return '–';
  if (typeof value !== 'number') return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value).replace('-', '−');
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6))
    return value.toExponential(Math.max(0, digits - 2)).replace('-', '−').replace('e-', 'e−');
  return String(Number(value.toPrecision(digits))).replace('-', '−');
}

function escapeHtml(text) {
  return String(text ?? '').replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'})[c]);
}

/** Text without its markup. */
function plain(html) { return html.replace(/<[^>]*>/g, ''); }

/**
 * {name: label}: the dotted end of each name that tells it from the others, and as much more as fits into `length`.
 * "transformer.h.0.attn.c_attn" is "…h.0.attn.c_attn" in 16.
 */
function labelsOf(names, length) {
  const end = (name, parts) => name.split('.').slice(-parts).join('.');
  const users = new Map();  // end -> how many names have it
  for (const name of names)
    for (let parts = name.split('.').length; parts > 0; --parts)
      users.set(end(name, parts), (users.get(end(name, parts)) ?? 0) + 1);
  return new Map(names.map(name => {
    const most = name.split('.').length;
    let parts = 1;
    while (parts < most && users.get(end(name, parts)) > 1) ++parts;
    while (parts < most && end(name, parts + 1).length < length) ++parts;
    const label = parts < most ? `…${end(name, parts)}` : name;
    return [name, label && label.length <= length ? label : shortened(label, length)];
  }));
}

/** A name that fits over a panel; the whole of it is in the hover text. */
function shortened(name, length = 34) {
  const text = String(name ?? '') || '(root)';
  const half = Math.max(4, Math.floor(length / 2) - 1);
  return text.length <= 2 * half + 1 ? text : text.slice(0, half) + '…' + text.slice(-half);
}
