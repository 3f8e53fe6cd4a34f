'use strict';
// The head of the page, its controls, and the order in which all is put together.

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

function drawHead() {
  document.title = `DDS report · ${data.name}`;
  document.getElementById('run-name').textContent = data.name;
  const {steps} = stepAxis;
  const readings = source => unique(signatures.filter(r => r.source === source).map(r => r.step)).length;
  const facts = {
    steps: steps.length ? `${steps[0]} to ${steps[steps.length - 1]}` : 'none',
    layers: layerNames.length,
    'readings in training steps': readings('step'),
    'checkpoint reads': readings('read'),
    'LLC estimates': estimates.length,
    ...data.run,
  };
  const text = value => typeof value === 'object' && value !== null ?
      Object.entries(value).map(([key, v]) => `${key}: ${typeof v === 'object' ? JSON.stringify(v) : v}`).join(', ') :
      String(value);
  document.getElementById('facts').innerHTML =
      Object.entries(facts)
          .map(
              ([key, value]) =>
                  `<div><dt>${escapeHtml(key.replaceAll('_', ' '))}</dt><dd>${escapeHtml(text(value))}</dd></div>`)
          .join('');
  document.getElementById('findings').innerHTML =
      data.findings.map(finding => `<li>${escapeHtml(finding)}</li>`).join('');
  document.getElementById('findings').hidden = !data.findings.length;
}

function drawToolbar() {
  const bar = document.createElement('div');
  const sides = unique(signatures.map(r => r.side)), sources = unique(signatures.map(r => r.source));
  bar.append(
      choice(
          'steps', [['log', true], ['linear', false]], () => view.logSteps,
          value => {
            view.logSteps = value;
            redraw();
          }),
      choice(
          'y scale', [['per layer', false], ['shared', true]], () => view.sameScale,
          value => {
            view.sameScale = value;
            redraw();
          }),
      switches('sides', sides.map(side => [side, side]), view.sides),
      switches('source', sources.map(source => [source, source]), view.sources));
  const chips =
      switches(`layers (${layerNames.length})`, layerNames.map(layer => [shortened(layer, 28), layer]), view.layers);
  chips.id = 'layer-chips';
  bar.append(chips);
  document.getElementById('toolbar').append(bar);
}

// The number of panels in a row depends on the width.
let resized;
window.addEventListener('resize', () => {
  clearTimeout(resized);
  resized = setTimeout(redraw, 200);
});

const body = id => document.querySelector(`#${id} .body`);

drawHead();
drawToolbar();
drawTraining(body('training'));
if (signatures.length) {
  drawSeriesLegend(document.getElementById('series-legend'));
  drawLayers(body('layers'));
} else {
  quiet(body('layers'), 'No signature was logged.');
}
drawLlc(body('llc'));
drawComparison(body('comparison'));
drawSpectra(body('spectra'));
drawCounts(body('counts'));
drawCost(body('cost'));
drawStatuses(body('statuses'));
drawColumns(body('columns'));
