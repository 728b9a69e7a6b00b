// The bridge of WeChat's own browser, played by the sandbox: `WeixinJSBridge.invoke` of the payment
// call, with the answers of the real one. A page whose policy forbids it to ask the sandbox is led
// to the cashier in its own window instead, and comes back without an answer.
"use strict";

(() => {
  const BASE = {{ base | tojson }};
  const CALL = "getBrandWCPayRequest";
  const ASK_EVERY_MS = 500;

  function pause() {
    return new Promise((done) => { setTimeout(done, ASK_EVERY_MS); });
  }

  // Whether the cashier's window is still there cannot be seen from every page (its opener policy may
  // cut the two apart), so a window that is closed without a choice is no answer: this goes on.
  async function watch(call) {
    const asked = `${BASE}/bridge/result/${call.prepay_id}?since_ms=${call.since_ms}`;
    for (;;) {
      await pause();
      const { result } = await (await fetch(asked)).json();
      if (result !== "waiting") {
        return result;
      }
    }
  }

  async function pay(given, answer) {
    const body = new URLSearchParams(given);
    let reply;
    try {
      reply = await fetch(`${BASE}/bridge/pay`, { method: "POST", body });
    } catch {
      body.set("back", location.href);
      location.assign(`${BASE}/bridge/pay?${body}`);
      return;
    }
    const call = await reply.json();
    const cashier = reply.ok ? window.open(call.cashier_url, "_blank") : null;
    if (!cashier) {
      const why = call.error || "the window of the cashier was blocked";
      answer({ err_msg: "get_brand_wcpay_request:fail", err_desc: why });
      return;
    }
    const result = await watch(call);
    answer({ err_msg: `get_brand_wcpay_request:${result}` });
  }

  window.WeixinJSBridge = {
    invoke(name, given, callback) {
      const answer = callback || (() => {});
      if (name !== CALL) {
        answer({ err_msg: `${name}:fail`, err_desc: "this bridge can only pay" });
        return;
      }
      pay(given, answer).catch((error) => {
        answer({ err_msg: "get_brand_wcpay_request:fail", err_desc: String(error) });
      });
    },
  };
  document.dispatchEvent(new Event("WeixinJSBridgeReady"));
})();
