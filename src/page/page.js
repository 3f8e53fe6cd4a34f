// What every page does: its data, its theme, how it prints, and what follows the window's width.

const data = JSON.parse(document.getElementById('data').textContent);

const onRecolor = [];  // functions that draw anew what is coloured besides the charts

/** Everything anew in the colours that hold now. */
function recolor() {
  for (const draw of onRecolor) draw();
  redraw();
}
prefersDark.addEventListener('change', recolor);

function themeControl() {
  return choice(
      'theme', [['auto', 'auto'], ['light', 'light'], ['dark', 'dark']], () => themeChoice.value, value => {
        themeChoice.value = value;
        recolor();
      });
}

// Paper is white, and shows what nobody has scrolled to.
function forPaper(on) {
  printing = on;
  recolor();
  if (on) drawEverything();
}
window.addEventListener('beforeprint', () => forPaper(true));
window.addEventListener('afterprint', () => forPaper(false));

// The number of panels in a row depends on the width.
let resized;
window.addEventListener('resize', () => {
  clearTimeout(resized);
  resized = setTimeout(redraw, 200);
});

/**
 * The last call of a page's script. For programs that look at the page: page.html#all draws what is out of sight too,
 * and how long the page took to open stays with it.
 */
function pageIsWhole() {
  if (location.hash === '#all') drawEverything();
  document.documentElement.dataset.opened = Math.round(performance.now());
}
