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

/** A name that fits over a panel; the whole of it is in the hover text. */
function shortened(name, length = 34) {
  const text = String(name ?? '') || '(root)';
  const half = Math.max(4, Math.floor(length / 2) - 1);
  return text.length <= 2 * half + 1 ? text : text.slice(0, half) + '…' + text.slice(-half);
}
