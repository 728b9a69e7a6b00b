// Watches the order while its payment is open, and shows what became of it.
"use strict";

(() => {
  const page = document.getElementById("payment");
  if (!page || page.dataset.live !== "yes") {
    return;
  }
  // The page turns within a second of the callback; unseen, or out of luck, it asks less often.
  const ASK_MS = 700;
  const ASK_HIDDEN_MS = 5000;
  const ASK_LONGEST_MS = 10000;
  const ANSWER_WAIT_MS = 8000;
  const PAID = ["paid", "refunding", "refunded"];

  const timeLeft = document.getElementById("time-left");
  const countdown = document.getElementById("countdown");
  let endsAt = performance.now() + Number(page.dataset.secondsLeft) * 1000;
  let failures = 0;
  let timer = 0;
  let over = false;

  function showTimeLeft() {
    if (!timeLeft) {
      return;
    }
    const seconds = Math.max(0, Math.round((endsAt - performance.now()) / 1000));
    if (seconds === 0) {
      countdown.textContent = countdown.dataset.over;
      return;
    }
    timeLeft.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }

  function showPaid() {
    over = true;
    const open = document.getElementById("panel-open");
    const paid = document.getElementById("panel-paid");
    if (open) {
      open.hidden = true;
    }
    paid.hidden = false;
    document.title = page.dataset.paidTitle;
    const said = document.getElementById("said");
    said.textContent = said.dataset.paid;
    paid.querySelector("h1").focus({ preventScroll: true });
    window.scrollTo({ top: 0 });
  }

  function apply(status) {
    if (PAID.includes(status.order_state)) {
      showPaid();
    } else if (status.watch !== page.dataset.watch) {
      // Another picture is due; the server draws it.
      over = true;
      window.location.reload();
    } else {
      endsAt = performance.now() + status.seconds_left * 1000;
    }
  }

  function pause() {
    const base = document.hidden ? ASK_HIDDEN_MS : ASK_MS;
    return Math.min(ASK_LONGEST_MS, base * 2 ** failures);
  }

  async function ask() {
    const giveUp = new AbortController();
    const patience = setTimeout(() => giveUp.abort(), ANSWER_WAIT_MS);
    try {
      const answer = await fetch(page.dataset.statusUrl, {
        headers: { Accept: "application/json" },
        cache: "no-store",
        signal: giveUp.signal,
      });
      if (answer.status === 401) {
        // Signed out in another tab: the server leads to the sign-in page and back here.
        over = true;
        window.location.reload();
        return;
      }
      if (!answer.ok) {
        throw new Error(`status ${answer.status}`);
      }
      failures = 0;
      apply(await answer.json());
    } catch {
      failures = Math.min(failures + 1, 4);
    } finally {
      clearTimeout(patience);
      again();
    }
  }

  function again() {
    clearTimeout(timer);
    if (!over) {
      timer = setTimeout(ask, pause());
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !over) {
      clearTimeout(timer);
      ask();
    }
  });
  setInterval(showTimeLeft, 1000);
  again();
})();
