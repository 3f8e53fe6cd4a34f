'use strict';
// The head of the report, its toolbar, and the order in which all is put together.

/** {name of a fact: its text} of one run. */
function factsOf(run) {
  const of = rows => rows.filter(r => r.run === run);
  const steps = unique([...of(signatures), ...of(estimates), ...of(metrics)].map(r => r.step)).sort((a, b) => a - b);
  const readings = source => unique(of(signatures).filter(r => r.source === source).map(r => r.step)).length;
  const facts = {
    steps: steps.length ? `${steps[0]} to ${steps[steps.length - 1]}` : 'none',
    layers: unique(of(allSignatures).map(r => r.layer)).length,
    'readings in training steps': readings('step'),
    'checkpoint reads': readings('read'),
    'LLC estimates': of(estimates).length,
    ...data.runs[run].run,
  };
  const text = value => typeof value === 'object' && value !== null ?
      Object.entries(value).map(([key, v]) => `${key}: ${typeof v === 'object' ? JSON.stringify(v) : v}`).join(', ') :
      String(value);
  return Object.fromEntries(Object.entries(facts).map(([key, value]) => [key.replaceAll('_', ' '), text(value)]));
}

function drawHead() {
  const names = data.runs.map(run => run.name).join(', ');
  document.title = `DDS report · ${names}`;
  document.getElementById('run-name').textContent = names;
  const facts = document.getElementById('facts'), findings = document.getElementById('findings');
  data.runs.forEach((run, number) => {
    const title = several ? `<h2><i style="background:${seriesColor(number)}"></i>${escapeHtml(run.name)}</h2>` : '';
    const entries = Object.entries(factsOf(number))
                        .map(([key, value]) => `<div><dt>${escapeHtml(key)}</dt><dd>${escapeHtml(value)}</dd></div>`)
                        .join('');
    facts.innerHTML += `<div>${title}<dl>${entries}</dl></div>`;
    if (!run.findings.length) return;
    findings.innerHTML +=
        `<div>${title}<ul>${run.findings.map(finding => `<li>${escapeHtml(finding)}</li>`).join('')}</ul></div>`;
  });
  findings.hidden = !findings.innerHTML;
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
      ...(several ? [switches('runs', data.runs.map((run, i) => [shortened(run.name, 24), i]), view.runs)] : []),
      switches('sides', sides.map(side => [side, side]), view.sides),
      switches('source', sources.map(source => [source, source]), view.sources));
  const chips =
      switches(`layers (${layerNames.length})`, layerNames.map(layer => [layerLabels.get(layer) || '(root)', layer]), view.layers);
  chips.id = 'layer-chips';
  bar.append(chips);
  const zoom = document.createElement('button');
  zoom.id = 'zoom';
  zoom.textContent = 'zoom out';
  zoom.hidden = true;
  zoom.onclick = () => zoomTo(null);
  bar.append(themeControl(), zoom);
  document.getElementById('toolbar').append(bar);
}

onRecolor.push(() => {
  if (signatures.length) for (const legend of document.querySelectorAll('.series-legend')) drawSeriesLegend(legend);
  redrawSpectrumLegend();
  for (const [i, mark] of document.querySelectorAll('h2 > i').entries())
    mark.style.background = seriesColor(i % data.runs.length);
});

const body = id => document.querySelector(`#${id} .body`);

drawHead();
drawToolbar();
drawTraining(body('training'));
if (signatures.length) {
  for (const legend of document.querySelectorAll('.series-legend')) drawSeriesLegend(legend);
  drawHealth(body('health'));
  drawCauses(body('causes'));
  drawHeat(body('heat'));
  drawProfile(body('profile'));
  drawLayers(body('layers'));
  // Charts over the steps say nothing of one step.
  document.getElementById('layers').hidden = onlyStep();
} else {
  for (const id of ['health', 'causes', 'heat', 'profile']) document.getElementById(id).hidden = true;
  quiet(body('layers'), 'No signature was logged.');
}
drawLlc(body('llc'));
drawComparison(body('comparison'));
drawSpectra(body('spectra'));
drawCounts(body('counts'));
drawCost(body('cost'));
drawStatuses(body('statuses'));
drawTerms(body('terms'));
drawColumns(body('columns'));
pageIsWhole();
