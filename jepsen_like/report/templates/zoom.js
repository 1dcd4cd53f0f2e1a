"use strict";
// The timeline: zoom by buttons, keys, the wheel with Ctrl, or by dragging over a stretch of it.
(function () {
  const lanes = document.getElementById("lanes");
  if (!lanes) return;
  const view = lanes.querySelector("svg.view"), axis = document.getElementById("lanes-axis");
  const told = document.getElementById("lanes-told"), bars = [...view.querySelectorAll(".bar")];
  const span = Number(lanes.dataset.span), height = Number(lanes.dataset.height);
  const left = Number(lanes.dataset.left), width = Number(lanes.dataset.width);
  const SVG = "http://www.w3.org/2000/svg", closest = Math.min(span, 2);
  let from = 0, wide = span, due = false;

  function step(ms, about) {
    const raw = ms / about, power = Math.pow(10, Math.floor(Math.log10(raw)));
    return [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw * 0.999);
  }
  function draw() {
    due = false;
    view.setAttribute("viewBox", from + " 0 " + wide + " " + height);
    const narrowest = wide / 900;
    for (const bar of bars) {
      bar.setAttribute("width", Math.max(Number(bar.dataset.w), narrowest));
    }
    axis.replaceChildren();
    const every = step(wide, 10), digits = Math.max(0, -Math.floor(Math.log10(every / 1e3)));
    for (let k = Math.ceil(from / every); k * every <= from + wide; k++) {
      const text = document.createElementNS(SVG, "text");
      text.setAttribute("x", left + ((k * every - from) / wide) * width);
      text.setAttribute("y", 14);
      text.setAttribute("text-anchor", "middle");
      text.textContent = (k * every / 1e3).toFixed(digits) + " s";
      axis.append(text);
    }
  }
  function show(start, length) {
    wide = Math.min(Math.max(length, closest), span);
    from = Math.min(Math.max(start, 0), span - wide);
    if (!due) { due = true; requestAnimationFrame(draw); }
  }
  function zoom(factor, share) { show(from + wide * share * (1 - factor), wide * factor); }
  const acts = {
    in: () => zoom(0.5, 0.5), out: () => zoom(2, 0.5), all: () => show(0, span),
    left: () => show(from - wide / 4, wide), right: () => show(from + wide / 4, wide),
  };
  const keys = { "+": "in", "=": "in", "-": "out", "0": "all", ArrowLeft: "left", ArrowRight: "right" };
  document.querySelectorAll("[data-zoom]").forEach((button) => {
    button.addEventListener("click", () => acts[button.dataset.zoom]());
  });
  lanes.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[act]();
  });
  function share(event) {
    const box = view.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  }
  lanes.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, share(event));
  }, { passive: false });
  let pressed = null;
  view.addEventListener("pointerdown", (event) => { pressed = share(event); });
  window.addEventListener("pointerup", (event) => {
    if (pressed === null) return;
    const [a, b] = [pressed, share(event)].sort((x, y) => x - y);
    pressed = null;
    if (b - a > 0.01) { show(from + a * wide, (b - a) * wide); return; }
    const bar = event.target.closest ? event.target.closest(".bar") : null;
    bars.forEach((one) => one.classList.toggle("chosen", one === bar));
    told.textContent = bar ? bar.querySelector("title").textContent : "";
  });
})();
