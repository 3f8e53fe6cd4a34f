'use strict';
// The axis of training steps, the same in every chart, and the signed logarithm that LLC estimates are drawn on.

const stepAxis = (() => {
  const steps = unique([...signatures, ...estimates, ...metrics].map(row => row.step)).sort((a, b) => a - b);
  const positive = steps.filter(step => step > 0);
  const first = positive.length ? Math.log10(positive[0]) : 0;
  const last = positive.length ? Math.log10(positive[positive.length - 1]) : 1;
  // A logarithm has no zero: step 0 gets a place of its own left of the first step, behind a dotted line.
  const zero = first - Math.max(0.35, 0.14 * (last - first));
  return {steps, first, last, zero, hasZero: steps[0] === 0};
})();

/** One step alone has no scale. */
function onlyStep() { return stepAxis.steps.length <= 1; }
function logSteps() { return view.logSteps && !onlyStep(); }

function stepPosition(step) {
  if (!logSteps()) return step;
  return step > 0 ? Math.log10(step) : stepAxis.zero;
}

function stepText(step) {
  if (step >= 1e6) return `${step / 1e6}M`;
  return step >= 1000 ? `${step / 1000}k` : String(step);
}

function logTicks() {
  const {first, last, zero, hasZero} = stepAxis;
  const multiples = last - first < 1.7 ? [1, 2, 5] : [1];
  const ticks = hasZero ? [0] : [];
  for (let decade = Math.floor(first); decade <= Math.ceil(last); ++decade) {
    for (const multiple of multiples) {
      const step = multiple * 10 ** decade;
      if (Math.log10(step) >= first - 0.01 && Math.log10(step) <= last + 0.05) ticks.push(step);
    }
  }
  return {tickvals: ticks.map(step => step ? Math.log10(step) : zero), ticktext: ticks.map(stepText)};
}

/** The step at a position on the axis. */
function stepAt(position) {
  if (!logSteps()) return position;
  return position < (stepAxis.zero + stepAxis.first) / 2 && stepAxis.hasZero ? 0 : 10 ** position;
}

/** The layout of an axis of steps, zoomed to what the reader has chosen. */
function stepLayout() {
  const {steps, first, last, zero, hasZero} = stepAxis;
  if (onlyStep()) {
    const step = steps[0] ?? 0;
    return {range: [step - 1, step + 1], tickmode: 'array', tickvals: [step], ticktext: [stepText(step)]};
  }
  const low = view.logSteps ? (hasZero ? zero : first) : steps[0] ?? 0;
  const high = view.logSteps ? last : steps[steps.length - 1] ?? 1;
  const pad = 0.05 * Math.max(high - low, 0.1);
  const range = view.steps ? view.steps.map(stepPosition) : [low - pad, high + pad];
  return {range, steps: true, matches: 'x', ...(view.logSteps ? {tickmode: 'array', ...logTicks()} : {nticks: 6})};
}

/** The line that parts step 0 from the logarithmic axis, for panel number `panel`. */
function zeroMark(panel) {
  if (!logSteps() || !stepAxis.hasZero) return [];
  const x = (stepAxis.zero + stepAxis.first) / 2;
  const n = panel ? panel + 1 : '';
  return [{
    type: 'line',
    xref: `x${n}`,
    yref: `y${n} domain`,
    x0: x,
    x1: x,
    y0: 0,
    y1: 1,
    layer: 'below',
    line: {color: theme().line, width: 1, dash: 'dot'}
  }];
}

/** sign(v) log10(1 + |v|): estimates of -600 and of 10 in one chart. */
function llcPosition(value) {
  if (value === null) return null;
  return view.symlogLlc ? Math.sign(value) * Math.log10(1 + Math.abs(value)) : value;
}

function llcLayout(values) {
  if (!view.symlogLlc) return {};
  const known = values.filter(v => v !== null);
  const reach = 1.3 * Math.max(1, ...known.map(Math.abs));
  const [low, high] = [Math.min(...known, 0) - 1, Math.max(...known, 0) + 1];
  const ticksAt = multiples => {
    const sizes = [0, 1, 2, 3, 4, 5, 6].flatMap(decade => multiples.map(m => m * 10 ** decade)).filter(v => v <= reach);
    return [...sizes.map(v => -v).reverse(), 0, ...sizes].filter(v => v >= 1.3 * low && v <= 1.3 * high);
  };
  const decades = [[1, 2, 5], [1, 3], [1]].map(ticksAt).find(list => list.length <= 9) ?? ticksAt([1]);
  const inside = list => list.filter(v => v >= Math.min(...known) && v <= Math.max(...known)).length;
  const ticks = known.length && inside(decades) < 2 ? roundTicks(Math.min(...known), Math.max(...known)) : decades;
  return {tickmode: 'array', tickvals: ticks.map(llcPosition), ticktext: ticks.map(v => show(v))};
}

/** Some five round numbers from below `low` to above `high`. */
function roundTicks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const size = 10 ** Math.floor(Math.log10(span / 4));
  const step = size * [1, 2, 5, 10].find(multiple => span / (multiple * size) <= 5);
  const ticks = [];
  for (let i = Math.floor(low / step) - 1; i <= Math.ceil(high / step) + 1; ++i) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** The error bar of an estimate on that axis: +-1.96 standard errors. */
function llcBars(rows, color) {
  const reach = sign => rows.map(
      row => row.standard_error === null || row.lambda === null ?
          0 :
          Math.abs(llcPosition(row.lambda + sign * 1.96 * row.standard_error) - llcPosition(row.lambda)));
  return {type: 'data', symmetric: false, array: reach(1), arrayminus: reach(-1), color, thickness: 1.3, width: 3};
}

/** What one chart's axis of steps was zoomed to holds for all. */
function zoomAll(layout, change) {
  const key = Object.keys(change).find(key => /^xaxis\d*\.range\[0\]$/.test(key) && layout[key.split('.')[0]].steps);
  if (!key) return;
  const axis = key.split('.')[0];
  zoomTo([change[`${axis}.range[0]`], change[`${axis}.range[1]`]].map(stepAt));
}

function zoomTo(steps) {
  view.steps = steps;
  document.getElementById('zoom').hidden = !steps;
  redraw();
}

onNewChart.push(element => {
  element.on('plotly_relayout', change => zoomAll(element.layout, change));
  element.on('plotly_doubleclick', () => zoomTo(null));
});
