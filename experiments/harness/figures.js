'use strict';
// The page of an experiment: data is {title, parts}, a part being a figure with panels or a table.

const curvesOf = figure => figure.panels.flatMap(panel => panel.curves);

/** The colour of a curve among all of its figure: more numbers than the palette has are an order, early to late. */
function colorOf(color, figure) {
  if (color === 'ink') return theme().ink;
  if (color === 'grey') return theme().soft;
  const numbers = 1 + Math.max(...curvesOf(figure).map(curve => curve.color).filter(Number.isInteger));
  return numbers > theme().series.length ? scaleColor(color, numbers) : seriesColor(color);
}

function curveTrace(curve, panel, figure) {
  const color = colorOf(curve.color, figure);
  return {
    type: 'scatter',
    mode: [curve.line && 'lines', curve.markers && 'markers'].filter(Boolean).join('+'),
    x: curve.x,
    y: curve.y,
    line: {color, width: curve.dashed ? 1.4 : 1.8, dash: curve.dashed ? 'dash' : 'solid'},
    marker: {color, size: 5},
    hovertemplate: `${curve.name || panel.title}<br>%{x:.4g}, %{y:.4g}<extra></extra>`
  };
}

function figurePanel(panel, figure) {
  const axis = log => log ? {type: 'log', exponentformat: 'power', nticks: 7} : {nticks: 7};
  return {
    title: plain(panel.title),
    html: panel.title.includes('<') ? panel.title : undefined,  // markup cannot be shortened
    traces: panel.curves.map(curve => curveTrace(curve, panel, figure)),
    x: axis(figure.log_x),
    y: axis(figure.log_y)
  };
}

/** Every name once, as it is drawn where it comes first. */
function figureLegend(figure) {
  const named = new Map(curvesOf(figure).filter(curve => curve.name).reverse().map(curve => [curve.name, curve]));
  return [...named.values()].reverse().map(({name, color, line, dashed}) => {
    const drawn = colorOf(color, figure);
    return [
      line ? `<line x1="1" x2="33" y1="7" y2="7" stroke="${drawn}" stroke-width="3"${
                 dashed ? ' stroke-dasharray="6 4"' : ''}/>` :
             `<circle cx="17" cy="7" r="4" fill="${drawn}"/>`,
      name
    ];
  });
}

function drawFigure(parent, figure) {
  const legend = document.createElement('div');
  legend.className = 'legend';
  parent.append(legend);
  const fill = () => drawLegend(legend, figureLegend(figure));
  fill();
  onRecolor.push(fill);
  addChart(
      parent, plain(figure.title),
      () => grid(
          figure.panels.map(panel => figurePanel(panel, figure)),
          {xTitle: figure.x_title, yTitle: figure.y_title, height: 240, widest: figure.panels.length === 4 ? 4 : 3}));
}

function drawTable(parent, part) {
  const columns = part.columns.map((name, i) => {
    const text = part.rows.some(row => typeof row[i] === 'string');
    return [escapeHtml(name), row => row[i], text ? 'text' : ''];
  });
  table(parent, columns, part.rows);
}

document.title = data.title;
document.querySelector('h1').textContent = data.title;
const bar = document.createElement('div');
bar.append(themeControl());
document.getElementById('toolbar').append(bar);
for (const part of data.parts) {
  const section = document.createElement('section'), title = document.createElement('h2');
  title.textContent = part.title;
  section.append(title);
  quiet(section, part.caption);
  document.querySelector('main').append(section);
  part.panels ? drawFigure(section, part) : drawTable(section, part);
}
pageIsWhole();
