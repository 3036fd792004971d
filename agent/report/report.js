"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const stage = viewer.querySelector(".stage");
  const after = stage.querySelector(".after");
  const cut = viewer.querySelector('[name="cut"]');
  const mask = viewer.querySelector('[name="mask"]');
  const opacity = viewer.querySelector('[name="opacity"]');
  const shown = viewer.querySelector(".shown");
  let digest = viewer.dataset.kept;
  const kept = after.src;

  const draw = () => {
    stage.style.setProperty("--cut", `${cut.value}%`);
    if (!mask) return;
    mask.disabled = opacity.disabled = digest !== viewer.dataset.kept; // the mask belongs to the kept image
    stage.classList.toggle("masked", mask.checked && !mask.disabled);
    stage.style.setProperty("--opacity", opacity.value / 100);
  };
  for (const input of [cut, mask, opacity]) input?.addEventListener("input", draw);

  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    cut.value = Math.round(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * 100);
    draw();
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });

  for (const button of document.querySelectorAll("[data-show]")) {
    const full = document.querySelector(`.turns img[data-digest="${button.dataset.show}"]`);
    if (!full) continue;
    button.disabled = false;
    button.addEventListener("click", () => {
      digest = button.dataset.show;
      after.src = digest === viewer.dataset.kept ? kept : full.src;
      shown.textContent = button.dataset.name;
      draw();
      viewer.scrollIntoView({ block: "nearest" });
    });
  }
  draw();
})();
