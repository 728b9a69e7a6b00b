// The slider between points and cash, with live sums. The server works everything out again.
"use strict";

(() => {
  const form = document.getElementById("checkout");
  const slider = document.getElementById("points-slider");
  const field = document.getElementById("points");
  if (!form || !slider || !field) {
    return;
  }
  const language = document.documentElement.lang;
  const pointsMin = Number(form.dataset.pointsMin);
  const cashAtMin = Number(form.dataset.amountFen);
  const fenPerPoint = Number(form.dataset.fenPerPoint);
  const sumPoints = document.getElementById("sum-points");
  const sumCash = document.getElementById("sum-cash");
  const channels = document.getElementById("channels");
  const button = document.getElementById("place-order");
  const whole = new Intl.NumberFormat(language);

  function yuan(fen) {
    const cents = String(fen % 100).padStart(2, "0");
    return `¥${whole.format(Math.floor(fen / 100))}.${cents}`;
  }

  function show(points) {
    const fen = cashAtMin - (points - pointsMin) * fenPerPoint;
    sumPoints.textContent = whole.format(points);
    sumCash.textContent = yuan(fen);
    if (channels) {
      channels.hidden = fen === 0;
    }
    if (button) {
      button.textContent = fen === 0 ? form.dataset.payPoints : form.dataset.payCash;
    }
  }

  slider.addEventListener("input", () => {
    field.value = slider.value;
    show(Number(slider.value));
  });
  field.addEventListener("input", () => {
    if (field.value !== "" && field.checkValidity()) {
      slider.value = field.value;
      show(Number(field.value));
    }
  });
  // A browser that reloads a page keeps what was typed.
  if (field.value !== "" && field.checkValidity()) {
    slider.value = field.value;
    show(Number(field.value));
  }
})();
