// Tables that scroll by themselves, and that a reader sorts and searches.

/**
 * Columns are [title, value of a row, classes, significant digits, hint]; the class `html` takes a value as it is. A hint
 * is shown over the title and, if it is a function of the row, over each cell. A table of many rows has a field to search it.
 */
function table(parent, columns, rows) {
  const cells = row => columns
                           .map(([, value, classes = '', digits = 4, hint]) => {
                             const content = value(row);
                             const over = typeof hint === 'function' ? titled(hint(row)) : '';
                             return `<td class="${classes}"${over}>${
                                 classes.includes('html') ? content : escapeHtml(show(content, digits))}</td>`;
                           })
                           .join('');
  const box = document.createElement('div');
  box.className = 'scroll';
  box.tabIndex = 0;
  box.innerHTML = `<table><thead><tr>${
      columns.map(([title, , classes = '', , hint]) => `<th scope="col" class="${classes}"${
                         typeof hint === 'string' ? titled(hint) : ''}><button>${title}</button></th>`)
          .join('')}</tr></thead><tbody></tbody></table>`;
  const shown = {text: '', column: null, descending: false};
  const fill = () => {
    const found = rows.filter(row => !shown.text || plain(cells(row)).toLowerCase().includes(shown.text));
    if (shown.column) found.sort((a, b) => (shown.descending ? -1 : 1) * order(shown.column(a), shown.column(b)));
    box.querySelector('tbody').innerHTML = found.map(row => `<tr>${cells(row)}</tr>`).join('');
  };
  box.querySelectorAll('th').forEach((head, i) => head.firstChild.onclick = () => {
    shown.descending = shown.column === columns[i][1] && !shown.descending;
    shown.column = columns[i][1];
    for (const other of box.querySelectorAll('th')) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', shown.descending ? 'descending' : 'ascending');
    fill();
  });
  if (rows.length > 20) parent.append(searchField(text => {
    shown.text = text.toLowerCase();
    fill();
  }));
  fill();
  parent.append(box);
}

function titled(text) { return text ? ` title="${escapeHtml(text)}"` : ''; }

/** Numbers before texts, what is missing last. */
function order(a, b) {
  const rank = value => value === null || value === undefined ? 2 : typeof value === 'number' ? 0 : 1;
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  return rank(a) === 0 ? a - b : rank(a) === 1 ? String(a).localeCompare(String(b), 'en', {numeric: true}) : 0;
}

function searchField(search) {
  const field = document.createElement('input');
  field.type = 'search';
  field.placeholder = 'search';
  field.setAttribute('aria-label', 'search the table');
  field.oninput = () => search(field.value);
  return field;
}
