'use strict';
// Makes wechatpay-axios-plugin's own calls, which verify every answer, and tells what came of each.
//
// in:  { url, env, files, certified, today }   env and files: a shop's settings and what they name
// out: { <step>: … }

const { Wechatpay, Aes: { AesGcm }, Formatter } = require('wechatpay-axios-plugin');
const { gunzipSync } = require('node:zlib');
const { createHash } = require('node:crypto');
const { request, answer } = require('./io');

const { url, env, files, certified } = request;
const mchid = env.WECHATPAY_MCHID;
const appid = env.WECHATPAY_APPID;
const client = (certs) => new Wechatpay({
  mchid,
  serial: env.WECHATPAY_CERT_SERIAL,
  privateKey: files.WECHATPAY_PRIVATE_KEY_FILE,
  certs,
  baseURL: `${url}/`,
  headers: certified ? {} : { 'Wechatpay-Serial': env.WECHATPAY_PUBLIC_KEY_ID },
});
const refused = (error) => ({ status: error.response.status, code: error.response.data.code });
const admin = (path) => fetch(`${url}/admin/trades/${path}`, { method: 'POST' });

async function certificates() {
  // The first answer cannot be verified by what it brings: it is decrypted, then asked for again.
  const { data } = await client({ none: files.WECHATPAY_PUBLIC_KEY_FILE }).v3.certificates
    .get({ transformResponse: [(text) => JSON.parse(text)] });
  const opened = data.data.map((one) => [one.serial_no, AesGcm.decrypt(
    one.encrypt_certificate.ciphertext,
    files.WECHATPAY_APIV3_KEY_FILE,
    one.encrypt_certificate.nonce,
    one.encrypt_certificate.associated_data,
  )]);
  return Object.fromEntries(opened);
}

async function openid() {
  const asked = new URLSearchParams({
    appid, redirect_uri: 'http://127.0.0.1:1/back', response_type: 'code', scope: 'snsapi_base', state: 's',
  });
  const led = await fetch(`${url}/connect/oauth2/authorize?${asked}`, { redirect: 'manual' });
  const code = new URL(led.headers.get('location')).searchParams.get('code');
  const given = new URLSearchParams({
    appid, secret: files.WECHATPAY_APP_SECRET_FILE, code, grant_type: 'authorization_code',
  });
  return (await (await fetch(`${url}/sns/oauth2/access_token?${given}`)).json()).openid;
}

async function main() {
  const known = certified
    ? await certificates()
    : { [env.WECHATPAY_PUBLIC_KEY_ID]: files.WECHATPAY_PUBLIC_KEY_FILE };
  const { v3 } = client(known);
  const { transactions } = v3.pay;
  const out = {};
  if (certified) out.certificates = (await v3.certificates.get()).data.data.length;
  const number = () => `N${Formatter.nonce(20)}`;
  const body = (out_trade_no, more) => ({
    appid, mchid, out_trade_no, description: '测试商品', notify_url: 'http://127.0.0.1:1/n',
    amount: { total: 888, currency: 'CNY' }, ...more,
  });
  const [native, jsapi, h5] = [number(), number(), number()];
  out.native = (await transactions.native.post(body(native))).data.code_url;
  const payer = { openid: await openid() };
  out.jsapi = (await transactions.jsapi.post(body(jsapi, { payer }))).data.prepay_id;
  const scene_info = { payer_client_ip: '127.0.0.1', h5_info: { type: 'Wap' } };
  out.h5 = (await transactions.h5.post(body(h5, { scene_info }))).data.h5_url;

  const query = (out_trade_no) => transactions.outTradeNo.$out_trade_no$
    .get({ params: { mchid }, out_trade_no });
  out.unpaid = (await query(native)).data.trade_state;
  await admin(`${native}/pay`);
  const paid = (await query(native)).data;
  out.paid = paid.trade_state;
  out.byId = (await transactions.id.$transaction_id$
    .get({ params: { mchid }, transaction_id: paid.transaction_id })).data.out_trade_no === native;
  const { close } = transactions.outTradeNo.$out_trade_no$;
  out.close = (await close.post({ mchid }, { out_trade_no: h5 })).status;
  out.closed = (await query(h5)).data.trade_state;
  out.closePaid = await close.post({ mchid }, { out_trade_no: native }).catch(refused);

  const { refunds } = v3.refund.domestic;
  const out_refund_no = number();
  const amount = { refund: 88, total: 888, currency: 'CNY' };
  out.refund = (await refunds.post({ out_trade_no: native, out_refund_no, amount })).data.status;
  out.refundQuery = (await refunds.$out_refund_no$.get({ out_refund_no })).data.amount.refund;
  out.noRefund = await refunds.$out_refund_no$.get({ out_refund_no: 'none' }).catch(refused);

  const params = { bill_date: request.today, bill_type: 'ALL', tar_type: 'GZIP' };
  const bill = (await v3.bill.tradebill.get({ params })).data;
  const token = new URL(bill.download_url).searchParams.get('token');
  const file = (await v3.billdownload.file
    .get({ params: { token }, responseType: 'arraybuffer', transformResponse: [] })).data;
  const table = gunzipSync(file);
  out.bill = table.toString().includes(native);
  out.billHash = createHash('sha1').update(table).digest('hex') === bill.hash_value;
  answer(out);
}

main().catch((error) => { console.error(error); process.exitCode = 1; });
