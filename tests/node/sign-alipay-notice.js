'use strict';
// Signs an Alipay callback with the official SDK, whose own check must accept it.
//
// in:  { privateKey, publicKey, params, certificates? }   privateKey is Alipay's; see alipay.js
// out: { body }

const { sdk, sign } = require('./alipay');
const { request, answer } = require('./io');

const { params } = request;
const content = Object.keys(params).sort().map((key) => `${key}=${params[key]}`).join('&');
const notice = { ...params, sign_type: 'RSA2', sign: sign(content, request.privateKey) };
if (!sdk(request).checkNotifySignV2(notice)) {
  throw new Error('the SDK does not believe the notice that it signed');
}
answer({ body: new URLSearchParams(notice).toString() });
