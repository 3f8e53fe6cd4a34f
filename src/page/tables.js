// Tables that scroll by themselves.

/** Columns are [title, value of a row, classes, significant digits]; the class `html` takes a value as it is. */
function table(parent, columns, rows) {
  const cells = row => columns
                           .map(([, value, classes = '', digits = 4]) => {
                             const content = value(row);
                             return `<td class="${classes}">${
                                 classes.includes('html') ? content : escapeHtml(show(content, digits))}</td>`;
                           })
                           .join('');
  const box = document.createElement('div');
  box.className = 'scroll';
  box.tabIndex = 0;
  box.innerHTML =
      `<table><thead><tr>${
          columns.map(([title, , classes = '']) => `<th scope="col" class="${classes}">${title}</th>`).join('')}</tr></thead>` +
      `<tbody>${rows.map(row => `<tr>${cells(row)}</tr>`).join('')}</tbody></table>`;
  parent.append(box);
}
