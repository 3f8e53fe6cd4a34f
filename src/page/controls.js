// Controls of the toolbar: they call back what the reader chooses.

/** Buttons of which one is pressed. */
function choice(label, options, current, choose) {
  const element = document.createElement('div');
  element.className = 'control';
  element.innerHTML = `<span>${label}</span>`;
  const buttons = options.map(([text, value]) => {
    const button = document.createElement('button');
    button.textContent = text;
    button.onclick = () => {
      choose(value);
      press();
    };
    element.append(button);
    return [button, value];
  });
  const press = () => buttons.forEach(([button, value]) => button.setAttribute('aria-pressed', value === current()));
  press();
  return element;
}

/** Buttons of which any number is pressed; they put their value into `set` or take it out. */
function switches(label, options, set) {
  const element = document.createElement('div');
  element.className = 'control';
  element.innerHTML = `<span>${label}</span>`;
  for (const [text, value] of options) {
    const button = document.createElement('button');
    button.textContent = text;
    button.setAttribute('aria-pressed', set.has(value));
    button.onclick = () => {
      set.has(value) ? set.delete(value) : set.add(value);
      button.setAttribute('aria-pressed', set.has(value));
      redraw();
    };
    element.append(button);
  }
  return element;
}

function selection(label, options, value, choose) {
  const element = document.createElement('label');
  element.className = 'control';
  element.innerHTML = `<span>${label}</span><select>${
      options.map(([key, text]) => `<option value="${key}">${escapeHtml(text)}</option>`).join('')}</select>`;
  const select = element.querySelector('select');
  select.value = value;
  select.onchange = () => choose(select.value);
  return element;
}
