// Comfort on every page: a form is sent once, its button greys. Safety is the server's.
"use strict";

document.documentElement.classList.add("js");

// Clicks closer together than this are one click with a trembling finger.
const DEBOUNCE_MS = 100;
// A page that got no answer for so long lets its button be pressed again; the form's key makes a
// second sending harmless.
const GIVE_BACK_MS = 20000;

function buttonsOf(form) {
  return Array.from(form.elements).filter((element) => element.type === "submit");
}

function giveBack(form) {
  delete form.dataset.sent;
  form.removeAttribute("aria-busy");
  for (const button of buttonsOf(form)) {
    button.disabled = false;
  }
}

for (const form of document.querySelectorAll("form[data-once]")) {
  let lastClick = -Infinity;
  form.addEventListener("submit", (event) => {
    const sinceLast = event.timeStamp - lastClick;
    lastClick = event.timeStamp;
    if (form.dataset.sent || sinceLast < DEBOUNCE_MS) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
    // After this event the browser still has to read which button was pressed.
    setTimeout(() => {
      for (const button of buttonsOf(form)) {
        button.disabled = true;
      }
    }, 0);
    setTimeout(() => giveBack(form), GIVE_BACK_MS);
  });
}

// Coming back to this page by the browser's own memory: its buttons live again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-once]")) {
    giveBack(form);
  }
});
