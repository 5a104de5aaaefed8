(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function colours() {
    var css = getComputedStyle(document.documentElement);
    var fg = css.getPropertyValue("--fg").trim(), line = css.getPropertyValue("--line").trim();
    var soft = css.getPropertyValue("--soft").trim();
    return {"font.color": fg, "xaxis.gridcolor": line, "yaxis.gridcolor": line, "xaxis.linecolor": line,
            "hoverlabel.bgcolor": soft, "hoverlabel.font.color": fg};
  }
  function place(plot) {  // the filmstrip follows the time axis when somebody zooms
    var strip = document.getElementById(plot.dataset.strip), range = plot.layout.xaxis.range;
    if (!strip) return;
    strip.querySelectorAll("img").forEach(function (img) {
      var at = (Number(img.dataset.t) - range[0]) / (range[1] - range[0]);
      img.style.left = 100 * at + "%";
      img.style.transform = "translateX(" + -100 * Math.min(1, Math.max(0, at)) + "%)";
      img.style.visibility = at < 0 || at > 1 ? "hidden" : "visible";
    });
  }
  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "1";
    var spec = JSON.parse(document.getElementById(plot.id + "-data").textContent);
    Plotly.newPlot(plot, spec.data, spec.layout, {responsive: true, displaylogo: false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"]}).then(function () {
        Plotly.relayout(plot, colours());
        plot.on("plotly_relayout", function () { place(plot); });
      });
  }
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting) { draw(entry.target); seen.unobserve(entry.target); }
    });
  }, {rootMargin: "400px"});
  plots.forEach(function (plot) { seen.observe(plot); });
  window.addEventListener("beforeprint", function () { plots.forEach(draw); });
  dark.addEventListener("change", function () {
    plots.forEach(function (plot) { if (plot.dataset.drawn) Plotly.relayout(plot, colours()); });
  });
})();
