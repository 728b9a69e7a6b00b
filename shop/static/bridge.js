// Paying inside WeChat's own browser: its bridge opens the payment. What it calls back is a hint and
// never believed: the page's watch asks the shop whether the order is paid.
"use strict";

(() => {
  const button = document.getElementById("bridge-pay");
  if (!button) {
    return;
  }
  const BRIDGE_WAIT_MS = 5000;
  const told = ["bridge-missing", "bridge-cancelled", "bridge-failed", "bridge-asking"];
  const panels = {
    "get_brand_wcpay_request:ok": "bridge-asking",
    "get_brand_wcpay_request:cancel": "bridge-cancelled",
  };

  function tell(id) {
    for (const one of told) {
      document.getElementById(one).hidden = one !== id;
    }
  }

  // WeChat provides the bridge a moment after the page has loaded.
  function bridge() {
    return new Promise((found, missing) => {
      if (window.WeixinJSBridge) {
        found(window.WeixinJSBridge);
        return;
      }
      const timer = setTimeout(missing, BRIDGE_WAIT_MS);
      document.addEventListener("WeixinJSBridgeReady", () => {
        clearTimeout(timer);
        found(window.WeixinJSBridge);
      }, { once: true });
    });
  }

  async function pay() {
    button.disabled = true;
    tell("");
    try {
      const found = await bridge();
      found.invoke("getBrandWCPayRequest", JSON.parse(button.dataset.call), (answer) => {
        const panel = panels[answer.err_msg] || "bridge-failed";
        tell(panel);
        button.disabled = panel === "bridge-asking";
      });
    } catch {
      tell("bridge-missing");
      button.disabled = false;
    }
  }

  button.addEventListener("click", pay);
})();
