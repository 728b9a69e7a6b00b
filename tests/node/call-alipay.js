'use strict';
// Makes the official alipay-sdk's own calls, with every answer verified, and tells what came of each.
//
// in:  { url, env, files, certified, today }   env and files: a shop's settings and what they name
// out: { <step>: … }

const { AlipaySdk } = require('alipay-sdk');
const { randomBytes } = require('node:crypto');
const { request, answer } = require('./io');

const { url, env, files, certified } = request;
const sdk = new AlipaySdk({
  appId: env.ALIPAY_APP_ID,
  gateway: env.ALIPAY_BASE_URL,
  privateKey: files.ALIPAY_PRIVATE_KEY_FILE,
  keyType: 'PKCS8',
  timeout: 30000,
  ...(certified ? {
    appCertContent: files.ALIPAY_APP_CERT_FILE,
    alipayPublicCertContent: files.ALIPAY_CERT_FILE,
    alipayRootCertContent: files.ALIPAY_ROOT_CERT_FILE,
  } : { alipayPublicKey: files.ALIPAY_PUBLIC_KEY_FILE }),
});
const call = (method, bizContent) => sdk.exec(method, { bizContent }, { validateSign: true });
const number = () => `N${randomBytes(10).toString('hex')}`;
const admin = (path) => fetch(`${url}/admin/trades/${path}`, { method: 'POST' });
const payment = (outTradeNo, more) => ({
  outTradeNo, totalAmount: '8.88', subject: '测试商品', ...more,
});

async function open(method, outTradeNo, productCode) {
  const address = sdk.pageExec(method, 'GET', {
    bizContent: payment(outTradeNo, { productCode }), returnUrl: 'http://127.0.0.1:1/back',
  });
  const page = await fetch(address);
  return { status: page.status, cashier: new URL(page.url).pathname.startsWith('/cashier/alipay/') };
}

async function main() {
  const out = {};
  const [scanned, closed, cancelled, page, wap] = Array.from({ length: 5 }, number);
  out.precreate = (await call('alipay.trade.precreate', payment(scanned, { productCode: 'QR_CODE_OFFLINE' }))).qrCode;
  out.unscanned = (await call('alipay.trade.query', { outTradeNo: scanned })).subCode;
  await admin(`${scanned}/pay`);
  const paid = await call('alipay.trade.query', { outTradeNo: scanned });
  out.paid = paid.tradeStatus;
  out.byId = (await call('alipay.trade.query', { tradeNo: paid.tradeNo })).outTradeNo === scanned;
  out.page = await open('alipay.trade.page.pay', page, 'FAST_INSTANT_TRADE_PAY');
  out.wap = await open('alipay.trade.wap.pay', wap, 'QUICK_WAP_WAY');
  out.waiting = (await call('alipay.trade.query', { outTradeNo: page })).tradeStatus;
  await open('alipay.trade.page.pay', closed, 'FAST_INSTANT_TRADE_PAY');
  out.close = (await call('alipay.trade.close', { outTradeNo: closed })).code;
  out.closePaid = (await call('alipay.trade.close', { outTradeNo: scanned })).subCode;
  await open('alipay.trade.page.pay', cancelled, 'FAST_INSTANT_TRADE_PAY');
  await admin(`${cancelled}/pay`);
  out.cancel = (await call('alipay.trade.cancel', { outTradeNo: cancelled })).action;
  const refund = { outTradeNo: scanned, refundAmount: '0.88', outRequestNo: 'R1' };
  out.refund = (await call('alipay.trade.refund', refund)).fundChange;
  out.refundAgain = (await call('alipay.trade.refund', refund)).fundChange;
  out.refundQuery = (await call('alipay.trade.fastpay.refund.query', {
    outTradeNo: scanned, outRequestNo: 'R1',
  })).refundStatus;
  const bill = await call('alipay.data.dataservice.bill.downloadurl.query', {
    billType: 'trade', billDate: request.today,
  });
  const file = Buffer.from(await (await fetch(bill.billDownloadUrl)).arrayBuffer());
  out.bill = file.subarray(0, 2).toString();
  answer(out);
}

main().catch((error) => { console.error(error); process.exitCode = 1; });
