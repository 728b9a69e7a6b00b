"""The pages' words in Chinese and English, and the choice between them."""

from collections.abc import Callable

from flask import request

LANGUAGES = ("zh", "en")

_TEXTS: dict[str, tuple[str, str]] = {
    "sandbox": ("沙箱 · 不会动用真实资金", "Sandbox · no real money moves"),
    "other_language": ("English", "中文"),
    "wechatpay": ("微信支付", "WeChat Pay"),
    "alipay": ("支付宝", "Alipay"),
    "merchant": ("收款商户", "Merchant"),
    "subject": ("商品", "For"),
    "number": ("商户订单号", "Order number"),
    "until": ("付款截止", "Pay before"),
    "beijing": ("北京时间", "Beijing time"),
    "pay": ("确认支付", "Pay now"),
    "refuse": ("拒绝付款", "Refuse to pay"),
    "pay_late": ("延迟支付", "Pay later"),
    "after": ("多久以后", "How much later"),
    "seconds": ("秒", "s"),
    "repeat_pay": ("支付，通知发送三次", "Pay, send the notice 3 times"),
    "repeat_again": ("再次发送通知", "Send the notice again"),
    "drop": ("支付，但不发送通知", "Pay, but send no notice"),
    "go_back": ("返回商户", "Back to the shop"),
    "more": ("测试异常情况", "Play something unusual"),
    "state_open": ("等待付款", "Waiting for payment"),
    "state_paid": ("支付成功", "Paid"),
    "state_refunded": ("已全额退款", "Fully refunded"),
    "state_part_refunded": ("已付款，部分退款", "Paid, partly refunded"),
    "state_closed": ("订单已关闭", "Closed"),
    "state_expired": ("付款时间已过", "The time to pay is over"),
    "state_dead": ("二维码已失效", "This code no longer works"),
    "state_unknown": ("没有这个二维码", "There is no such code"),
    "state_no_referer": ("商家参数格式有误", "The merchant's parameters are wrong"),
    "state_unscanned": ("尚未扫码", "Not scanned yet"),
    "hint_paid": ("商户会收到签名的支付通知。", "The merchant is told by a signed notice."),
    "hint_refunded": ("款项已退回。", "The money went back."),
    "hint_part_refunded": ("部分款项已退回。", "Part of the money went back."),
    "hint_closed": ("不能再付款，没有扣款。", "It cannot be paid any more; no money was taken."),
    "hint_expired": ("没有扣款。请回到商店重新下单。", "No money was taken. Go back to the shop."),
    "hint_dead": (
        "商店已换用新的二维码，或二维码已过期。",
        "The shop has made a newer code, or this one has expired.",
    ),
    "hint_unknown": ("请回到商店重新扫码。", "Go back to the shop and scan again."),
    "hint_no_referer": (
        "没有 Referer：H5 支付要从商户的网页打开，该网页须发送 Referer（referrerpolicy=origin）。",
        "There is no Referer: an H5 payment is opened from a page of the merchant's, which must"
        " send one (referrerpolicy=origin).",
    ),
    "hint_open": ("", ""),
    "said_refused": (
        "你拒绝了付款：没有扣款，也不会通知商户。仍可重新付款。",
        "You refused: no money was taken and no notice is sent. You can still pay.",
    ),
    "said_paid": ("付款完成，通知已排队。", "Paid; the notice is on its way."),
    "said_dropped": (
        "付款完成，但不会发送通知：商户只能主动查询。",
        "Paid, but no notice is sent: the merchant can only ask.",
    ),
    "said_repeated": ("通知将重复发送。", "The notice is sent repeatedly."),
    "said_late": ("将稍后付款，本页会自动更新。", "Will be paid later; this page updates itself."),
    "said_too_late": ("没有付款：订单状态已不允许。", "Not paid: the order no longer allows it."),
    "late_due": ("预定付款时间", "Will be paid at"),
    "refused_at": ("上次拒绝", "Last refused at"),
    "notices": ("通知", "Notices"),
    "no_notices": ("还没有通知。", "No notices so far."),
    "no_trades": ("还没有交易。到商店下一单试试。", "No trades so far. Buy something in the shop."),
    "trades": ("交易", "Trades"),
    "when": ("时间", "Time"),
    "amount": ("金额", "Amount"),
    "state": ("状态", "State"),
    "channel": ("渠道", "Channel"),
    "kind_payment": ("支付", "payment"),
    "kind_refund": ("退款", "refund"),
    "n_waiting": ("待发送", "waiting"),
    "n_delivered": ("已确认", "acknowledged"),
    "n_given_up": ("已放弃", "given up"),
    "n_dropped": ("不发送", "dropped"),
    "n_unsent": ("尚未发送", "not sent yet"),
    "r_acknowledged": ("已确认", "acknowledged"),
    "r_refused": ("被拒绝", "refused"),
    "r_timeout": ("超时", "timed out"),
    "r_unreachable": ("无法连接", "unreachable"),
    "next": ("下次发送", "next"),
    "title_faults": ("故障与时间", "Faults and time"),
    "intro_faults": (
        "下面的调用或通知将按要求出错。每种故障的含义见 docs/sandbox.md。",
        "The next calls or notices fail as ordered. docs/sandbox.md says what each means.",
    ),
    "waiting_faults": ("等待发生", "Still to come"),
    "no_faults": ("没有等待的故障。", "No fault waits."),
    "forget": ("取消", "Forget it"),
    "forget_all": ("全部取消", "Forget all"),
    "order_fault": ("安排故障", "Order a fault"),
    "operation": ("接口", "Operation"),
    "fault_kind": ("故障", "Fault"),
    "kinds_calls": ("调用与签名", "Of calls and signatures"),
    "kinds_notices": ("通知的发送", "Of how notices come"),
    "any": ("任意", "any"),
    "times": ("次数", "Times"),
    "delay_ms": ("延迟（毫秒）", "Delay, ms"),
    "probability": ("概率（0–1）", "Probability, 0–1"),
    "dials": ("时间", "Time"),
    "time_scale": ("时间倍率", "Time scale"),
    "bills_at_once": ("账单立即可下载", "Bills at once"),
    "yes": ("是", "yes"),
    "no": ("否", "no"),
    "turn": ("应用", "Apply"),
    "portal": ("商户平台", "Merchants' portal"),
    "search": ("查询", "Search"),
    "none_found": ("没有符合的交易。", "No trade is like that."),
    "newer": ("较新", "Newer"),
    "older": ("较早", "Older"),
    "bill": ("账单", "Bill"),
    "day": ("日期", "Day"),
    "download": ("下载", "Download"),
    "transaction": ("交易号", "Gateway's number"),
    "made": ("创建时间", "Made at"),
    "paid_at": ("支付时间", "Paid at"),
    "closed_at": ("关闭时间", "Closed at"),
    "refund": ("退款", "Refund"),
    "refunds": ("退款", "Refunds"),
    "refund_yuan": ("退款金额（元）", "Refund, yuan"),
    "no_refunds": ("没有退款。", "No refunds."),
    "refund_success": ("已退回", "given back"),
    "refund_abnormal": ("异常", "abnormal"),
    "refund_closed": ("已关闭", "closed"),
    "refund_processing": ("处理中", "under way"),
    "home": ("总览", "Overview"),
    "title_index": ("支付网关沙箱", "Payment gateways' sandbox"),
    "intro_index": (
        "代替微信支付与支付宝：同样的签名、报文与通知。最近的在最前。",
        "Stands in for WeChat Pay and Alipay: the same signatures, messages and notices. "
        "Newest first.",
    ),
}


def language() -> str:
    """What ?lang= (or the form's lang) says, else what the browser prefers, else Chinese."""
    wished = request.values.get("lang", "")
    if wished in LANGUAGES:
        return wished
    return request.accept_languages.best_match(LANGUAGES) or "zh"


def translator(lang: str) -> Callable[[str], str]:
    """A function from a text's name to its words."""
    column = LANGUAGES.index(lang)
    return lambda name: _TEXTS[name][column]
